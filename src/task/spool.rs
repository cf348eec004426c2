//! Where stored bytes wait on disk until the vault has taken them: bounded, shared by all runs of a process.

use std::sync::Arc;

use super::Limits;
use crate::clock::SharedClock;
use crate::error::{Context, Result};

/// The spool of a process. Clones share its limit.
#[derive(Clone, Debug)]
pub struct Spool(Arc<Limits>);

impl Spool {
    /// The spool in `limits.spool_dir`, which is made if it is not there.
    pub fn new(limits: &Limits, clock: &SharedClock) -> Result<Self> {
        let _ = clock;
        let doing = format!("making spool_dir {}", limits.spool_dir.display());
        std::fs::create_dir_all(&limits.spool_dir).doing(doing)?;
        Ok(Spool(Arc::new(limits.clone())))
    }
}
