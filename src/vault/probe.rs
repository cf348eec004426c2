//! Tries a store out before anything is trusted to it: the promises of [`Store`] on which the vault rests, with small
//! objects under `probes/` that are deleted again.
//!
//! `init`, `check` and every start of the daemon do this: a store that ignores `If-None-Match` looks fine until two
//! daemons each believe that they have won.

use std::time::Duration;

use futures_util::TryStreamExt;
use jiff::SignedDuration;
use serde::{Deserialize, Serialize};
use tokio::task::JoinSet;

use super::Vault;
use super::codec::persist;
use super::decide::{self, Deciding, Decision};
use super::layout;
use super::store::{Create, Key, Part, SharedStore, Store, list_all};
use super::store_clock::TOLERANCE;
use crate::clock::{Clock, SharedClock, within};
use crate::error::{Error, Kind, Result};
use crate::finding::{Finding, Severity};

/// How long reading a few bytes may take.
const READ_LIMIT: Duration = Duration::from_secs(30);

/// How many race for one key, and for how many keys in turn. s3s-fs, which looks before it writes, lets several win in 37 of
/// 40 races (measured, 2 cores): five find it out in all but one of 400,000 probes.
const CREATORS: u32 = 16;
const RACES: u32 = 5;

/// Tries everything, cleans up, and tells what it found; `single_writer` makes lost races a warning, for only one process
/// will ever write.
///
/// # Errors
/// When the store could not be asked: that says nothing of its promises.
pub async fn probe(store: &SharedStore, clock: &SharedClock, single_writer: bool) -> Result<Vec<Finding>> {
    let doing = || format!("probing the store at {}", store.location());
    let nonce = layout::nonce();
    let probing = Probing { store, clock, nonce: &nonce };
    let found = probing.all(single_writer).await;
    let cleaned = probing.clean().await;
    let mut findings = found.map_err(|error| error.while_doing(doing()))?;
    findings.push(match cleaned {
        Ok(()) => Finding::ok("deletes what it is told to"),
        Err(error) => Finding::error(
            format!("does not delete: {error}"),
            "without deleting the vault only grows; `tidekeeper permissions` prints the rights that are needed",
        ),
    });
    findings.extend(store.inspect().await.map_err(|error| error.while_doing(doing()))?);
    Ok(findings)
}

/// Writes a small object and deletes it again: a vault whose disk or credentials were made read-only still answers all
/// questions.
///
/// # Errors
/// Why nothing can be written.
pub async fn writes(vault: &Vault) -> Result<()> {
    let doing = || format!("writing to the vault at {}", vault.store.location());
    let key = layout::probe(&layout::nonce(), "writes");
    let tried = async {
        let _ = vault.store.create(&key, decide::encode(&key, &Probe::new())?).await?;
        vault.store.delete(&key).await
    };
    let late = || Err(Error::new(Kind::Timeout, doing(), "no answer"));
    within(&*vault.clock, READ_LIMIT, tried, late).await.map_err(|error| {
        error.while_doing(doing()).hint_first("until that is mended nothing is backed up, stored or deleted")
    })
}

/// Turns the findings into an error if the store cannot hold a vault.
pub fn refuse(store: &dyn Store, findings: &[Finding]) -> Result<()> {
    let Some(worst) = findings.iter().find(|finding| finding.severity == Severity::Error) else {
        return Ok(());
    };
    let doing = format!("using the store at {}", store.location());
    Err(Error::new(Kind::Unsupported, doing, &worst.what).hint(&worst.advice))
}

/// A probe object. Its text is long enough to take a range of it.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
struct Probe {
    nonce: String,
    purpose: String,
}

impl Probe {
    fn new() -> Self {
        Probe {
            nonce: layout::nonce(),
            purpose: "tidekeeper tries out this store; may be deleted".to_owned(),
        }
    }
}

impl Deciding for Probe {
    fn nonce(&self) -> &str {
        &self.nonce
    }
}

struct Probing<'a> {
    store: &'a SharedStore,
    clock: &'a SharedClock,
    nonce: &'a str,
}

impl Probing<'_> {
    fn key(&self, name: &str) -> Key {
        layout::probe(self.nonce, name)
    }

    async fn all(&self, single_writer: bool) -> Result<Vec<Finding>> {
        let key = self.key("object");
        let object = Probe::new();
        if let Decision::Theirs(_) = decide::decide(&**self.store, &**self.clock, &key, &object).await? {
            return Err(Error::new(
                Kind::Protocol,
                format!("creating {key}"),
                "it exists, and nobody made it",
            ));
        }
        Ok(vec![
            self.races(single_writer).await?,
            self.own_is_recognised(&key, &object).await?,
            self.is_listed(&key).await?,
            self.ranges(&key, &object).await?,
            self.uploads(&key).await?,
            self.clocks().await,
        ])
    }

    async fn races(&self, single_writer: bool) -> Result<Finding> {
        for race in 1..=RACES {
            let key = self.key(&format!("race-{race}"));
            let winners = self.race(&key).await?;
            match winners.len() {
                1 => {}
                0 => return Ok(Finding::error("of racing creators none wins", "use another store")),
                many => return Ok(lost_race(many, single_writer)),
            }
            let found: Option<Probe> = decide::read_json(&**self.store, &key).await?;
            if found.as_ref() != winners.first() {
                let what = "the object that is read is not the one whose creator was told that it won";
                return Ok(Finding::error(
                    what,
                    "use another store: nothing that this one says can be relied on",
                ));
            }
        }
        Ok(Finding::ok(format!("of {CREATORS} racing creators exactly one wins")))
    }

    /// Who was told to have created `key`. A racer whose answer is lost asks again, like all our writers.
    async fn race(&self, key: &Key) -> Result<Vec<Probe>> {
        let mut racers = JoinSet::new();
        for _ in 0..CREATORS {
            racers.spawn(run(self.store.clone(), self.clock.clone(), key.clone()));
        }
        let outcomes = racers.join_all().await.into_iter().collect::<Result<Vec<_>>>()?;
        Ok(outcomes.into_iter().flatten().collect())
    }

    async fn own_is_recognised(&self, key: &Key, own: &Probe) -> Result<Finding> {
        let again = decide::decide(&**self.store, &**self.clock, key, own).await?;
        let other = decide::decide(&**self.store, &**self.clock, key, &Probe::new()).await?;
        Ok(match (again, other) {
            (Decision::Ours, Decision::Theirs(found)) if found == *own => {
                Finding::ok("a creator whose answer was lost recognises its own object")
            }
            _ => Finding::error(
                "an object that exists can be created again",
                "use a store that enforces `If-None-Match: *`: this one would lose backups",
            ),
        })
    }

    async fn is_listed(&self, key: &Key) -> Result<Finding> {
        let listed = list_all(&**self.store, &layout::probes(self.nonce)).await?;
        Ok(match listed.iter().any(|entry| entry.key == *key) {
            true => Finding::ok("lists an object as soon as it exists"),
            false => Finding::error(
                "an object that was created is not in the listing",
                "use a store with consistent listings: this one would hide backups from retention and restore",
            ),
        })
    }

    async fn ranges(&self, key: &Key, object: &Probe) -> Result<Finding> {
        let whole = decide::encode(key, object)?;
        let part = persist(&**self.clock, READ_LIMIT, || async {
            let stream = self.store.read(key, 7..29).await?;
            stream
                .try_fold(Vec::new(), |mut all, chunk| async move {
                    all.extend_from_slice(&chunk);
                    Ok(all)
                })
                .await
        })
        .await?;
        Ok(match part == whole[7..29] {
            true => Finding::ok("reads ranges"),
            false => Finding::error("a range that was read is not what was asked for", "use another store"),
        })
    }

    /// An upload onto a key that exists must be told so, as a small create is.
    async fn uploads(&self, key: &Key) -> Result<Finding> {
        let upload = self.store.begin_upload(key).await?;
        upload.put_part(1, Part::Bytes("another object".into())).await?;
        let finished = upload.finish().await?;
        self.store.begin_upload(&self.key("aborted")).await?.abort().await?;
        Ok(match finished {
            Create::Exists => Finding::ok("completes an upload only onto a free key"),
            Create::Created => Finding::warning(
                "an upload replaces an object that exists",
                "data keys are unique, so no backup is lost; a store that enforces `If-None-Match` is still better",
            ),
        })
    }

    /// The store's clock beside ours. Not knowing it stops no backup: only what deletes needs it, and asks again.
    async fn clocks(&self) -> Finding {
        let advice = "until that is mended nothing is deleted: neither retention nor repair runs";
        match clock_difference(&**self.store, &**self.clock).await {
            Err(error) => Finding::warning(format!("unknown: what time the store has ({error})"), advice),
            Ok(apart) if apart.unsigned_abs() <= TOLERANCE => {
                Finding::ok(format!("its clock and ours differ by {} s", apart.as_secs().abs()))
            }
            Ok(apart) => {
                let ahead = if apart.is_positive() { "ahead of" } else { "behind" };
                let seconds = apart.as_secs().abs();
                Finding::warning(format!("the store's clock is {seconds} s {ahead} ours"), advice)
            }
        }
    }

    async fn clean(&self) -> Result<()> {
        for entry in list_all(&**self.store, &layout::probes(self.nonce)).await? {
            self.store.delete(&entry.key).await?;
            if self.store.get(&entry.key).await?.is_some() {
                let doing = format!("deleting {}", entry.key);
                return Err(Error::new(Kind::Protocol, doing, "it is still there afterwards"));
            }
        }
        Ok(())
    }
}

/// Runs in a race: the object with which it was won.
async fn run(store: SharedStore, clock: SharedClock, key: Key) -> Result<Option<Probe>> {
    let probe = Probe::new();
    match store.create(&key, decide::encode(&key, &probe)?).await {
        Ok(Create::Created) => Ok(Some(probe)),
        Ok(Create::Exists) => Ok(None),
        Err(error) if error.is_retryable() => {
            let decision = decide::decide(&*store, &*clock, &key, &probe).await?;
            Ok(matches!(decision, Decision::Ours).then_some(probe))
        }
        Err(error) => Err(error),
    }
}

fn lost_race(winners: usize, single_writer: bool) -> Finding {
    let what = format!("of {CREATORS} racing creators {winners} were told that they won");
    if single_writer {
        let advice = "tolerable only because `vault.single_writer` says that one process writes here";
        return Finding::warning(what, advice);
    }
    let advice = "two daemons, or a daemon and a CLI, would overwrite each other: use a store that enforces \
                  `If-None-Match: *`, or set `vault.single_writer: true` and run one process only";
    Finding::error(what, advice)
}

/// By how much the store's clock is ahead of ours (negative: behind), at the middle of the question.
pub async fn clock_difference(store: &dyn Store, clock: &dyn Clock) -> Result<SignedDuration> {
    let asked = clock.now();
    let theirs = store.now().await?;
    let waited = asked.duration_until(clock.now());
    Ok((asked + waited / 2).duration_until(theirs))
}
