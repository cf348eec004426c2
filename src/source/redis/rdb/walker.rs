//! The push parser: an interpreter of the [`grammar`](super::grammar).

use super::grammar::{self, Item, Opcode};
use super::summary::{Crc, DbCounts, MODULE_TYPES, Summary, ValueType};
use super::token::{self, Form, Scan, StringHead, TOKEN_MAX};
use super::{Dialect, Entry, NEWEST_REDIS, NEWEST_VALKEY, Use, Visitor, lzf};
use crate::error::{Error, Kind, Result};
use crate::source::redis::crc64::Crc64;

/// No key and no function library is longer (`proto-max-bulk-len`).
const KEPT_MAX: u64 = 512 << 20;

/// A database number is a C int.
const DB_MAX: u64 = i32::MAX as u64;

/// Walks an RDB as it comes in.
#[derive(Debug, Default)]
pub struct Walker {
    phase: Phase,
    /// Bytes of the chunks before the one in hand.
    before: u64,
    sum: Crc64,
    carry: Carry,
    frames: Vec<Frame>,
    /// Bytes to pass over before the next item.
    pass: u64,
    kept: Kept,
    db: u32,
    expire_at_ms: Option<i64>,
    use_of: Option<Use>,
    /// Of the stretch of keys since the last `SELECTDB`.
    counts: DbCounts,
    summary: Summary,
}

/// What is being read.
#[derive(Clone, Copy, Debug, Default)]
enum Phase {
    #[default]
    Magic,
    Opcode,
    Operands(Opcode),
    Key(ValueKind),
    Value {
        of: ValueKind,
        /// Its first byte, counted from the file's beginning.
        from: u64,
    },
    Checksum,
    Done,
}

#[derive(Clone, Copy, Debug)]
struct ValueKind {
    type_code: u8,
    value_type: ValueType,
    items: &'static [Item],
}

/// A list of items under way.
#[derive(Clone, Copy, Debug)]
struct Frame {
    items: &'static [Item],
    next: usize,
    /// How often the list is still to be gone through, this time included.
    rounds: u64,
}

/// A token that a chunk's end has cut.
#[derive(Debug, Default)]
struct Carry {
    bytes: [u8; TOKEN_MAX],
    len: usize,
}

/// What the items that keep have kept.
#[derive(Debug, Default)]
struct Kept {
    numbers: [u64; 2],
    number_count: usize,
    texts: [Vec<u8>; 2],
    text_count: usize,
    /// The form of the text whose bytes are being passed.
    form: Option<Form>,
    packed: Vec<u8>,
}

/// The chunk in hand.
struct Input<'a> {
    chunk: &'a [u8],
    at: usize,
}

impl<'a> Input<'a> {
    fn rest(&self) -> &'a [u8] {
        &self.chunk[self.at..]
    }
}

impl Walker {
    /// A walk that has seen nothing yet.
    pub fn new() -> Self {
        Self::default()
    }

    /// Takes the next bytes, cut anywhere, and says how many of them belong to the RDB: all, until it has ended.
    ///
    /// # Errors
    /// `Damaged`, with the byte's offset, for what cannot be in an RDB; `Unsupported` for a version or type that this
    /// build does not know. The walk is of no use afterwards.
    pub fn feed(&mut self, chunk: &[u8], visitor: &mut impl Visitor) -> Result<usize> {
        let mut input = Input { chunk, at: 0 };
        let summing = !matches!(self.phase, Phase::Checksum | Phase::Done);
        while self.step(&mut input, visitor)? {}
        if summing && !matches!(self.phase, Phase::Checksum | Phase::Done) {
            self.sum.update(chunk);
        }
        self.before += input.at as u64;
        Ok(input.at)
    }

    /// Whether the RDB has ended, its sum included.
    pub fn is_done(&self) -> bool {
        matches!(self.phase, Phase::Done)
    }

    /// How many bytes of it were taken.
    pub fn bytes(&self) -> u64 {
        self.before
    }

    /// What was seen so far; the counts of the database under way come with its end.
    pub fn summary(&self) -> &Summary {
        &self.summary
    }

    /// What was seen, once all of it was.
    ///
    /// # Errors
    /// `Damaged` if the RDB has not ended, or if its sum is wrong.
    pub fn finish(self) -> Result<Summary> {
        if !self.is_done() {
            return Err(self.damaged(self.before, "it ends too early"));
        }
        if let Crc::Wrong { stored, computed } = self.summary.crc {
            let why = format!("its CRC64 says {stored:016x}, its bytes say {computed:016x}");
            return Err(self.damaged(self.before, why));
        }
        Ok(self.summary)
    }

    /// Goes one step on; `false` when the chunk is used up or the RDB has ended.
    fn step(&mut self, input: &mut Input<'_>, visitor: &mut impl Visitor) -> Result<bool> {
        match self.phase {
            Phase::Magic => self.magic(input),
            Phase::Opcode => self.opcode(input, visitor),
            Phase::Operands(opcode) => {
                let ended = self.items(input)?;
                if ended {
                    self.obey(opcode, input, visitor)?;
                    self.phase = Phase::Opcode;
                }
                Ok(ended)
            }
            Phase::Key(of) => {
                let ended = self.items(input)?;
                if ended {
                    self.begin_entry(of, self.offset(input), visitor);
                }
                Ok(ended)
            }
            Phase::Value { of, from } => self.value(of, from, input, visitor),
            Phase::Checksum => self.checksum(input),
            Phase::Done => Ok(false),
        }
    }

    fn magic(&mut self, input: &mut Input<'_>) -> Result<bool> {
        let Some(magic) = self.token(input, |bytes| Ok(token::fixed::<9>(bytes).map(|word| (word, 9))))?
        else {
            return Ok(false);
        };
        let text = std::str::from_utf8(&magic).unwrap_or_default();
        let (dialect, digits, newest) = match (text.strip_prefix("REDIS"), text.strip_prefix("VALKEY")) {
            (Some(digits), _) => (Dialect::Redis, digits, NEWEST_REDIS),
            (_, Some(digits)) => (Dialect::Valkey, digits, NEWEST_VALKEY),
            _ => {
                return Err(self.damaged(0, format!("it begins with {:?}", magic.escape_ascii().to_string())));
            }
        };
        let version = digits.parse().map_err(|_| self.damaged(5, format!("{digits:?} is no version")))?;
        let known = if dialect == Dialect::Redis { 1..=newest } else { newest..=newest };
        if !known.contains(&version) {
            let why = format!("format {text} is not known; {dialect:?} up to {newest} is");
            return Err(Error::new(Kind::Unsupported, "reading the RDB", why)
                .hint("use a newer build of this tool, or an older server"));
        }
        (self.summary.dialect, self.summary.version) = (dialect, version);
        self.phase = Phase::Opcode;
        Ok(true)
    }

    #[inline]
    fn opcode(&mut self, input: &mut Input<'_>, visitor: &mut impl Visitor) -> Result<bool> {
        let Some(&byte) = input.rest().first() else { return Ok(false) };
        input.at += 1;
        if let Some(value) = grammar::value(byte, self.summary.dialect) {
            let kind = ValueKind { type_code: byte, value_type: value.value_type, items: value.items };
            if !self.small_entry(kind, input, visitor) {
                self.begin(&[Item::KeepText]);
                self.phase = Phase::Key(kind);
            }
        } else if let Some(opcode) = Opcode::of(byte) {
            self.begin(opcode.operands());
            self.phase = Phase::Operands(opcode);
        } else if byte == grammar::END {
            self.end_of_keys(input);
        } else {
            return Err(self.unknown(self.offset(input) - 1, byte));
        }
        Ok(true)
    }

    /// The short way for what most keys are: a plain name and one string, both whole in this chunk. `false`: not one.
    #[inline]
    fn small_entry(&mut self, of: ValueKind, input: &mut Input<'_>, visitor: &mut impl Visitor) -> bool {
        let ([Item::Text], Some((name, rest))) = (of.items, token::whole_string(input.rest())) else {
            return false;
        };
        let (Form::Plain, Some((value, after))) = (name.form, token::whole_string(rest)) else {
            return false;
        };
        self.kept.clear();
        self.kept.texts[0].extend_from_slice(name.bytes);
        visitor.entry_begin(&self.entry(of));
        visitor.value_bytes(value.written);
        visitor.entry_end(value.written.len() as u64);
        input.at = input.chunk.len() - after.len();
        self.note_entry(of, value.written.len() as u64);
        true
    }

    fn begin(&mut self, items: &'static [Item]) {
        self.kept.clear();
        self.frames.push(Frame { items, next: 0, rounds: 1 });
    }

    fn obey(&mut self, opcode: Opcode, input: &Input<'_>, visitor: &mut impl Visitor) -> Result<()> {
        let [number, second] = self.kept.numbers;
        match opcode {
            Opcode::SelectDb => self.select(number, input)?,
            Opcode::ExpireMs => self.expire_at_ms = Some(number as i64),
            Opcode::ExpireSeconds => self.expire_at_ms = Some(i64::from(number as u32 as i32) * 1000),
            Opcode::Idle => self.use_of = Some(Use::Idle(number)),
            Opcode::Frequency => self.use_of = Some(Use::Frequency(number as u8)),
            Opcode::Aux => self.summary.note_aux(&self.kept.texts[0], &self.kept.texts[1]),
            Opcode::Function => {
                self.summary.functions += 1;
                visitor.function(&self.kept.texts[0]);
            }
            Opcode::PreReleaseFunction => self.summary.pre_release_functions += 1,
            Opcode::SlotInfo => self.summary.slot_hints += 1,
            Opcode::ModuleAux if second != 2 => {
                return Err(self.damaged(self.offset(input), "a module's data does not say when to load it"));
            }
            Opcode::ModuleAux => self.module(number, 0, input)?,
            Opcode::ResizeDb => {}
        }
        Ok(())
    }

    fn select(&mut self, db: u64, input: &Input<'_>) -> Result<()> {
        if db > DB_MAX {
            return Err(self.damaged(self.offset(input), format!("database {db} cannot be")));
        }
        self.settle_counts();
        self.db = db as u32;
        self.summary.highest_db = self.summary.highest_db.max(Some(self.db));
        Ok(())
    }

    fn settle_counts(&mut self) {
        let counts = std::mem::take(&mut self.counts);
        self.summary.note_counts(self.db, &counts);
    }

    fn module(&mut self, id: u64, values: u64, input: &Input<'_>) -> Result<()> {
        if self.summary.note_module(id, values) {
            return Ok(());
        }
        Err(self.damaged(self.offset(input), format!("more than {MODULE_TYPES} module types cannot be")))
    }

    fn begin_entry(&mut self, of: ValueKind, from: u64, visitor: &mut impl Visitor) {
        visitor.entry_begin(&self.entry(of));
        self.frames.push(Frame { items: of.items, next: 0, rounds: 1 });
        self.phase = Phase::Value { of, from };
    }

    fn entry(&self, of: ValueKind) -> Entry<'_> {
        Entry {
            db: self.db,
            key: &self.kept.texts[0],
            type_code: of.type_code,
            expire_at_ms: self.expire_at_ms,
            use_of: self.use_of,
        }
    }

    /// Reads on in a value, and hands on what of it is in this chunk.
    #[inline]
    fn value(
        &mut self,
        of: ValueKind,
        from: u64,
        input: &mut Input<'_>,
        visitor: &mut impl Visitor,
    ) -> Result<bool> {
        let begin = input.at;
        let ended = self.items(input)?;
        if input.at > begin {
            visitor.value_bytes(&input.chunk[begin..input.at]);
        }
        if ended {
            let len = self.offset(input) - from;
            visitor.entry_end(len);
            if of.value_type == ValueType::Module {
                self.module(self.kept.numbers[0], 1, input)?;
            }
            self.note_entry(of, len);
            self.phase = Phase::Opcode;
        }
        Ok(ended)
    }

    #[inline]
    fn note_entry(&mut self, of: ValueKind, len: u64) {
        self.counts.count(of.value_type, self.expire_at_ms.take().is_some());
        match self.use_of.take() {
            Some(Use::Idle(_)) => self.summary.idle_times = true,
            Some(Use::Frequency(_)) => self.summary.frequencies = true,
            None => {}
        }
        self.summary.note_size(self.db, &self.kept.texts[0], of.value_type, len);
    }

    fn end_of_keys(&mut self, input: &Input<'_>) {
        self.sum.update(&input.chunk[..input.at]);
        self.settle_counts();
        self.summary.bytes = self.offset(input);
        // A sum follows from version 5 on.
        self.phase = if self.summary.version < 5 { Phase::Done } else { Phase::Checksum };
    }

    fn checksum(&mut self, input: &mut Input<'_>) -> Result<bool> {
        let Some(word) = self.token(input, |bytes| Ok(token::fixed::<8>(bytes).map(|word| (word, 8))))?
        else {
            return Ok(false);
        };
        let (stored, computed) = (u64::from_le_bytes(word), self.sum.value());
        self.summary.crc = match stored {
            0 => Crc::Disabled,
            _ if stored == computed => Crc::Right,
            _ => Crc::Wrong { stored, computed },
        };
        self.summary.bytes += 8;
        self.phase = Phase::Done;
        Ok(false)
    }

    /// Goes through the lists under way; `true` when all have ended, `false` when the chunk is used up.
    fn items(&mut self, input: &mut Input<'_>) -> Result<bool> {
        loop {
            if self.pass > 0 && !self.pass_over(input) {
                return Ok(false);
            }
            if self.kept.form.is_some() && !self.kept.end_text() {
                return Err(self.damaged(self.offset(input), "a compressed string does not decompress"));
            }
            let Some(frame) = self.frames.last_mut() else { return Ok(true) };
            let Some(item) = frame.items.get(frame.next) else {
                frame.next = 0;
                frame.rounds -= 1;
                if frame.rounds == 0 {
                    self.frames.pop();
                }
                continue;
            };
            if !self.item(*item, input)? {
                return Ok(false);
            }
        }
    }

    /// Passes over what was skipped, keeping it where wanted; `false` when the chunk is used up before.
    #[inline]
    fn pass_over(&mut self, input: &mut Input<'_>) -> bool {
        let rest = input.rest();
        let now = self.pass.min(rest.len() as u64) as usize;
        match self.kept.form {
            Some(Form::Plain) => self.kept.texts[self.kept.text_count].extend_from_slice(&rest[..now]),
            Some(_) => self.kept.packed.extend_from_slice(&rest[..now]),
            None => {}
        }
        input.at += now;
        self.pass -= now as u64;
        self.pass == 0
    }

    /// Reads one item's token and moves on; `false` when the chunk ends inside it.
    #[inline]
    fn item(&mut self, item: Item, input: &mut Input<'_>) -> Result<bool> {
        match item {
            Item::Text => self.text(input, false),
            Item::KeepText => self.text(input, true),
            Item::Number | Item::KeepNumber | Item::Repeat(_) | Item::ModuleParts => self.number(item, input),
            Item::Bytes(count) => {
                self.pass = u64::from(count);
                self.advance();
                Ok(true)
            }
            Item::Score => {
                let scan = |bytes: &[u8]| Ok(bytes.first().map(|first| (*first, 1)));
                let Some(len) = self.token(input, scan)? else { return Ok(false) };
                self.pass = if len >= 253 { 0 } else { u64::from(len) };
                self.advance();
                Ok(true)
            }
            Item::KeepBytes(count) => {
                let count = usize::from(count);
                let scan =
                    move |bytes: &[u8]| Ok(bytes.get(..count).map(|bytes| (little_endian(bytes), count)));
                let Some(number) = self.token(input, scan)? else { return Ok(false) };
                self.kept.number(number);
                self.advance();
                Ok(true)
            }
        }
    }

    #[inline]
    fn text(&mut self, input: &mut Input<'_>, keep: bool) -> Result<bool> {
        let Some(StringHead { form, stored }) = self.token(input, token::string)? else { return Ok(false) };
        self.pass = stored;
        if keep {
            let plain = if let Form::Lzf { plain } = form { plain } else { 0 };
            if stored.max(plain) > KEPT_MAX {
                let why = format!("a name of {} bytes cannot be", stored.max(plain));
                return Err(self.damaged(self.offset(input), why));
            }
            self.kept.form = Some(form);
        }
        self.advance();
        Ok(true)
    }

    #[inline]
    fn number(&mut self, item: Item, input: &mut Input<'_>) -> Result<bool> {
        let Some(number) = self.token(input, token::length)? else { return Ok(false) };
        match item {
            Item::ModuleParts => match grammar::module_part(number) {
                Some([]) => self.advance(),
                Some(items) => self.frames.push(Frame { items, next: 0, rounds: 1 }),
                None => {
                    let why = format!("module data has a part of the unknown kind {number}");
                    return Err(self.damaged(self.offset(input), why));
                }
            },
            Item::Repeat(items) => {
                self.advance();
                if number > 0 {
                    self.frames.push(Frame { items, next: 0, rounds: number });
                }
            }
            _ => {
                if let Item::KeepNumber = item {
                    self.kept.number(number);
                }
                self.advance();
            }
        }
        Ok(true)
    }

    #[inline]
    fn advance(&mut self) {
        if let Some(frame) = self.frames.last_mut() {
            frame.next += 1;
        }
    }

    /// Reads a token, from the chunk alone or from what the chunk before left of it.
    #[inline]
    fn token<T>(&mut self, input: &mut Input<'_>, scan: impl Fn(&[u8]) -> Scan<T>) -> Result<Option<T>> {
        if self.carry.len == 0 {
            match scan(input.rest()) {
                Ok(Some((token, used))) => {
                    input.at += used;
                    return Ok(Some(token));
                }
                Ok(None) => {}
                Err(flaw) => return Err(self.damaged(self.offset(input), flaw)),
            }
        }
        self.cut_token(input, scan)
    }

    #[cold]
    fn cut_token<T>(&mut self, input: &mut Input<'_>, scan: impl Fn(&[u8]) -> Scan<T>) -> Result<Option<T>> {
        while let Some(&byte) = input.rest().first() {
            input.at += 1;
            self.carry.bytes[self.carry.len] = byte;
            self.carry.len += 1;
            match scan(&self.carry.bytes[..self.carry.len]) {
                Ok(None) => {}
                Ok(Some((token, _))) => {
                    self.carry.len = 0;
                    return Ok(Some(token));
                }
                Err(flaw) => return Err(self.damaged(self.offset(input), flaw)),
            }
        }
        Ok(None)
    }

    fn offset(&self, input: &Input<'_>) -> u64 {
        self.before + input.at as u64
    }

    #[cold]
    fn damaged(&self, offset: u64, why: impl std::fmt::Display) -> Error {
        Error::new(Kind::Damaged, "reading the RDB", format!("at byte {offset}: {why}"))
    }

    #[cold]
    fn unknown(&self, offset: u64, byte: u8) -> Error {
        let why = match byte {
            6 => "a module value as written before Redis 4.0 was released".to_owned(),
            243 if self.summary.dialect == Dialect::Valkey => {
                let why = format!("at byte {offset}: slots are being moved into this node");
                return Error::new(Kind::Unready, "reading the RDB", why)
                    .hint("wait until the move has ended");
            }
            _ => format!("type {byte} is unknown in version {}", self.summary.version),
        };
        self.damaged(offset, why)
    }
}

impl Kept {
    fn clear(&mut self) {
        self.number_count = 0;
        self.text_count = 0;
        self.texts[0].clear();
        self.texts[1].clear();
    }

    fn number(&mut self, number: u64) {
        self.numbers[self.number_count] = number;
        self.number_count += 1;
    }

    /// Brings the text whose bytes are all there into plain; `false` if it cannot be.
    #[inline]
    fn end_text(&mut self) -> bool {
        let text = &mut self.texts[self.text_count];
        self.text_count += 1;
        match self.form.take() {
            Some(Form::Integer(number)) => text.extend_from_slice(number.to_string().as_bytes()),
            Some(Form::Lzf { plain }) => {
                let unpacked = lzf::unpack(&self.packed, plain, text);
                self.packed.clear();
                return unpacked.is_some();
            }
            Some(Form::Plain) | None => {}
        }
        true
    }
}

fn little_endian(bytes: &[u8]) -> u64 {
    bytes.iter().rev().fold(0, |number, byte| number << 8 | u64::from(*byte))
}
