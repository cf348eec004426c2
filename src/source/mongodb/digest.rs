//! What a collection holds, in one number: whatever the order in which its documents are read.

use aws_lc_rs::digest::{SHA256, digest};

/// Counts documents, and adds up the SHA-256 of each, modulo 2^256: two collections that hold the same documents have the
/// same sum, and who wants to forge one has to find a set of documents whose digests add up.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Tally {
    /// How many documents.
    pub items: u64,
    /// How long they are together.
    pub bytes: u64,
    /// Big-endian limbs, the highest first.
    sum: [u64; 4],
}

impl Tally {
    /// Takes one document.
    pub fn add(&mut self, document: &[u8]) {
        let digest = digest(&SHA256, document);
        let mut limbs = [0; 4];
        for (limb, bytes) in limbs.iter_mut().zip(digest.as_ref().as_chunks::<8>().0) {
            *limb = u64::from_be_bytes(*bytes);
        }
        self.items += 1;
        self.bytes += document.len() as u64;
        self.add_sum(&limbs);
    }

    /// Takes what another has counted.
    pub fn merge(&mut self, other: &Tally) {
        self.items += other.items;
        self.bytes += other.bytes;
        self.add_sum(&other.sum);
    }

    /// The sum, as 64 digits of lower-case hex.
    pub fn digest(&self) -> String {
        self.sum.iter().map(|limb| format!("{limb:016x}")).collect()
    }

    fn add_sum(&mut self, other: &[u64; 4]) {
        let mut carry = false;
        for (limb, addend) in self.sum.iter_mut().zip(other).rev() {
            let (sum, over) = limb.overflowing_add(*addend);
            let (sum, over_again) = sum.overflowing_add(u64::from(carry));
            (*limb, carry) = (sum, over || over_again);
        }
    }
}
