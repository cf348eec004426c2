//! The digest of a collection against a naive sum.

use proptest::prelude::*;
use tidekeeper::source::mongodb::digest::Tally;

/// The sum of SHA-256 digests modulo 2^256, digit by digit.
fn naive(documents: &[Vec<u8>]) -> String {
    let mut sum = [0u8; 32];
    for document in documents {
        let digest = aws_lc_rs::digest::digest(&aws_lc_rs::digest::SHA256, document);
        let mut carry = 0u16;
        for (at, byte) in digest.as_ref().iter().enumerate().rev() {
            carry += u16::from(sum[at]) + u16::from(*byte);
            sum[at] = carry as u8;
            carry >>= 8;
        }
    }
    hex::encode(sum)
}

fn tally(documents: &[Vec<u8>]) -> Tally {
    let mut tally = Tally::default();
    documents.iter().for_each(|document| tally.add(document));
    tally
}

proptest! {
    #[test]
    fn order_and_parts_change_nothing(
        documents in prop::collection::vec(prop::collection::vec(any::<u8>(), 0..40), 0..40),
        cut in 0usize..40,
    ) {
        let whole = tally(&documents);
        prop_assert_eq!(whole.digest(), naive(&documents));
        let reversed: Vec<_> = documents.iter().rev().cloned().collect();
        prop_assert_eq!(tally(&reversed), whole.clone());
        let (left, right) = documents.split_at(cut.min(documents.len()));
        let mut merged = tally(left);
        merged.merge(&tally(right));
        prop_assert_eq!(merged, whole);
    }
}

#[test]
fn a_document_more_or_twice_is_seen() {
    let one = tally(&[b"a".to_vec()]);
    let twice = tally(&[b"a".to_vec(), b"a".to_vec()]);
    assert_ne!(one.digest(), twice.digest());
    assert_eq!(one.digest(), "ca978112ca1bbdcafac231b39a23dc4da786eff8147c4e72b9807785afee48bb");
    assert_eq!(Tally::default().digest(), "0".repeat(64));
}
