//! Writes a backup as the stock tools read it.

use crate::error::{Error, Kind, Result};
use crate::source::{Extracted, Format, Outlet};
use crate::task::Task;
use crate::vault::reader::BackupReader;

/// The formats, the default first.
pub const FORMATS: [Format; 2] =
    [Format { name: "directory", is_stream: false }, Format { name: "mongodump-archive", is_stream: true }];

/// Writes all of a backup.
pub async fn extract(
    _from: &BackupReader,
    _format: &Format,
    _to: Outlet<'_>,
    _task: &Task,
) -> Result<Vec<Extracted>> {
    Err(Error::new(Kind::Internal, "extracting", "not built yet"))
}
