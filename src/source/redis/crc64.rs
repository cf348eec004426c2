//! The CRC64 that ends an RDB and a `DUMP` payload: Jones' polynomial, reflected, from 0, no final xor.
//!
//! Source: `src/crc64.c` of Redis; the check value of `123456789` is `e9c6d914c4b8d9ca`. Sixteen bytes a round, with
//! a table for each: the sum is taken of every byte of every backup.

/// `0xad93d23594c935a9` with its bits reversed.
const POLYNOMIAL: u64 = 0x95ac_9329_ac4b_c9b5;

/// `TABLES[n][b]` is what byte `b` does to the sum once `n` zero bytes have followed it.
static TABLES: [[u64; 256]; 16] = tables();

/// A sum in progress.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Crc64(u64);

impl Crc64 {
    /// The sum of nothing.
    pub fn new() -> Self {
        Self::default()
    }

    /// The sum of `bytes` alone.
    pub fn of(bytes: &[u8]) -> u64 {
        let mut sum = Self::new();
        sum.update(bytes);
        sum.value()
    }

    /// Takes the next bytes in.
    pub fn update(&mut self, bytes: &[u8]) {
        let (blocks, rest) = bytes.as_chunks::<16>();
        let mut sum = self.0;
        for block in blocks {
            sum = round(sum, block);
        }
        for byte in rest {
            sum = TABLES[0][usize::from(sum as u8 ^ byte)] ^ (sum >> 8);
        }
        self.0 = sum;
    }

    /// The sum so far; stored little-endian.
    pub fn value(self) -> u64 {
        self.0
    }
}

#[inline]
fn round(sum: u64, block: &[u8; 16]) -> u64 {
    let word = u128::from_le_bytes(*block);
    let low = word as u64 ^ sum;
    let high = (word >> 64) as u64;
    look_up::<8>(low) ^ look_up::<0>(high)
}

/// What the eight bytes of `word` do to the sum once `AFTER` more bytes have followed them.
#[inline]
fn look_up<const AFTER: usize>(word: u64) -> u64 {
    let byte = |n: usize| usize::from((word >> (8 * n)) as u8);
    TABLES[AFTER + 7][byte(0)]
        ^ TABLES[AFTER + 6][byte(1)]
        ^ TABLES[AFTER + 5][byte(2)]
        ^ TABLES[AFTER + 4][byte(3)]
        ^ TABLES[AFTER + 3][byte(4)]
        ^ TABLES[AFTER + 2][byte(5)]
        ^ TABLES[AFTER + 1][byte(6)]
        ^ TABLES[AFTER][byte(7)]
}

const fn tables() -> [[u64; 256]; 16] {
    let mut tables = [[0; 256]; 16];
    let mut byte = 0;
    while byte < 256 {
        let mut sum = byte as u64;
        let mut bit = 0;
        while bit < 8 {
            sum = if sum & 1 == 1 { sum >> 1 ^ POLYNOMIAL } else { sum >> 1 };
            bit += 1;
        }
        tables[0][byte] = sum;
        byte += 1;
    }
    let mut after = 1;
    while after < 16 {
        let mut byte = 0;
        while byte < 256 {
            let sum = tables[after - 1][byte];
            tables[after][byte] = tables[0][(sum & 0xff) as usize] ^ (sum >> 8);
            byte += 1;
        }
        after += 1;
    }
    tables
}
