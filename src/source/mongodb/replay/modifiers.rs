//! Updates that name what they change by path: the `$set` and `$unset` of version 1, and the description that compatible
//! servers log.
//!
//! Whether a number in a path is a place in an array or a field's name is for the document to say.

use std::collections::HashMap;

use bytes::Bytes;

use super::compose::{Composer, NULL, kind};
use super::diff::{index, whole};
use crate::error::{Error, Kind, Result};
use crate::source::mongodb::raw::{self, RawValue};

/// What an update changes, as a tree of paths.
#[derive(Debug, Default)]
pub struct Edits<'a> {
    root: Node<'a>,
}

#[derive(Debug, Default)]
struct Node<'a> {
    action: Option<Action<'a>>,
    /// So many elements of the array stay.
    length: Option<usize>,
    /// In the order in which they were named: that of new fields.
    children: Vec<(&'a [u8], Node<'a>)>,
    places: HashMap<&'a [u8], usize>,
}

#[derive(Clone, Copy, Debug)]
enum Action<'a> {
    Set(RawValue<'a>),
    Unset,
}

impl<'a> Edits<'a> {
    /// From `{$set: {path: value}, $unset: {path: anything}}`.
    pub fn from_modifiers(o: &'a [u8]) -> Result<Self> {
        let mut edits = Edits::default();
        for modifier in raw::elements(o) {
            match modifier? {
                (b"$v", _) => {}
                (b"$set", fields) => edits.each(fields, Action::Set)?,
                (b"$unset", fields) => edits.each(fields, |_| Action::Unset)?,
                (other, _) => return Err(unknown(other)),
            }
        }
        Ok(edits)
    }

    /// From `{updatedFields: {path: value}, removedFields: [path], truncatedArrays: [{field, newSize}]}`.
    pub fn from_description(diff: &'a [u8]) -> Result<Self> {
        let mut edits = Edits::default();
        for part in raw::elements(diff) {
            match part? {
                (b"updatedFields", fields) => edits.each(fields, Action::Set)?,
                (b"removedFields", paths) => {
                    for path in raw::elements(paths.bytes) {
                        let path = text(path?.1).ok_or_else(|| unknown(b"removedFields"))?;
                        edits.at(path).action = Some(Action::Unset);
                    }
                }
                (b"truncatedArrays", arrays) => {
                    for array in raw::elements(arrays.bytes) {
                        let array = array?.1.bytes;
                        let path = raw::field(array, "field")?.and_then(text);
                        let length = raw::field(array, "newSize")?.and_then(whole);
                        let (Some(path), Some(length)) = (path, length) else {
                            return Err(unknown(b"truncatedArrays"));
                        };
                        edits.at(path).length = Some(length);
                    }
                }
                // It tells apart what the document tells apart by itself.
                (b"disambiguatedPaths", _) => {}
                (other, _) => return Err(unknown(other)),
            }
        }
        Ok(edits)
    }

    /// The document after them.
    ///
    /// # Errors
    /// `Damaged` where a path leads through a value that is neither document nor array.
    pub fn apply(&self, document: &[u8]) -> Result<Bytes> {
        let mut out = Composer::new();
        self.root.apply_inside(&mut out, kind::DOCUMENT, document)?;
        Ok(out.finish())
    }

    fn each(&mut self, fields: RawValue<'a>, action: impl Fn(RawValue<'a>) -> Action<'a>) -> Result<()> {
        for field in raw::elements(fields.bytes) {
            let (path, value) = field?;
            self.at(path).action = Some(action(value));
        }
        Ok(())
    }

    fn at(&mut self, path: &'a [u8]) -> &mut Node<'a> {
        path.split(|byte| *byte == b'.').fold(&mut self.root, |node, name| node.child(name))
    }
}

impl<'a> Node<'a> {
    fn child(&mut self, name: &'a [u8]) -> &mut Node<'a> {
        let next = self.children.len();
        let place = *self.places.entry(name).or_insert(next);
        if place == next {
            self.children.push((name, Node::default()));
        }
        &mut self.children[place].1
    }

    fn sets_anything(&self) -> bool {
        matches!(self.action, Some(Action::Set(_)))
            || self.children.iter().any(|(_, node)| node.sets_anything())
    }

    /// Writes the elements of a document or an array with the children's changes made.
    fn apply_inside(&self, out: &mut Composer, of: u8, container: &[u8]) -> Result<()> {
        let mut seen = vec![false; self.children.len()];
        let mut at = 0;
        for element in raw::elements(container) {
            if self.length.is_some_and(|length| of == kind::ARRAY && at >= length) {
                return Ok(());
            }
            let (name, value) = element?;
            match self.places.get(name) {
                Some(place) => {
                    seen[*place] = true;
                    self.children[*place].1.write(out, of, name, Some(value))?;
                }
                None => out.element(name, value),
            }
            at += 1;
        }
        let new = self.children.iter().zip(seen).filter(|((_, node), seen)| !seen && node.sets_anything());
        let new: Vec<_> = new.map(|(child, _)| child).collect();
        match of {
            kind::ARRAY => append(out, at, new),
            _ => new.into_iter().try_for_each(|(name, node)| node.write(out, of, name, None)),
        }
    }

    fn write(&self, out: &mut Composer, inside: u8, name: &[u8], old: Option<RawValue<'_>>) -> Result<()> {
        let value = match self.action {
            Some(Action::Unset) if inside == kind::ARRAY => {
                return {
                    out.element(name, NULL);
                    Ok(())
                };
            }
            Some(Action::Unset) => return Ok(()),
            Some(Action::Set(value)) => Some(value),
            None => old,
        };
        let leaf = self.children.is_empty() && self.length.is_none();
        match value {
            Some(value) if leaf => out.element(name, value),
            Some(RawValue { kind: of @ (kind::DOCUMENT | kind::ARRAY), bytes }) => {
                out.open(of, name);
                self.apply_inside(out, of, bytes)?;
                out.close();
            }
            None => {
                out.open(kind::DOCUMENT, name);
                self.apply_inside(out, kind::DOCUMENT, &[])?;
                out.close();
            }
            Some(value) if !self.sets_anything() => out.element(name, value),
            Some(_) => return Err(astray(name)),
        }
        Ok(())
    }
}

/// New elements of an array that has `at` of them; null where none is named in between.
fn append(out: &mut Composer, mut at: usize, new: Vec<&(&[u8], Node<'_>)>) -> Result<()> {
    let mut placed = Vec::with_capacity(new.len());
    for (name, node) in new {
        placed.push((index(name).ok_or_else(|| astray(name))?, node));
    }
    placed.sort_by_key(|(place, _)| *place);
    for (place, node) in placed {
        while at < place {
            out.element(at.to_string().as_bytes(), NULL);
            at += 1;
        }
        node.write(out, kind::ARRAY, place.to_string().as_bytes(), None)?;
        at += 1;
    }
    Ok(())
}

fn text(value: RawValue<'_>) -> Option<&[u8]> {
    let text = value.bytes.get(4..value.bytes.len().checked_sub(1)?)?;
    (value.kind == kind::STRING).then_some(text)
}

fn unknown(part: &[u8]) -> Error {
    let name = String::from_utf8_lossy(part);
    Error::new(Kind::Unsupported, "applying an update", format!("it has the unknown part {name:?}"))
        .hint("the log was written by a server that this tidekeeper does not know; use a newer one")
}

fn astray(name: &[u8]) -> Error {
    let name = String::from_utf8_lossy(name);
    let why = format!("its path leads through {name:?}, where the document has a value that holds no others");
    Error::new(Kind::Damaged, "applying an update", why)
}
