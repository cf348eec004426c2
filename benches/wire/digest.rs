//! What a collection holds, whatever its order: how many documents, and the sum of their SHA-256 modulo 2^256.

use aws_lc_rs::digest::{SHA256, digest};
use mongodb::bson::{Document, doc};

use super::filter::Filter;
use super::message::Out;
use super::scan::Scan;
use super::store::Collection;

/// The sum, as a number of 32 bytes, big-endian.
#[derive(Debug, Default)]
struct Sum([u8; 32]);

impl Sum {
    fn add(&mut self, other: &[u8]) {
        let mut carry = 0;
        for (mine, theirs) in self.0.iter_mut().rev().zip(other.iter().rev()) {
            let sum = u16::from(*mine) + u16::from(*theirs) + carry;
            *mine = sum as u8;
            carry = sum >> 8;
        }
    }
}

/// Reads all of a collection.
pub fn of(ns: &str, collection: &std::sync::Arc<Collection>) -> Document {
    let mut scan = Scan::new(collection.clone(), Filter::all());
    let (mut out, mut sum, mut count, mut bytes) = (Out::default(), Sum::default(), 0_i64, 0_i64);
    while scan.next_into(&mut out) {
        sum.add(digest(&SHA256, out.since(0)).as_ref());
        count += 1;
        bytes += out.len() as i64;
        out.truncate(0);
    }
    doc! { "ns": ns, "count": count, "bytes": bytes, "digest": hex::encode(sum.0) }
}
