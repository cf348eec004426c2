//! Collections that are not stored but fed: documents of a template, each with the `_id` of its place.
//!
//! The template is longer than any compressor's window here (zstd -3: 2 MiB), and its number of documents is odd, so that ranges
//! which are read side by side stand at different places of it.

use std::fmt::Write;
use std::sync::Arc;

use mongodb::bson::oid::ObjectId;
use mongodb::bson::{Bson, DateTime, Document, RawBsonRef, doc};

use super::key::{Key, key};
use super::message::Out;

/// About how long a template is; of documents of 1,000 bytes it has a prime number.
const LENGTH: usize = 16_381_000;

/// Where the value of `_id` stands in a document: after its length, its type and `_id\0`.
const ID_AT: usize = 9;

/// Of which type the ids are.
#[derive(Clone, Copy, Debug, PartialEq)]
pub enum Ids {
    /// ObjectIds as a driver makes them: seconds, a machine, a counter.
    ObjectId,
    /// Longs, from 0.
    Long,
}

impl Ids {
    fn of(self, n: u64) -> Bson {
        match self {
            Ids::Long => Bson::Int64(n as i64),
            Ids::ObjectId => Bson::ObjectId(ObjectId::from_bytes(object_id(n))),
        }
    }

    fn key(self, n: u64) -> Key {
        match self {
            Ids::Long => key(RawBsonRef::Int64(n as i64)),
            Ids::ObjectId => key(RawBsonRef::ObjectId(ObjectId::from_bytes(object_id(n)))),
        }
    }
}

/// A thousand in each second.
fn object_id(n: u64) -> [u8; 12] {
    let mut id = [0x5a; 12];
    id[..4].copy_from_slice(&(0x6500_0000 + (n / 1000) as u32).to_be_bytes());
    id[9..].copy_from_slice(&((n % 1000) as u32).to_be_bytes()[1..]);
    id
}

/// Documents to be repeated.
#[derive(Debug)]
pub struct Template {
    bytes: Vec<u8>,
    ends: Vec<usize>,
    ids: Ids,
}

impl Template {
    /// Documents of about `size` bytes.
    pub fn new(size: usize, ids: Ids) -> Self {
        let mut template = Template { bytes: Vec::new(), ends: Vec::new(), ids };
        let mut writer = Writer::new();
        for n in 0..(LENGTH / size.max(1)).max(3) | 1 {
            let document = writer.order(ids.of(n as u64), size);
            template.bytes.extend(document.to_vec().expect("an order is a document"));
            template.ends.push(template.bytes.len());
        }
        template
    }

    fn document(&self, n: u64) -> &[u8] {
        let at = (n % self.ends.len() as u64) as usize;
        let start = if at == 0 { 0 } else { self.ends[at - 1] };
        &self.bytes[start..self.ends[at]]
    }

    /// The mean size of a document.
    pub fn mean(&self) -> u64 {
        (self.bytes.len() / self.ends.len()) as u64
    }
}

/// A collection that is fed.
#[derive(Debug)]
pub struct Generated {
    template: Arc<Template>,
    /// How many documents.
    pub count: u64,
    phase: u64,
}

impl Generated {
    /// `count` documents, beginning at another place of the template for each `phase`.
    pub fn new(template: Arc<Template>, count: u64, phase: u64) -> Self {
        Generated { template, count, phase: phase.wrapping_mul(7_919) }
    }

    /// About how many bytes.
    pub fn bytes(&self) -> u64 {
        self.count * self.template.mean()
    }

    /// The first document at or after a key.
    pub fn lower(&self, bound: &[u8]) -> u64 {
        let (mut low, mut high) = (0, self.count);
        while low < high {
            let middle = low + (high - low) / 2;
            match *self.template.ids.key(middle) < *bound {
                true => low = middle + 1,
                false => high = middle,
            }
        }
        low
    }

    /// Appends document `n`.
    pub fn append(&self, n: u64, out: &mut Out) {
        let at = out.len();
        out.put(self.template.document(n + self.phase));
        let document = &mut out.since_mut(at)[ID_AT..];
        match self.template.ids {
            Ids::Long => document[..8].copy_from_slice(&n.to_le_bytes()),
            Ids::ObjectId => document[..12].copy_from_slice(&object_id(n)),
        }
    }
}

/// Makes documents like those of a shop: its customers and products come again, some more often; keys, figures, times and free
/// text are new each time.
#[derive(Debug)]
pub struct Writer {
    random: Random,
    words: Vec<String>,
    customers: Vec<(Document, Document)>,
    products: Vec<String>,
    agents: Vec<String>,
}

impl Writer {
    /// With the vocabulary that every run has.
    pub fn new() -> Self {
        let mut random = Random(0x9e37_79b9_7f4a_7c15);
        let words: Vec<String> = (0..4_000).map(|_| word(&mut random)).collect();
        let (customers, products, agents) = (Vec::new(), Vec::new(), Vec::new());
        let mut writer = Writer { random, words, customers, products, agents };
        writer.customers = (0..10_000).map(|_| writer.customer()).collect();
        writer.products = (0..2_000).map(|_| writer.text(24)).collect();
        writer.agents =
            (0..60).map(|_| format!("Mozilla/5.0 ({}) Gecko/20100101", writer.text(30))).collect();
        writer
    }

    /// An order of about `size` bytes.
    pub fn order(&mut self, id: Bson, size: usize) -> Document {
        let (customer, address) = self.customers[self.random.skewed(self.customers.len())].clone();
        let created = 1_700_000_000_000 + self.random.below(40_000_000_000) as i64;
        let status =
            ["new", "paid", "packed", "shipped", "delivered", "returned"][self.random.below(6) as usize];
        let items: Vec<Document> = (0..1 + self.random.below(4)).map(|_| self.item()).collect();
        let mut order = doc! {
            "_id": id,
            "number": format!("{:016x}", self.random.next()),
            "status": status,
            "customer": customer,
            "address": address,
            "items": items,
            "agent": self.pick_agent(),
            "session": format!("{:016x}{:016x}", self.random.next(), self.random.next()),
            "createdAt": DateTime::from_millis(created),
            "updatedAt": DateTime::from_millis(created + self.random.below(86_400_000) as i64),
            "tags": [self.word(), self.word()],
        };
        let so_far = order.to_vec().map_or(0, |bytes| bytes.len());
        order.insert("notes", self.text(size.saturating_sub(so_far + 12)));
        order
    }

    /// A customer, and where they live.
    fn customer(&mut self) -> (Document, Document) {
        let (first, last) = (self.word(), self.word());
        let customer = doc! {
            "id": self.random.below(5_000_000) as i64, "name": format!("{first} {last}"),
            "email": format!("{first}.{last}{}@example.com", self.random.below(100)),
            "phone": format!("+49 {:09}", self.random.below(1_000_000_000)),
        };
        let address = doc! {
            "street": self.text(16), "number": self.random.below(300) as i32, "city": self.word(),
            "zip": format!("{:05}", self.random.below(100_000)), "country": "DE",
        };
        (customer, address)
    }

    fn item(&mut self) -> Document {
        let product = self.random.skewed(self.products.len());
        doc! {
            "sku": format!("SKU-{product:06}"),
            "title": self.products[product].as_str(),
            "quantity": 1 + self.random.below(5) as i32,
            "price": self.random.below(20_000) as f64 / 100.0,
        }
    }

    fn pick_agent(&mut self) -> String {
        self.agents[self.random.skewed(self.agents.len())].clone()
    }

    fn word(&mut self) -> String {
        self.words[self.random.skewed(self.words.len())].clone()
    }

    fn text(&mut self, length: usize) -> String {
        let mut text = String::with_capacity(length + 12);
        while text.len() < length {
            let word = self.random.skewed(self.words.len());
            let _ = write!(text, "{}{}", if text.is_empty() { "" } else { " " }, self.words[word]);
        }
        text.truncate(length);
        text
    }
}

fn word(random: &mut Random) -> String {
    const ONSETS: &[u8] = b"bcdfghklmnprstvwz";
    const VOWELS: &[u8] = b"aeiou";
    let mut word = String::new();
    for _ in 0..1 + random.below(3) {
        word.push(ONSETS[random.below(ONSETS.len() as u64) as usize] as char);
        word.push(VOWELS[random.below(VOWELS.len() as u64) as usize] as char);
        if random.below(2) == 0 {
            word.push(ONSETS[random.below(ONSETS.len() as u64) as usize] as char);
        }
    }
    word
}

/// The same numbers in every run (splitmix64).
#[derive(Debug)]
pub struct Random(pub u64);

impl Random {
    /// The next number.
    pub fn next(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mixed = (self.0 ^ (self.0 >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        let mixed = (mixed ^ (mixed >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        mixed ^ (mixed >> 31)
    }

    /// Below a limit.
    pub fn below(&mut self, limit: u64) -> u64 {
        self.next() % limit
    }

    /// Small ones more often, as words are.
    fn skewed(&mut self, limit: usize) -> usize {
        let unit = self.below(1 << 20) as f64 / (1u64 << 20) as f64;
        (unit * unit * unit * limit as f64) as usize
    }
}
