//! Of which moment a backup is, and how the log goes on from it. Pure.

use jiff::Timestamp;
use serde_json::Value;

use super::oplog::records::OPLOG;
use super::optime::OpTime;
use super::replay::Span;
use super::selection::Selection;
use super::wish::parse_optime;
use crate::error::{Error, Kind, Result};
use crate::source::Finding;
use crate::vault::manifest::Manifest;

/// What the manifest says of a backup's moment.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Facts {
    /// What the log says up to here is in the documents already.
    pub apply_from: OpTime,
    /// The documents, and the backup's own part of the log, make up the state at this place; none if there is no log.
    pub exact_at: Option<OpTime>,
    /// Whether the documents were read one after the other while others wrote, so that the log mends them.
    pub is_fuzzy: bool,
    /// Whether it has a part of the log of its own.
    pub has_oplog: bool,
    /// The source's version.
    pub version: Option<String>,
}

impl Facts {
    /// Of this backup.
    pub fn of(manifest: &Manifest) -> Facts {
        let text = |name: &str| manifest.contents.facts.get(name).and_then(Value::as_str);
        let optime = |name: &str| text(name).and_then(parse_optime);
        let position = manifest.log_position.map(OpTime::from);
        let exact_at = optime("exact_at").or(position);
        let origin = manifest.origin.as_ref().and_then(|origin| origin.version.clone());
        Facts {
            apply_from: optime("apply_from").or(exact_at).unwrap_or(OpTime::ZERO),
            exact_at,
            is_fuzzy: text("consistency") == Some("fuzzy"),
            has_oplog: manifest.artifacts.iter().any(|artifact| artifact.name == OPLOG),
            version: text("server_version").map(str::to_owned).or(origin),
        }
    }

    /// Updates of documents that are not there are to be expected up to here: they were deleted later, before they were read.
    pub fn tolerate_until(&self) -> OpTime {
        self.exact_at.filter(|_| self.is_fuzzy).unwrap_or(OpTime::ZERO)
    }

    /// What of the log is applied.
    pub fn span<'a>(&self, selection: &'a Selection, until: OpTime) -> Span<'a> {
        Span { selection, apply_from: self.apply_from, until, tolerate_until: self.tolerate_until() }
    }

    /// Up to which entry the log is applied; none if there is none to apply. The inner error speaks against the plan.
    ///
    /// # Errors
    /// `Usage` if both a moment and a place in the log are wanted, or a part of a second: entries tell no more than theirs.
    pub fn cut(
        &self,
        at: Option<Timestamp>,
        until: Option<OpTime>,
    ) -> Result<std::result::Result<Option<OpTime>, Finding>> {
        let usage = |why: String| Error::new(Kind::Usage, "reading the options of the restore", why);
        if let (Some(at), Some(until)) = (at, until) {
            let why = format!(
                "both the moment {at} and until={until} are wanted, and each says where the log ends"
            );
            return Err(usage(why).hint("leave one of the two out"));
        }
        if let Some(at) = at.filter(|at| at.subsec_nanosecond() != 0) {
            return Err(usage(format!("{at} is a part of a second, and the log tells whole seconds"))
                .hint("name a second, or one entry of the log by until=SECONDS:INCREMENT"));
        }
        let of_second = at.and_then(OpTime::last_of);
        let Some(wanted) = until.or(of_second) else { return Ok(Ok(self.exact_at)) };
        let words = match (until, at) {
            (None, Some(at)) => at.to_string(),
            _ => wanted.to_string(),
        };
        Ok(match self.exact_at {
            None => Err(Finding::error(
                format!("{words} was asked for, and the backup has no place in a log"),
                "it was made of a server without an oplog: leave the time out",
            )),
            Some(exact) if wanted < exact => Err(Finding::error(
                format!("{words} was asked for, and the backup is of {} ({exact})", exact.moment()),
                "a log leads only forward: choose an older backup, or a later moment",
            )),
            Some(_) => Ok(Some(wanted)),
        })
    }
}
