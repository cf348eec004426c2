//! Well-formed sections to checked ones. Each function adds what it finds to the one list of problems.

use std::path::PathBuf;

use super::node::{Node, Problem};
use super::units::{Period, Size};
use super::{
    Api, Encryption, Limits, ObjectLock, Place, Retention, S3Place, Schedule, Series, SourceName, When, raw,
};
use crate::task::spool::SPOOL_MIN;

/// Where findings are collected.
pub(super) type Problems = Vec<Problem>;

/// The vault's place, and whether only one process writes there.
pub(super) fn vault(raw: raw::Vault, at: &Node, problems: &mut Problems) -> Option<(Place, bool)> {
    let single_writer = raw.single_writer;
    let place = match (raw.fs, raw.s3) {
        (Some(fs), None) => {
            Place::Fs { path: at.near("fs").span.beside(&fs.path), single_host: fs.single_host }
        }
        (None, Some(s3)) => Place::S3(bucket(s3, at.near("s3"), problems)),
        _ => return None,
    };
    Some((place, single_writer))
}

fn bucket(raw: raw::S3, at: &Node, problems: &mut Problems) -> S3Place {
    let url = |text: &String| text.starts_with("http://") || text.starts_with("https://");
    if raw.endpoint.as_ref().is_some_and(|text| !url(text)) {
        let message = "expected a URL that begins with https:// or http://";
        problems.push(at.near("endpoint").problem("vault.s3.endpoint", message));
    }
    if raw.object_lock.as_ref().is_some_and(|lock| lock.keep == Period::default()) {
        let at = at.near("object_lock").near("keep");
        problems.push(at.problem("vault.s3.object_lock.keep", "expected more than nothing"));
    }
    S3Place {
        bucket: raw.bucket,
        prefix: raw.prefix.trim_matches('/').to_owned(),
        region: raw.region,
        endpoint: raw.endpoint,
        path_style: raw.path_style,
        kms_key: raw.kms_key,
        object_lock: raw
            .object_lock
            .map(|lock| ObjectLock { compliance: lock.mode == raw::LockMode::Compliance, keep: lock.keep.0 }),
    }
}

/// To whom data is encrypted.
pub(super) fn encryption(raw: raw::Encryption, at: &Node, problems: &mut Problems) -> Encryption {
    for (n, (text, at)) in raw.recipients.iter().zip(at.near("recipients").items()).enumerate() {
        if text.parse::<age::x25519::Recipient>().is_err() {
            let secret = text.to_uppercase().starts_with("AGE-SECRET-KEY");
            let message = match secret {
                true => "this is a private key; expected its public key (age1...), see `age-keygen -y`",
                false => "expected an age public key (age1...), as `age-keygen` prints it",
            };
            problems.push(at.problem(format!("encryption.recipients[{n}]"), message));
        }
    }
    if raw.recipients.len() == 1 && !raw.single_recipient {
        let message = "one recipient only: whoever loses its private key loses all backups; \
                       add a second one that is kept elsewhere, or say `single_recipient: true`";
        problems.push(at.near("recipients").problem("encryption.recipients", message));
    }
    let identity_file = raw.identity_file.map(|path| at.near("identity_file").span.beside(&path));
    Encryption { recipients: raw.recipients, identity_file }
}

/// What the process may use.
pub(super) fn limits(raw: raw::Limits, at: &Node, problems: &mut Problems) -> Limits {
    if raw.spool_max.0 < SPOOL_MIN {
        let message = format!("expected at least {}, found {}", Size(SPOOL_MIN), raw.spool_max);
        problems.push(at.near("spool_max").problem("limits.spool_max", message));
    }
    let spool_dir = raw.spool_dir.map(|path| at.near("spool_dir").span.beside(&path));
    Limits {
        spool_dir: spool_dir.unwrap_or_else(|| Limits::default().spool_dir),
        spool_max: raw.spool_max.0,
        upload_rate: raw.upload_rate.0,
        concurrent_runs: raw.concurrent_runs as usize,
    }
}

/// The HTTP API.
pub(super) fn api(raw: raw::Api, at: &Node, problems: &mut Problems) -> Api {
    if !raw.listen.0.ip().is_loopback() {
        let message = "expected a loopback address (127.0.0.1, [::1]): there is no authentication yet";
        problems.push(at.near("listen").problem("api.listen", message));
    }
    Api { listen: raw.listen.0 }
}

/// A path that is one of the file's own keys.
pub(super) fn path(file: &Node, key: &str) -> Option<PathBuf> {
    let node = file.get(key)?;
    let super::node::Value::Text(text) = &node.value else { return None };
    Some(node.span.beside(text.as_ref()))
}

/// One schedule file.
pub(super) fn schedule(raw: raw::Schedule, at: &Node, problems: &mut Problems) -> Option<Schedule> {
    let grace = raw.retention.grace;
    let schedule = Schedule {
        source: raw.source?,
        time_zone: raw.time_zone,
        backup: series(raw.backup, at, "backup", grace, problems),
        retention: retention(raw.retention),
        suspend: raw.suspend,
    };
    Some(schedule)
}

fn series(
    list: Vec<raw::Series>,
    at: &Node,
    key: &str,
    grace: Period,
    problems: &mut Problems,
) -> Vec<Series> {
    let mut names: Vec<(SourceName, usize)> = Vec::new();
    let mut checked = Vec::new();
    for (n, (raw, node)) in list.into_iter().zip(at.near(key).items()).enumerate() {
        let path = format!("{key}[{n}]");
        let line = node.near("name").span.line;
        match names.iter().find(|(name, _)| *name == raw.name) {
            Some((name, first)) => {
                let message = format!("the series `{name}` is in line {first} already");
                problems.push(node.near("name").problem(format!("{path}.name"), message));
            }
            None => names.push((raw.name.clone(), line)),
        }
        check_times(&raw, node, at, &path, grace, problems);
        if let Some(when) = when(&raw, node, &path, problems) {
            let (jitter, deadline) = (raw.jitter.0, raw.deadline.0);
            checked.push(Series { name: raw.name.to_string(), when, jitter, deadline, missed: raw.missed });
        }
    }
    checked
}

fn when(raw: &raw::Series, at: &Node, path: &str, problems: &mut Problems) -> Option<When> {
    if let Some(cron) = &raw.cron {
        let epoch = jiff::Timestamp::UNIX_EPOCH.to_zoned(jiff::tz::TimeZone::UTC);
        if cron.0.find_next_occurrence(&epoch, true).is_err() {
            problems.push(at.near("cron").problem(format!("{path}.cron"), "this is never due"));
        }
        return Some(When::Cron(cron.clone()));
    }
    Some(When::Every(raw.every?.0))
}

fn check_times(
    raw: &raw::Series,
    node: &Node,
    file: &Node,
    path: &str,
    grace: Period,
    problems: &mut Problems,
) {
    let mut find = |key: &str, message: String| {
        problems.push(node.near(key).problem(format!("{path}.{key}"), message));
    };
    if let Some(every) = raw.every {
        if every.0.as_millis() < 1_000 {
            find("every", format!("expected at least 1s, found {every}"));
        } else if raw.jitter >= every {
            find("jitter", format!("expected less than `every` ({every}), found {}", raw.jitter));
        }
    }
    if raw.deadline == Period::default() {
        find("deadline", "expected more than nothing".to_owned());
    }
    if grace <= raw.deadline {
        let deadline = raw.deadline;
        match file.get("retention").and_then(|retention| retention.get("grace")) {
            Some(at) => {
                let message =
                    format!("expected more than the deadline of {path} ({deadline}), found {grace}");
                problems.push(at.problem("retention.grace", message));
            }
            None => {
                find("deadline", format!("expected less than `retention.grace` ({grace}), found {deadline}"))
            }
        }
    }
}

fn retention(raw: raw::Retention) -> Retention {
    Retention {
        keep_within: raw.keep_within.0,
        keep_last: raw.keep_last,
        hourly: raw.hourly,
        daily: raw.daily,
        weekly: raw.weekly,
        monthly: raw.monthly,
        yearly: raw.yearly,
        window: raw.window.unwrap_or(raw.keep_within).0,
        grace: raw.grace.0,
    }
}
