//! The CRC64 that ends an RDB and a `DUMP` payload: Jones' polynomial, reflected, from 0, no final xor.

use crate::source::crc64;

/// A sum in progress; stored little-endian. The polynomial is `0xad93d23594c935a9` with its bits reversed, the sum of
/// `123456789` is `e9c6d914c4b8d9ca` (`src/crc64.c` of Redis).
pub type Crc64 = crc64::Crc64<0x95ac_9329_ac4b_c9b5, 0>;
