//! Messages of the wire protocol: OP_MSG, and the OP_QUERY with which old drivers say hello.
//!
//! Replies are written straight into the bytes that are sent, so that a batch of documents is copied once.

use std::io::{self, Read};

use bytes::Bytes;
use mongodb::bson::{Document, RawDocument};

use super::refusal::{Refusal, Result};

/// What a server tells its clients that a message may hold.
pub const MESSAGE_MAX: usize = 48_000_000;

/// A document, with what a server allows for its own additions.
pub const DOCUMENT_MAX: usize = (16 << 20) + (16 << 10);

const OP_REPLY: i32 = 1;
const OP_QUERY: i32 = 2004;
const OP_MSG: i32 = 2013;
const CHECKSUM_PRESENT: u32 = 1;
const MORE_TO_COME: u32 = 2;

/// One message of a client.
#[derive(Debug)]
pub struct Request {
    id: i32,
    is_query: bool,
    /// Whether the client waits for an answer.
    pub wants_reply: bool,
    /// The command.
    pub body: Bytes,
    /// Document sequences: the field that each stands for, and its documents.
    pub sequences: Vec<(String, Vec<Bytes>)>,
    /// The length of all of it.
    pub length: usize,
}

impl Request {
    /// Reads the next message; `None` at the end.
    pub fn read(from: &mut impl Read) -> io::Result<Option<Request>> {
        let mut head = [0; 16];
        match from.read_exact(&mut head) {
            Err(error) if error.kind() == io::ErrorKind::UnexpectedEof => return Ok(None),
            other => other?,
        }
        let word =
            |at: usize| i32::from_le_bytes(head[at..at + 4].try_into().expect("four bytes of sixteen"));
        let length = usize::try_from(word(0)).ok().filter(|length| (16..=MESSAGE_MAX).contains(length));
        let length = length.ok_or_else(|| io::Error::other(format!("a message of {} bytes", word(0))))?;
        let mut rest = Vec::with_capacity(length - 16);
        from.take(length as u64 - 16).read_to_end(&mut rest)?;
        if rest.len() < length - 16 {
            return Err(io::ErrorKind::UnexpectedEof.into());
        }
        let rest = Bytes::from(rest);
        let read = match word(12) {
            OP_MSG => Request::of_message(word(4), &rest),
            OP_QUERY => Request::of_query(word(4), &rest),
            _ => None,
        };
        let read = read.ok_or_else(|| io::Error::other(format!("a message of kind {}", word(12))))?;
        Ok(Some(Request { length, ..read }))
    }

    fn of_message(id: i32, rest: &Bytes) -> Option<Request> {
        let flags = u32::from_le_bytes(rest.get(..4)?.try_into().ok()?);
        let end = rest.len() - if flags & CHECKSUM_PRESENT == 0 { 0 } else { 4 };
        let (mut at, mut body, mut sequences) = (4, None, Vec::new());
        while at < end {
            let kind = rest[at];
            let section = at + 1..(at + 1).checked_add(length_at(rest, at + 1)?)?;
            if section.end > end {
                return None;
            }
            at = section.end;
            match kind {
                0 => body = Some(rest.slice(section)),
                1 => sequences.push(sequence(&rest.slice(section.start + 4..section.end))?),
                _ => return None,
            }
        }
        let wants_reply = flags & MORE_TO_COME == 0;
        Some(Request { id, is_query: false, wants_reply, body: body?, sequences, length: 0 })
    }

    fn of_query(id: i32, rest: &Bytes) -> Option<Request> {
        let name = rest.get(4..)?.iter().position(|byte| *byte == 0)?;
        let start = 4 + name + 1 + 8;
        let end = start.checked_add(length_at(rest, start)?).filter(|end| *end <= rest.len())?;
        let body = rest.slice(start..end);
        Some(Request { id, is_query: true, wants_reply: true, body, sequences: Vec::new(), length: 0 })
    }

    /// The command as the driver's raw document.
    pub fn raw(&self) -> Result<&RawDocument> {
        RawDocument::from_bytes(&self.body).map_err(Refusal::malformed)
    }

    /// The command, decoded: not for those that carry data.
    pub fn document(&self) -> Result<Document> {
        Document::try_from(self.raw()?).map_err(Refusal::malformed)
    }

    /// The documents of a field, whether they came as a sequence or inside the command.
    pub fn batch(&self, field: &str) -> Result<Vec<Bytes>> {
        if let Some((_, documents)) = self.sequences.iter().find(|(name, _)| name == field) {
            return Ok(documents.clone());
        }
        let array = self.raw()?.get_array(field).map_err(Refusal::malformed)?;
        let each = array.into_iter().map(|element| {
            let element = element.map_err(Refusal::malformed)?;
            let document =
                element.as_document().ok_or_else(|| Refusal::bad(format!("{field}: no document")))?;
            Ok(self.body.slice_ref(document.as_bytes()))
        });
        each.collect()
    }
}

fn length_at(bytes: &[u8], at: usize) -> Option<usize> {
    let length = i32::from_le_bytes(bytes.get(at..at + 4)?.try_into().ok()?);
    usize::try_from(length).ok().filter(|length| *length >= 5)
}

fn sequence(section: &Bytes) -> Option<(String, Vec<Bytes>)> {
    let end = section.iter().position(|byte| *byte == 0)?;
    let name = String::from_utf8(section[..end].to_vec()).ok()?;
    let (mut at, mut documents) = (end + 1, Vec::new());
    while at < section.len() {
        let next = at.checked_add(length_at(section, at)?).filter(|next| *next <= section.len())?;
        documents.push(section.slice(at..next));
        at = next;
    }
    Some((name, documents))
}

/// A message under construction, reused from one reply to the next.
#[derive(Debug, Default)]
pub struct Out {
    bytes: Vec<u8>,
}

impl Out {
    /// Begins the message that answers a request.
    pub fn begin(&mut self, request: &Request) {
        self.bytes.clear();
        self.begin_as(request.id, request.is_query);
    }

    /// Begins a request.
    pub fn begin_request(&mut self) {
        self.bytes.clear();
        self.begin_as(0, false);
    }

    fn begin_as(&mut self, to: i32, is_query: bool) {
        let kind = if is_query { OP_REPLY } else { OP_MSG };
        for word in [0, 1, to, kind] {
            self.bytes.extend_from_slice(&word.to_le_bytes());
        }
        match is_query {
            // Flags (await capable), cursor, starting from, number of documents.
            true => [8, 0, 0, 0, 1]
                .iter()
                .for_each(|word: &i32| self.bytes.extend_from_slice(&word.to_le_bytes())),
            // Flags, and the kind of the section.
            false => self.bytes.extend_from_slice(&[0; 5]),
        }
    }

    /// Ends the message: its bytes.
    pub fn end(&mut self) -> &[u8] {
        let length = self.bytes.len() as i32;
        self.bytes[..4].copy_from_slice(&length.to_le_bytes());
        &self.bytes
    }

    /// Where the next byte goes.
    pub fn len(&self) -> usize {
        self.bytes.len()
    }

    /// Appends bytes as they are.
    pub fn put(&mut self, bytes: &[u8]) {
        self.bytes.extend_from_slice(bytes);
    }

    /// The bytes from `at` on.
    pub fn since(&self, at: usize) -> &[u8] {
        &self.bytes[at..]
    }

    /// The bytes from `at` on, to be changed in place.
    pub fn since_mut(&mut self, at: usize) -> &mut [u8] {
        &mut self.bytes[at..]
    }

    /// Takes back what was written from `at` on.
    pub fn truncate(&mut self, at: usize) {
        self.bytes.truncate(at);
    }

    /// Appends a document.
    pub fn document(&mut self, document: &Document) -> Result<()> {
        self.put(&document.to_vec().map_err(Refusal::malformed)?);
        Ok(())
    }

    /// Begins an element of this type.
    pub fn element(&mut self, kind: u8, name: &str) {
        self.bytes.push(kind);
        self.put(name.as_bytes());
        self.bytes.push(0);
    }

    /// Begins a document or array; `close` takes what this gives.
    pub fn open(&mut self) -> usize {
        self.put(&[0; 4]);
        self.bytes.len() - 4
    }

    /// Ends what `open` began.
    pub fn close(&mut self, at: usize) {
        self.bytes.push(0);
        let length = (self.bytes.len() - at) as i32;
        self.bytes[at..at + 4].copy_from_slice(&length.to_le_bytes());
    }

    /// Gives back what the last, large reply took.
    pub fn shrink(&mut self, to: usize) {
        if self.bytes.capacity() > 2 * to {
            self.bytes = Vec::new();
        }
    }
}

/// Element names of an array, `0` and up, without formatting each.
#[derive(Debug)]
pub struct Index {
    digits: [u8; 10],
    start: usize,
}

impl Index {
    /// At `0`.
    pub fn new() -> Self {
        Index { digits: [b'0'; 10], start: 9 }
    }

    /// The name of the next element.
    pub fn digits(&self) -> &[u8] {
        &self.digits[self.start..]
    }

    /// Goes on to the next.
    pub fn advance(&mut self) {
        let mut at = 9;
        while self.digits[at] == b'9' {
            self.digits[at] = b'0';
            at -= 1;
        }
        self.digits[at] += 1;
        self.start = self.start.min(at);
    }
}
