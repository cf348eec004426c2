//! What the `o` of an update says, in all its forms.

use bytes::Bytes;

use super::compose::kind;
use super::diff::{self, whole};
use super::modifiers::Edits;
use crate::error::{Error, Kind, Result};
use crate::source::mongodb::raw;

/// The forms.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Form {
    /// The whole new document.
    Whole,
    /// `{$set, $unset}` with or without `$v: 1`.
    Modifiers,
    /// `{$v: 2, diff: {i, u, d, s..}}`.
    Difference,
    /// `{$v: 2, diff: {updatedFields, removedFields, truncatedArrays}}`, which a mongod would not apply.
    Description,
}

/// The words of a description. A difference has names of one letter, or such that begin with `s`.
const DESCRIPTION: [&[u8]; 4] =
    [b"updatedFields", b"removedFields", b"truncatedArrays", b"disambiguatedPaths"];

/// Tells which form it is.
///
/// # Errors
/// `Unsupported` for a version that is not known.
pub fn form(o: &[u8]) -> Result<Form> {
    let Some(first) = raw::elements(o).next() else { return Ok(Form::Whole) };
    let (name, value) = first?;
    match name {
        b"$v" => match whole(value) {
            Some(1) => Ok(Form::Modifiers),
            Some(2) => {
                let diff = raw::field(o, "diff")?.filter(|diff| diff.kind == kind::DOCUMENT);
                let diff = diff.ok_or_else(|| unknown("an update of version 2 without a difference"))?;
                let first = raw::elements(diff.bytes).next().transpose()?;
                Ok(match first {
                    Some((name, _)) if DESCRIPTION.contains(&name) => Form::Description,
                    _ => Form::Difference,
                })
            }
            _ => Err(unknown("an update of a version that is neither 1 nor 2")),
        },
        [b'$', ..] => Ok(Form::Modifiers),
        _ => Ok(Form::Whole),
    }
}

/// The document after the update.
pub fn applied(document: &[u8], o: &Bytes) -> Result<Bytes> {
    let diff = || Ok::<_, Error>(raw::field(o, "diff")?.map(|diff| diff.bytes).unwrap_or_default());
    match form(o)? {
        Form::Whole => Ok(o.clone()),
        Form::Modifiers => Edits::from_modifiers(o)?.apply(document),
        Form::Difference => diff::apply(document, diff()?),
        Form::Description => Edits::from_description(diff()?)?.apply(document),
    }
}

fn unknown(what: &str) -> Error {
    Error::new(Kind::Unsupported, "applying an update", format!("the log has {what}"))
        .hint("the log was written by a server that this tidekeeper does not know; use a newer one")
}
