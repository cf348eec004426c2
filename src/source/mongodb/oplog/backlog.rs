//! What a transaction wrote that has not ended: raw entries, in memory, or where they are many in the spool.

use std::os::unix::fs::FileExt;
use std::vec::IntoIter;

use bytes::Bytes;

use super::super::raw::Documents;
use crate::error::{Error, Result};
use crate::task::Spool;
use crate::task::spool::SpoolFile;
use crate::vault::codec::{BLOCK, start};

/// The entries of one transaction, in order. Its file goes back to the spool with it.
#[derive(Debug, Default)]
pub struct Backlog {
    file: Option<SpoolFile>,
    written: u64,
    /// Those after what is in the file. Copies: a slice would keep the whole block alive that it was read with.
    entries: Vec<Bytes>,
    held: usize,
}

impl Backlog {
    /// Adds an entry.
    pub fn push(&mut self, entry: &[u8]) {
        self.held += entry.len();
        self.entries.push(Bytes::copy_from_slice(entry));
    }

    /// How many bytes of it are in memory.
    pub fn held(&self) -> usize {
        self.held
    }

    /// Puts what is in memory into the spool.
    ///
    /// # Errors
    /// `Full` if there is no room; those of the disk.
    pub async fn spill(&mut self, spool: &Spool) -> Result<()> {
        let file = match &self.file {
            Some(file) => file.clone(),
            None => self.file.insert(spool.file()?).clone(),
        };
        let (from, to) = (self.written, self.written + self.held as u64);
        file.book(from, to).await?;
        let entries = std::mem::take(&mut self.entries);
        let write = move || {
            let mut at = from;
            for entry in entries {
                file.write_at(&entry, at)?;
                at += entry.len() as u64;
            }
            Ok(())
        };
        start(self.held, write).await?;
        (self.written, self.held) = (to, 0);
        Ok(())
    }

    /// Its entries from the first.
    pub fn read(self) -> Reading {
        let Backlog { file, written, entries, .. } = self;
        Reading { file, at: 0, written, documents: Documents::default(), entries: entries.into_iter() }
    }
}

/// Hands out the entries of a backlog.
#[derive(Debug)]
pub struct Reading {
    file: Option<SpoolFile>,
    at: u64,
    written: u64,
    documents: Documents,
    entries: IntoIter<Bytes>,
}

impl Reading {
    /// The next entry; `None` after the last.
    ///
    /// # Errors
    /// Those of the disk.
    pub async fn next(&mut self) -> Result<Option<Bytes>> {
        loop {
            if let Some(entry) = self.documents.next()? {
                return Ok(Some(entry));
            }
            let Some(file) = self.file.as_ref().filter(|_| self.at < self.written) else {
                self.file = None;
                self.documents.finish()?;
                return Ok(self.entries.next());
            };
            let (file, at) = (file.file().clone(), self.at);
            let length = (self.written - at).min(BLOCK as u64) as usize;
            let read = move || {
                let mut block = vec![0; length];
                let read = file.read_exact_at(&mut block, at);
                read.map(|()| block).map_err(|cause| Error::io("reading the spool", cause))
            };
            self.documents.push(&start(length, read).await?);
            self.at += length as u64;
        }
    }
}
