//! The fs store.
