//! The barest client: one command at a time, and a scan that does nothing with what it reads.

use std::io::{self, Write};
use std::net::TcpStream;

use mongodb::bson::{Bson, Document, RawBsonRef, RawDocument, doc};

use super::generate::Writer;
use super::message::{Out, Request};

/// How many bytes of documents go into one insert.
const INSERT: usize = 4 << 20;

/// A connection.
#[derive(Debug)]
pub struct Client {
    stream: TcpStream,
    out: Out,
}

impl Client {
    /// Connects to `host:port`.
    pub fn connect(address: &str) -> io::Result<Client> {
        let stream = TcpStream::connect(address)?;
        stream.set_nodelay(true)?;
        Ok(Client { stream, out: Out::default() })
    }

    /// The raw reply to a command.
    fn send(&mut self, db: &str, mut command: Document) -> io::Result<Request> {
        command.insert("$db", db);
        self.out.begin_request();
        self.out.put(&command.to_vec().map_err(io::Error::other)?);
        self.stream.write_all(self.out.end())?;
        Request::read(&mut self.stream)?.ok_or_else(|| io::ErrorKind::UnexpectedEof.into())
    }

    /// The reply to a command; a refusal is an error.
    pub fn ask(&mut self, db: &str, command: Document) -> io::Result<Document> {
        let reply = self.send(db, command)?;
        let reply = Document::from_reader(&reply.body[..]).map_err(io::Error::other)?;
        match reply.get("ok") {
            Some(Bson::Double(ok)) if *ok == 1.0 => Ok(reply),
            _ => Err(io::Error::other(reply.to_string())),
        }
    }

    /// Reads all of a collection: how many bytes the replies had.
    pub fn scan(&mut self, db: &str, collection: &str) -> io::Result<u64> {
        let mut command = doc! { "find": collection, "batchSize": 1_000_000 };
        let mut read = 0;
        loop {
            let reply = self.send(db, command)?;
            read += reply.body.len() as u64;
            let raw = RawDocument::from_bytes(&reply.body).map_err(io::Error::other)?;
            let cursor = raw.get_document("cursor").map_err(|_| io::Error::other(format!("{raw:?}")))?;
            match cursor.get("id").map_err(io::Error::other)? {
                Some(RawBsonRef::Int64(id)) if id != 0 => {
                    command = doc! { "getMore": id, "collection": collection };
                }
                _ => return Ok(read),
            }
        }
    }

    /// Inserts orders until a collection has about so many bytes.
    pub fn fill(&mut self, db: &str, collection: &str, bytes: u64, size: usize) -> io::Result<()> {
        let (mut writer, mut written, mut n) = (Writer::new(), 0, 0);
        while written < bytes {
            let (mut batch, mut length) = (Vec::new(), 0);
            while length < INSERT && written < bytes {
                let order = writer.order(Bson::Int64(n), size);
                length += size;
                written += size as u64;
                n += 1;
                batch.push(Bson::Document(order));
            }
            self.ask(db, doc! { "insert": collection, "documents": batch, "ordered": false })?;
        }
        Ok(())
    }
}
