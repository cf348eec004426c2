//! The faults store.
