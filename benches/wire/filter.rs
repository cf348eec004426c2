//! Filters: a range of the key that orders a collection, and tests of other fields.

use std::ops::Range;

use mongodb::bson::{RawBsonRef, RawDocument};

use super::key::{ABOVE_ALL, Key, after, field_key, key};
use super::refusal::{Refusal, Result};

/// What is wanted of a collection.
#[derive(Clone, Debug)]
pub struct Filter {
    /// From the first key, to before the second.
    pub range: Range<Vec<u8>>,
    /// These keys only.
    pub among: Option<Vec<Key>>,
    tests: Vec<Test>,
}

#[derive(Clone, Debug)]
struct Test {
    path: String,
    op: Op,
    values: Vec<Key>,
}

#[derive(Clone, Copy, Debug, PartialEq)]
enum Op {
    In,
    NotIn,
    Above,
    AtLeast,
    Below,
    AtMost,
}

impl Filter {
    /// Everything.
    pub fn all() -> Self {
        Filter { range: Vec::new()..vec![ABOVE_ALL], among: None, tests: Vec::new() }
    }

    /// Reads a filter; `order` is the field that orders the collection: `_id`, or the oplog's `ts`.
    pub fn parse(filter: &RawDocument, order: &str) -> Result<Self> {
        let mut all = Filter::all();
        all.add(filter, order)?;
        Ok(all)
    }

    fn add(&mut self, filter: &RawDocument, order: &str) -> Result<()> {
        for element in filter {
            let (name, value) = element.map_err(Refusal::malformed)?;
            match (name.as_str(), value) {
                ("$and", RawBsonRef::Array(parts)) => {
                    for part in parts {
                        let part = part.map_err(Refusal::malformed)?;
                        let part = part.as_document().ok_or_else(|| Refusal::bad("$and wants documents"))?;
                        self.add(part, order)?;
                    }
                }
                (name, _) if name.starts_with('$') => return Err(unknown(name)),
                (name, RawBsonRef::Document(inner)) if is_operators(inner) => {
                    for operator in inner {
                        let (operator, value) = operator.map_err(Refusal::malformed)?;
                        self.require(name, order, operator.as_str(), value)?;
                    }
                }
                (name, value) => self.require(name, order, "$eq", value)?,
            }
        }
        Ok(())
    }

    fn require(&mut self, path: &str, order: &str, operator: &str, value: RawBsonRef<'_>) -> Result<()> {
        // A field that is not there reads as null.
        let (operator, value) = match (operator, value) {
            ("$exists", RawBsonRef::Boolean(true)) => ("$ne", RawBsonRef::Null),
            ("$exists", RawBsonRef::Boolean(false)) => ("$eq", RawBsonRef::Null),
            other => other,
        };
        let op = match operator {
            "$eq" | "$in" => Op::In,
            "$ne" | "$nin" => Op::NotIn,
            "$gt" => Op::Above,
            "$gte" => Op::AtLeast,
            "$lt" => Op::Below,
            "$lte" => Op::AtMost,
            other => return Err(unknown(other)),
        };
        let values: Vec<Key> = match (operator, value) {
            ("$in" | "$nin", RawBsonRef::Array(values)) => values
                .into_iter()
                .map(|value| value.map(key).map_err(Refusal::malformed))
                .collect::<Result<_>>()?,
            _ => vec![key(value)],
        };
        match op {
            Op::In if path == order && operator == "$eq" => self.between(&values[0], &after(&values[0])),
            Op::In if path == order => self.among = Some(values),
            Op::Above if path == order => self.bracket(&after(&values[0]), &[ABOVE_ALL], &values[0]),
            Op::AtLeast if path == order => self.bracket(&values[0], &[ABOVE_ALL], &values[0]),
            Op::Below if path == order => self.bracket(&[], &values[0], &values[0]),
            Op::AtMost if path == order => self.bracket(&[], &after(&values[0]), &values[0]),
            op => self.tests.push(Test { path: path.to_owned(), op, values }),
        }
        Ok(())
    }

    /// Comparisons see values of their own type only, but for MinKey and MaxKey.
    fn bracket(&mut self, low: &[u8], high: &[u8], by: &[u8]) {
        self.between(low, high);
        if !matches!(by[0], 1 | 127) {
            self.between(&[by[0]], &[by[0] + 1]);
        }
    }

    /// Narrows the range.
    pub fn between(&mut self, low: &[u8], high: &[u8]) {
        if low > self.range.start.as_slice() {
            self.range.start = low.to_vec();
        }
        if high < self.range.end.as_slice() {
            self.range.end = high.to_vec();
        }
    }

    /// Whether the range alone decides.
    pub fn is_range(&self) -> bool {
        self.tests.is_empty() && self.among.is_none()
    }

    /// Whether a document inside the range is wanted.
    pub fn wants(&self, document: &RawDocument) -> bool {
        self.tests.iter().all(|test| {
            let found = field_key(document, &test.path);
            let same_class = || test.values[0].first() == found.first();
            match test.op {
                Op::In => test.values.contains(&found),
                Op::NotIn => !test.values.contains(&found),
                Op::Above => same_class() && found > test.values[0],
                Op::AtLeast => same_class() && found >= test.values[0],
                Op::Below => same_class() && found < test.values[0],
                Op::AtMost => same_class() && found <= test.values[0],
            }
        })
    }
}

fn is_operators(document: &RawDocument) -> bool {
    document.iter().next().is_some_and(|first| first.is_ok_and(|(name, _)| name.as_str().starts_with('$')))
}

fn unknown(operator: &str) -> Refusal {
    Refusal::bad(format!("this double knows no {operator} in filters"))
}
