//! Documents put together from bytes.

use bytes::Bytes;

use crate::source::mongodb::raw::RawValue;

/// The types of elements that are asked for by number here.
pub mod kind {
    /// A 64-bit float.
    pub const DOUBLE: u8 = 0x01;
    /// Text.
    pub const STRING: u8 = 0x02;
    /// A document.
    pub const DOCUMENT: u8 = 0x03;
    /// An array: a document whose names are `0`, `1`, ...
    pub const ARRAY: u8 = 0x04;
    /// Bytes with a subtype.
    pub const BINARY: u8 = 0x05;
    /// True or false.
    pub const BOOL: u8 = 0x08;
    /// Nothing.
    pub const NULL: u8 = 0x0a;
    /// Text, as old clients wrote it.
    pub const SYMBOL: u8 = 0x0e;
    /// A 32-bit integer.
    pub const INT32: u8 = 0x10;
    /// A 64-bit integer.
    pub const INT64: u8 = 0x12;
    /// A decimal of 34 digits.
    pub const DECIMAL: u8 = 0x13;
}

/// The value null.
pub const NULL: RawValue<'static> = RawValue { kind: kind::NULL, bytes: &[] };

/// The value true.
pub const TRUE: RawValue<'static> = RawValue { kind: kind::BOOL, bytes: &[1] };

/// The value false.
pub const FALSE: RawValue<'static> = RawValue { kind: kind::BOOL, bytes: &[0] };

/// A document under way; names and values are taken as they are.
#[derive(Debug)]
pub struct Composer {
    bytes: Vec<u8>,
    open: Vec<usize>,
}

impl Composer {
    /// An empty document.
    pub fn new() -> Self {
        Composer { bytes: vec![0; 4], open: vec![0] }
    }

    /// Adds an element.
    pub fn element(&mut self, name: &[u8], value: RawValue<'_>) {
        self.head(value.kind, name);
        self.bytes.extend_from_slice(value.bytes);
    }

    /// Adds a document that is there already.
    pub fn document(&mut self, name: &[u8], document: &[u8]) {
        self.element(name, RawValue { kind: kind::DOCUMENT, bytes: document });
    }

    /// Adds text.
    pub fn text(&mut self, name: &[u8], text: &str) {
        self.head(kind::STRING, name);
        let length = u32::try_from(text.len() + 1).unwrap_or(u32::MAX);
        self.bytes.extend_from_slice(&length.to_le_bytes());
        self.bytes.extend_from_slice(text.as_bytes());
        self.bytes.push(0);
    }

    /// Begins a document or an array inside.
    pub fn open(&mut self, kind: u8, name: &[u8]) {
        self.head(kind, name);
        self.open.push(self.bytes.len());
        self.bytes.extend_from_slice(&[0; 4]);
    }

    /// Ends the innermost one that is open.
    pub fn close(&mut self) {
        let Some(start) = self.open.pop() else { return };
        self.bytes.push(0);
        let length = u32::try_from(self.bytes.len() - start).unwrap_or(u32::MAX);
        self.bytes[start..start + 4].copy_from_slice(&length.to_le_bytes());
    }

    /// Ends all that is open.
    pub fn finish(mut self) -> Bytes {
        while !self.open.is_empty() {
            self.close();
        }
        self.bytes.into()
    }

    /// How many bytes there are so far.
    pub fn size(&self) -> usize {
        self.bytes.len()
    }

    fn head(&mut self, kind: u8, name: &[u8]) {
        self.bytes.push(kind);
        self.bytes.extend_from_slice(name);
        self.bytes.push(0);
    }
}

impl Default for Composer {
    fn default() -> Self {
        Composer::new()
    }
}
