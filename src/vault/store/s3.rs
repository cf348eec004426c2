//! The s3 store.
