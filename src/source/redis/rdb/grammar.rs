//! What follows what in an RDB, as data: each opcode and each type of value is a short list of items.

use super::{Dialect, ValueType};

/// One part of an opcode's operands or of a value.
#[derive(Clone, Copy, Debug)]
pub(super) enum Item {
    /// A string.
    Text,
    /// A length, or a number written like one.
    Number,
    /// So many bytes.
    Bytes(u8),
    /// A length, then the list so often.
    Repeat(&'static [Item]),
    /// A score as text: its length in one byte, of which 253 to 255 are NaN and the infinities.
    Score,
    /// A module's own data: parts that each say what they are, up to 0.
    ModuleParts,
    /// A string that is kept.
    KeepText,
    /// A number that is kept.
    KeepNumber,
    /// So many bytes (at most 8) of a little-endian number that is kept.
    KeepBytes(u8),
}

use Item::{Bytes, KeepBytes, KeepNumber, KeepText, ModuleParts, Number, Repeat, Score, Text};

/// An instruction between the keys.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Opcode {
    SlotInfo,
    Function,
    PreReleaseFunction,
    ModuleAux,
    Idle,
    Frequency,
    Aux,
    ResizeDb,
    ExpireMs,
    ExpireSeconds,
    SelectDb,
}

impl Opcode {
    /// The opcode with this byte; 255, the end, is none of them.
    pub(super) fn of(byte: u8) -> Option<Opcode> {
        Some(match byte {
            244 => Opcode::SlotInfo,
            245 => Opcode::Function,
            246 => Opcode::PreReleaseFunction,
            247 => Opcode::ModuleAux,
            248 => Opcode::Idle,
            249 => Opcode::Frequency,
            250 => Opcode::Aux,
            251 => Opcode::ResizeDb,
            252 => Opcode::ExpireMs,
            253 => Opcode::ExpireSeconds,
            254 => Opcode::SelectDb,
            _ => return None,
        })
    }

    /// What follows it.
    pub(super) fn operands(self) -> &'static [Item] {
        match self {
            Opcode::SlotInfo => &[Number, Number, Number],
            Opcode::Function => &[KeepText],
            // Name, engine, an optional description, code: 7.0 RC1 and RC2 only; no released server loads it.
            Opcode::PreReleaseFunction => &[Text, Text, Repeat(&[Text]), Text],
            Opcode::ModuleAux => &[KeepNumber, KeepNumber, Number, ModuleParts],
            Opcode::Idle => &[KeepNumber],
            Opcode::Frequency => &[KeepBytes(1)],
            Opcode::Aux => &[KeepText, KeepText],
            Opcode::ResizeDb => &[Number, Number],
            Opcode::ExpireMs => &[KeepBytes(8)],
            Opcode::ExpireSeconds => &[KeepBytes(4)],
            Opcode::SelectDb => &[KeepNumber],
        }
    }
}

/// The byte after which only the sum follows.
pub(super) const END: u8 = 255;

/// A type byte whose values are written so, in the numbering of `rdb.h`.
#[derive(Clone, Copy, Debug)]
pub(super) struct ValueGrammar {
    /// What it is to a user.
    pub value_type: ValueType,
    /// Its parts.
    pub items: &'static [Item],
}

/// How a value with this type byte is written.
pub(super) fn value(type_code: u8, dialect: Dialect) -> Option<ValueGrammar> {
    use ValueType::{Hash, List, Module, Set, Stream, String, Zset};
    let (value_type, items): (ValueType, &'static [Item]) = match (type_code, dialect) {
        (0, _) => (String, &[Text]),
        (1 | 14, _) => (List, &[Repeat(&[Text])]),
        (2, _) => (Set, &[Repeat(&[Text])]),
        (3, _) => (Zset, &[Repeat(&[Text, Score])]),
        (4, _) => (Hash, &[Repeat(&[Text, Text])]),
        (5, _) => (Zset, &[Repeat(&[Text, Bytes(8)])]),
        (7, _) => (Module, &[KeepNumber, ModuleParts]),
        // Zipmap, ziplist, intset, listpack: one string with everything in it.
        (9 | 13 | 16, _) => (Hash, &[Text]),
        (10, _) => (List, &[Text]),
        (11 | 20, _) => (Set, &[Text]),
        (12 | 17, _) => (Zset, &[Text]),
        (15, _) => (Stream, STREAM),
        // A container kind (plain or packed) before each node.
        (18, _) => (List, &[Repeat(&[Number, Text])]),
        (19, _) => (Stream, STREAM_2),
        (21, _) => (Stream, STREAM_3),
        // Fields with a time to live. Redis: the time first, and from 7.4 GA on the earliest of them before all.
        (22, Dialect::Redis) => (Hash, &[Repeat(&[Number, Text, Text])]),
        (23, Dialect::Redis) => (Hash, &[Text]),
        (24, Dialect::Redis) => (Hash, &[Bytes(8), Repeat(&[Number, Text, Text])]),
        (25, Dialect::Redis) => (Hash, &[Bytes(8), Text]),
        // Valkey: the time last.
        (22, Dialect::Valkey) => (Hash, &[Repeat(&[Text, Text, Bytes(8)])]),
        _ => return None,
    };
    Some(ValueGrammar { value_type, items })
}

/// Master entries and listpacks, length, last id, groups: each with name, last id, pending entries (id, delivery time and
/// count), and consumers, each with name, seen-time and the ids pending for it.
const STREAM: &[Item] = &[
    Repeat(&[Text, Text]),
    Number,
    Number,
    Number,
    Repeat(&[Text, Number, Number, PENDING, Repeat(&[Text, Bytes(8), Repeat(&[Bytes(16)])])]),
];

/// As before, with first id, highest deleted id and entries added; a group also has its count of entries read.
const STREAM_2: &[Item] = &[
    Repeat(&[Text, Text]),
    Number,
    Number,
    Number,
    Number,
    Number,
    Number,
    Number,
    Number,
    Repeat(&[Text, Number, Number, Number, PENDING, Repeat(&[Text, Bytes(8), Repeat(&[Bytes(16)])])]),
];

/// As before; a consumer also has an active-time.
const STREAM_3: &[Item] = &[
    Repeat(&[Text, Text]),
    Number,
    Number,
    Number,
    Number,
    Number,
    Number,
    Number,
    Number,
    Repeat(&[Text, Number, Number, Number, PENDING, Repeat(&[Text, Bytes(16), Repeat(&[Bytes(16)])])]),
];

const PENDING: Item = Repeat(&[Bytes(16), Bytes(8), Number]);

/// A part of a module's data; `Some(&[])` is its end.
pub(super) fn module_part(code: u64) -> Option<&'static [Item]> {
    Some(match code {
        0 => &[],
        1 | 2 => &[Number],
        3 => &[Bytes(4)],
        4 => &[Bytes(8)],
        5 => &[Text],
        _ => return None,
    })
}
