//! Where stored bytes wait on disk until the vault has taken them: bounded, shared by all runs of a process.

/// The spool of a process. Clones share its limit.
#[derive(Clone, Debug)]
pub struct Spool {}
