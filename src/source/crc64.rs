//! CRC-64 by any polynomial: several formats end in one, each in its own.
//!
//! Sixteen bytes a round, with a table for each: the sum is taken of every byte of every backup.

/// A sum in progress, by a polynomial with its bits reversed; begun with `MASK`, and xored with it at the end.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Crc64<const POLYNOMIAL: u64, const MASK: u64>(u64);

impl<const POLYNOMIAL: u64, const MASK: u64> Default for Crc64<POLYNOMIAL, MASK> {
    fn default() -> Self {
        Self::new()
    }
}

impl<const POLYNOMIAL: u64, const MASK: u64> Crc64<POLYNOMIAL, MASK> {
    /// `TABLES[n][b]` is what byte `b` does to the sum once `n` zero bytes have followed it.
    const TABLES: &'static Tables = &tables(POLYNOMIAL);

    /// The sum of nothing.
    pub fn new() -> Self {
        Crc64(MASK)
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
            sum = round(Self::TABLES, sum, block);
        }
        for byte in rest {
            sum = Self::TABLES[0][usize::from(sum as u8 ^ byte)] ^ (sum >> 8);
        }
        self.0 = sum;
    }

    /// The sum so far.
    pub fn value(self) -> u64 {
        self.0 ^ MASK
    }
}

type Tables = [[u64; 256]; 16];

#[inline]
fn round(tables: &Tables, sum: u64, block: &[u8; 16]) -> u64 {
    let word = u128::from_le_bytes(*block);
    let low = word as u64 ^ sum;
    let high = (word >> 64) as u64;
    look_up::<8>(tables, low) ^ look_up::<0>(tables, high)
}

/// What the eight bytes of `word` do to the sum once `AFTER` more bytes have followed them.
#[inline]
fn look_up<const AFTER: usize>(tables: &Tables, word: u64) -> u64 {
    let byte = |n: usize| usize::from((word >> (8 * n)) as u8);
    tables[AFTER + 7][byte(0)]
        ^ tables[AFTER + 6][byte(1)]
        ^ tables[AFTER + 5][byte(2)]
        ^ tables[AFTER + 4][byte(3)]
        ^ tables[AFTER + 3][byte(4)]
        ^ tables[AFTER + 2][byte(5)]
        ^ tables[AFTER + 1][byte(6)]
        ^ tables[AFTER][byte(7)]
}

const fn tables(polynomial: u64) -> Tables {
    let mut tables = [[0; 256]; 16];
    let mut byte = 0;
    while byte < 256 {
        let mut sum = byte as u64;
        let mut bit = 0;
        while bit < 8 {
            sum = if sum & 1 == 1 { sum >> 1 ^ polynomial } else { sum >> 1 };
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
