//! The archive of the stock tools: one stream that `mongorestore --archive` reads.
//!
//! It is a magic number, a prelude and blocks. The prelude is a document about the archive, one about each namespace, and a
//! terminator. A block is a header that names a namespace, documents, and a terminator; the last block of a namespace has
//! no documents, but a checksum of all before. (`common/archive` of mongo-tools.)
//!
//! Namespaces come one after the other. Side by side they could deadlock the reader: it takes in no more of them at a time than
//! it has workers.

use mongodb::bson::{RawDocumentBuf, rawdoc};
use tokio::io::{AsyncWrite, AsyncWriteExt, BufWriter};

use super::namespace::Namespace;
use super::raw;
use crate::error::{Error, Kind, Result};
use crate::source::crc64;

/// CRC-64/XZ, which the stock tools call ECMA; the sum of `123456789` is `995dc9bbdf1939fa`.
pub type Crc64 = crc64::Crc64<0xc96c_5795_d787_0f42, { u64::MAX }>;

const MAGIC: u32 = 0x8199_e26d;
const TERMINATOR: [u8; 4] = [0xff; 4];

/// The version of the format.
const VERSION: &str = "0.1";

/// Its reader takes no longer document, not even from an oplog.
pub const DOCUMENT_MAX: usize = 16 << 20;

/// What is written at once, where it is small.
const BUFFER: usize = 64 << 10;

/// Writes an archive in its order: what is in it, then the documents of each namespace.
pub struct ArchiveWriter<'a> {
    out: BufWriter<&'a mut (dyn AsyncWrite + Send + Unpin)>,
    written: u64,
    /// The namespace whose documents are being written.
    open: Option<Open>,
}

struct Open {
    namespace: Namespace,
    crc: Crc64,
    frames: Frames,
}

impl<'a> ArchiveWriter<'a> {
    /// Begins an archive of what a server of this version held.
    pub async fn begin(
        out: &'a mut (dyn AsyncWrite + Send + Unpin),
        server_version: &str,
        tool: &str,
    ) -> Result<Self> {
        let out = BufWriter::with_capacity(BUFFER, out);
        let mut archive = ArchiveWriter { out, written: 0, open: None };
        archive.put(&MAGIC.to_le_bytes()).await?;
        let header = rawdoc! {
            "concurrent_collections": 1_i32,
            "version": VERSION,
            "server_version": server_version,
            "tool_version": tool,
        };
        archive.document(header).await?;
        Ok(archive)
    }

    /// Announces a namespace: its metadata as in a directory, and `collection`, `view` or `timeseries`.
    pub async fn announce(&mut self, namespace: &Namespace, metadata: &str, kind: &str) -> Result<()> {
        let entry = rawdoc! {
            "db": namespace.db.as_str(),
            "collection": namespace.collection.as_str(),
            "metadata": metadata,
            "size": 0_i32,
            "type": kind,
        };
        self.document(entry).await
    }

    /// Ends the prelude: all namespaces are announced.
    pub async fn announced(&mut self) -> Result<()> {
        self.put(&TERMINATOR).await
    }

    /// Begins the documents of a namespace.
    pub async fn begin_namespace(&mut self, namespace: Namespace) -> Result<()> {
        self.header(&namespace, None).await?;
        self.open = Some(Open { namespace, crc: Crc64::new(), frames: Frames::default() });
        Ok(())
    }

    /// Writes bytes of documents; they may begin and end anywhere.
    ///
    /// # Errors
    /// `Damaged` if they are no documents, `Unsupported` if one is longer than an archive can hold.
    pub async fn documents(&mut self, bytes: &[u8]) -> Result<()> {
        let open = self.open.as_mut().expect("documents belong to a namespace that was begun");
        open.frames.pass(bytes)?;
        open.crc.update(bytes);
        self.put(bytes).await
    }

    /// Ends the namespace.
    pub async fn end_namespace(&mut self) -> Result<()> {
        let Some(Open { namespace, crc, frames }) = self.open.take() else { return Ok(()) };
        frames.finish()?;
        self.put(&TERMINATOR).await?;
        self.header(&namespace, Some(crc.value())).await?;
        self.put(&TERMINATOR).await
    }

    /// Makes sure that all of it has left; tells how many bytes it is.
    pub async fn finish(mut self) -> Result<u64> {
        self.out.flush().await.map_err(write_failed)?;
        Ok(self.written)
    }

    /// The head of a block of documents, or, with a checksum, of the block that ends a namespace. The reader knows these
    /// fields only, and their types.
    async fn header(&mut self, namespace: &Namespace, crc: Option<u64>) -> Result<()> {
        let header = rawdoc! {
            "db": namespace.db.as_str(),
            "collection": namespace.collection.as_str(),
            "EOF": crc.is_some(),
            "CRC": crc.unwrap_or(0).cast_signed(),
        };
        self.document(header).await
    }

    async fn document(&mut self, document: RawDocumentBuf) -> Result<()> {
        let length = document.as_bytes().len();
        if length > DOCUMENT_MAX {
            return Err(too_long(length).while_doing("describing a collection"));
        }
        self.put(document.as_bytes()).await
    }

    async fn put(&mut self, bytes: &[u8]) -> Result<()> {
        self.out.write_all(bytes).await.map_err(write_failed)?;
        self.written += bytes.len() as u64;
        Ok(())
    }
}

fn write_failed(cause: std::io::Error) -> Error {
    let doing = "writing the archive";
    match cause.kind() {
        std::io::ErrorKind::BrokenPipe => {
            Error::new(Kind::Unreachable, doing, "its reader has ended before the archive did")
                .hint("look at what the reader said (mongorestore, say)")
                .retryable(false)
                .caused_by(cause)
        }
        _ => Error::io(doing, cause),
    }
}

fn too_long(length: usize) -> Error {
    let why =
        format!("it takes {length} bytes, and the archive's reader takes no document longer than 16 MiB");
    Error::new(Kind::Unsupported, "writing a document", why).hint("extract with `--format directory`")
}

/// Walks over documents as they pass: the reader finds the end of one by its length alone.
#[derive(Debug, Default)]
struct Frames {
    /// The first bytes of a length.
    head: Vec<u8>,
    /// How many bytes are missing of a document whose length is known.
    missing: usize,
    passed: u64,
}

impl Frames {
    fn pass(&mut self, mut bytes: &[u8]) -> Result<()> {
        while !bytes.is_empty() {
            let wanted = if self.missing > 0 { self.missing } else { 4 - self.head.len() };
            let (now, rest) = bytes.split_at(wanted.min(bytes.len()));
            match self.missing {
                0 => self.begin(now)?,
                _ => self.go_on(now)?,
            }
            self.passed += now.len() as u64;
            bytes = rest;
        }
        Ok(())
    }

    fn begin(&mut self, bytes: &[u8]) -> Result<()> {
        self.head.extend_from_slice(bytes);
        let Some(head) = self.head.first_chunk::<4>() else { return Ok(()) };
        let length = raw::length_of(*head).ok_or_else(|| self.damaged("a length that no document has"))?;
        if length > DOCUMENT_MAX {
            return Err(too_long(length));
        }
        self.missing = length - 4;
        self.head.clear();
        Ok(())
    }

    fn go_on(&mut self, bytes: &[u8]) -> Result<()> {
        self.missing -= bytes.len();
        if self.missing == 0 && bytes.last() != Some(&0) {
            return Err(self.damaged("a document that does not end in NUL"));
        }
        Ok(())
    }

    fn finish(&self) -> Result<()> {
        if self.missing == 0 && self.head.is_empty() {
            return Ok(());
        }
        Err(self.damaged("the end inside a document"))
    }

    fn damaged(&self, what: &str) -> Error {
        Error::new(Kind::Damaged, "reading BSON", format!("at byte {} is {what}", self.passed))
    }
}
