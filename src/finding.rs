//! What somebody found who looked: one line of `check`, of a restore's pre-flight, of the store's probe.

use serde::{Deserialize, Serialize};

/// Something that was looked at.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Finding {
    /// How bad it is.
    pub severity: Severity,
    /// What was found.
    pub what: String,
    /// What it costs, and what to do about it; empty for `ok`.
    pub advice: String,
}

/// How bad a finding is.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Severity {
    /// As it should be.
    Ok,
    /// Works, at a cost.
    Warning,
    /// In a plan: is not done unless somebody says that it may be; the advice says how.
    Refused,
    /// Does not work. In a plan: the plan cannot be executed.
    Error,
}

impl Finding {
    /// Whether a plan that holds it cannot be executed.
    pub fn forbids(&self) -> bool {
        self.severity >= Severity::Refused
    }

    /// All is well with `what`.
    pub fn ok(what: impl Into<String>) -> Self {
        Finding { severity: Severity::Ok, what: what.into(), advice: String::new() }
    }

    /// `what` works, at a cost; `advice` names it.
    pub fn warning(what: impl Into<String>, advice: impl Into<String>) -> Self {
        Finding { severity: Severity::Warning, what: what.into(), advice: advice.into() }
    }

    /// `what` is not done unless somebody says that it may be; `advice` says how.
    pub fn refused(what: impl Into<String>, advice: impl Into<String>) -> Self {
        Finding { severity: Severity::Refused, what: what.into(), advice: advice.into() }
    }

    /// `what` does not work; `advice` says what to do.
    pub fn error(what: impl Into<String>, advice: impl Into<String>) -> Self {
        Finding { severity: Severity::Error, what: what.into(), advice: advice.into() }
    }
}
