//! When two `_id` are the same: numbers by their value, whatever their type.

use crate::source::mongodb::raw::{self, RawValue};

use super::compose::kind;

/// Bytes that are equal exactly if the server takes the values for the same `_id` (in a collection without a collation).
pub fn canonical(value: RawValue<'_>) -> Vec<u8> {
    let mut key = Vec::with_capacity(value.bytes.len() + 1);
    write(&mut key, value);
    key
}

fn write(key: &mut Vec<u8>, value: RawValue<'_>) {
    match value.kind {
        kind::DOUBLE | kind::INT32 | kind::INT64 | kind::DECIMAL => {
            key.push(kind::DOUBLE);
            number(value).unwrap_or(Number::Nan).write(key);
        }
        kind::STRING | kind::SYMBOL => {
            key.push(kind::STRING);
            key.extend_from_slice(value.bytes);
        }
        kind::DOCUMENT | kind::ARRAY => {
            key.push(value.kind);
            for (name, inner) in raw::elements(value.bytes).flatten() {
                key.push(1);
                key.extend_from_slice(name);
                key.push(0);
                write(key, inner);
            }
            key.push(0);
        }
        other => {
            key.push(other);
            key.extend_from_slice(value.bytes);
        }
    }
}

/// A number by its value. Each has one form only.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Number {
    Nan,
    Infinite {
        negative: bool,
    },
    Zero,
    /// `odd * 2^exponent`: every integer and float, and the decimals that are equal to one.
    Binary {
        negative: bool,
        odd: u128,
        exponent: i32,
    },
    /// `digits * 10^exponent`, the last digit not 0: what only a decimal can be.
    Decimal {
        negative: bool,
        digits: u128,
        exponent: i32,
    },
}

impl Number {
    fn write(self, key: &mut Vec<u8>) {
        let (form, negative, digits, exponent) = match self {
            Number::Nan => (0, false, 0, 0),
            Number::Infinite { negative } => (1, negative, 0, 0),
            Number::Zero => (2, false, 0, 0),
            Number::Binary { negative, odd, exponent } => (3, negative, odd, exponent),
            Number::Decimal { negative, digits, exponent } => (4, negative, digits, exponent),
        };
        key.extend_from_slice(&[form, u8::from(negative)]);
        key.extend_from_slice(&digits.to_le_bytes());
        key.extend_from_slice(&exponent.to_le_bytes());
    }

    fn binary(negative: bool, digits: u128, exponent: i32) -> Number {
        if digits == 0 {
            return Number::Zero;
        }
        let twos = digits.trailing_zeros();
        Number::Binary { negative, odd: digits >> twos, exponent: exponent + twos as i32 }
    }
}

fn number(value: RawValue<'_>) -> Option<Number> {
    Some(match value.kind {
        kind::INT32 => integer(i64::from(i32::from_le_bytes(value.bytes.try_into().ok()?))),
        kind::INT64 => integer(i64::from_le_bytes(value.bytes.try_into().ok()?)),
        kind::DOUBLE => float(f64::from_le_bytes(value.bytes.try_into().ok()?)),
        _ => decimal(u128::from_le_bytes(value.bytes.try_into().ok()?)),
    })
}

fn integer(value: i64) -> Number {
    Number::binary(value < 0, u128::from(value.unsigned_abs()), 0)
}

fn float(value: f64) -> Number {
    let negative = value.is_sign_negative();
    if value.is_nan() {
        return Number::Nan;
    }
    if value.is_infinite() {
        return Number::Infinite { negative };
    }
    let bits = value.to_bits();
    let (raised, fraction) = ((bits >> 52 & 0x7ff) as i32, u128::from(bits & ((1 << 52) - 1)));
    match raised {
        0 => Number::binary(negative, fraction, -1074),
        _ => Number::binary(negative, fraction | 1 << 52, raised - 1075),
    }
}

/// IEEE 754-2008 decimal128 in its binary encoding.
fn decimal(bits: u128) -> Number {
    const DIGITS_MAX: u128 = 10u128.pow(34) - 1;
    let negative = bits >> 127 == 1;
    match bits >> 122 & 0x1f {
        0x1e => return Number::Infinite { negative },
        0x1f => return Number::Nan,
        _ => {}
    }
    // The form for larger significands than fit has none that is allowed: such a number is 0.
    let mut digits = match bits >> 125 & 3 {
        3 => 0,
        _ => bits & ((1 << 113) - 1),
    };
    if digits > DIGITS_MAX || digits == 0 {
        return Number::Zero;
    }
    let mut exponent = (bits >> 113 & 0x3fff) as i32 - 6176;
    while digits % 10 == 0 {
        digits /= 10;
        exponent += 1;
    }
    as_binary(negative, digits, exponent).unwrap_or(Number::Decimal { negative, digits, exponent })
}

/// `digits * 10^exponent` as `odd * 2^n`, if it is one whose odd part an integer or float could have.
fn as_binary(negative: bool, digits: u128, exponent: i32) -> Option<Number> {
    let twos = digits.trailing_zeros();
    let odd = digits >> twos;
    let fives = 5u128.checked_pow(exponent.unsigned_abs())?;
    let odd = match exponent < 0 {
        true => odd.is_multiple_of(fives).then_some(odd / fives)?,
        false => odd.checked_mul(fives)?,
    };
    Some(Number::binary(negative, odd, exponent + twos as i32))
}
