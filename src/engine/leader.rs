//! Who leads: generation n is won by the conditional create of `leaders/<n>.json`.
//!
//! Objects are written once, so a leader cannot renew a lease. It need not: whoever wants to follow it in office looks whether
//! its process is gone, and unless it is asks: `leaders/<n>/<nonce>.asked.json`. That a process is there says nothing: it may
//! be stopped, or hang, or run where nobody can look. A leader answers within [`LOOK_EVERY`]; one that leaves a question open
//! for [`PATIENCE`] is succeeded. It learns so at its next effect, because the fence it passes before each looks for a newer
//! generation.
//!
//! Leadership passes by itself only inside one domain (a cluster, a machine). Another domain on the same vault reads only,
//! until it is started with `--take-over`.

use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use jiff::Timestamp;
use serde::{Deserialize, Serialize};

use super::host::{Fate, Holder, Host};
use crate::error::{Error, Kind, Result};
use crate::vault::Vault;
use crate::vault::decide::{Deciding, Decision, decide, read_json};
use crate::vault::layout::{self, LeaderKey};
use crate::vault::store::{Entry, list_all};

/// How often a leader looks whether it still leads and whether somebody asks.
pub const LOOK_EVERY: Duration = Duration::from_secs(10);

/// How long a question waits for its answer: several looks of a leader that lives.
pub const PATIENCE: Duration = Duration::from_secs(45);

/// How long an answer satisfies; then the follower asks again.
const ASK_EVERY: Duration = Duration::from_secs(120);

/// For how long one look at `leaders/` is believed at the fence.
const FRESH: Duration = Duration::from_secs(5);

/// `leaders/<n>.json`
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Generation {
    /// n.
    pub generation: u64,
    /// Of this object alone.
    pub nonce: String,
    /// The cluster or machine.
    pub domain: String,
    /// The process.
    pub holder: Holder,
    /// Since when, by its own clock.
    pub at: Timestamp,
}

impl Deciding for Generation {
    fn nonce(&self) -> &str {
        &self.nonce
    }
}

/// `leaders/<n>/<nonce>.asked.json` and `.answered.json`.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
struct Note {
    nonce: String,
    holder: Holder,
    at: Timestamp,
}

impl Deciding for Note {
    fn nonce(&self) -> &str {
        &self.nonce
    }
}

/// Passed before each effect that only the leader may have. Clones are the same fence.
#[derive(Clone, Debug, Default)]
pub struct Fence(Option<Arc<Post>>);

#[derive(Debug)]
struct Post {
    vault: Vault,
    generation: u64,
    /// The monotonic time of the last look that found nobody newer.
    seen: Mutex<Duration>,
    lost: AtomicBool,
}

impl Fence {
    /// For works that need no leadership: always passes.
    pub fn none() -> Self {
        Fence(None)
    }

    /// The generation it stands for.
    pub fn generation(&self) -> Option<u64> {
        self.0.as_ref().map(|post| post.generation)
    }

    /// Passes while nobody newer leads.
    ///
    /// # Errors
    /// `Conflict` once somebody does; the store's error if it cannot be asked: unknown is not "nobody".
    pub async fn check(&self) -> Result<()> {
        let Some(post) = &self.0 else { return Ok(()) };
        let now = post.vault.clock.monotonic();
        let seen = *post.seen.lock().expect("no holder panics");
        if post.lost.load(Ordering::SeqCst) {
            return Err(post.deposed());
        }
        if now.saturating_sub(seen) < FRESH { Ok(()) } else { post.look().await.map(drop) }
    }
}

impl Post {
    /// Looks for a newer generation; returns what else was written after ours.
    async fn look(&self) -> Result<Vec<Entry>> {
        let began = self.vault.clock.monotonic();
        let later = self.later().await?;
        let newer = later
            .iter()
            .any(|entry| matches!(layout::leader_key(&entry.key), Some(LeaderKey::Generation(_))));
        if newer {
            self.lost.store(true, Ordering::SeqCst);
            return Err(self.deposed());
        }
        *self.seen.lock().expect("no holder panics") = began;
        Ok(later)
    }

    async fn later(&self) -> Result<Vec<Entry>> {
        let mut all = Vec::new();
        let mut after = layout::leader(self.generation);
        loop {
            let page = self.vault.store.list(layout::LEADERS, Some(&after)).await?;
            all.extend(page.entries);
            match all.last() {
                Some(last) if page.more => after = last.key.clone(),
                _ => return Ok(all),
            }
        }
    }

    fn deposed(&self) -> Error {
        let doing = format!("leading as generation {}", self.generation);
        Error::new(Kind::Conflict, doing, "a newer generation leads this vault")
            .hint("the newest object under `leaders/` in the vault names it")
    }
}

/// Where a process stands.
#[derive(Clone, Debug, PartialEq)]
pub enum Standing {
    /// Nobody knows yet.
    Unknown,
    /// It leads.
    Leads(u64),
    /// Another process leads and lives, as far as is known.
    Follows(Generation),
    /// Another domain leads: this one only reads.
    Reads(Generation),
}

/// A process's part in the question who leads.
#[derive(Debug)]
pub struct Leadership {
    vault: Vault,
    host: Arc<dyn Host>,
    take_over: bool,
    standing: Standing,
    post: Option<Arc<Post>>,
    asked: Option<Asked>,
}

/// A question that waits for its answer, or the last that got one.
#[derive(Debug)]
struct Asked {
    generation: u64,
    nonce: String,
    at: Duration,
    answered: bool,
}

impl Leadership {
    /// Nobody has looked yet. `take_over` deposes the leader of another domain, once.
    pub fn new(vault: Vault, host: Arc<dyn Host>, take_over: bool) -> Self {
        Leadership { vault, host, take_over, standing: Standing::Unknown, post: None, asked: None }
    }

    /// Where we stand, as of the last look.
    pub fn standing(&self) -> &Standing {
        &self.standing
    }

    /// The fence of our generation, while we lead.
    pub fn fence(&self) -> Option<Fence> {
        let post = self.post.as_ref().filter(|post| !post.lost.load(Ordering::SeqCst))?;
        Some(Fence(Some(post.clone())))
    }

    /// Looks at `leaders/`: keeps the post and answers questions, or tries to win it where that is allowed.
    pub async fn look(&mut self) -> Result<&Standing> {
        match self.post.clone() {
            Some(post) => match post.look().await {
                Ok(notes) => self.answer(post.generation, &notes).await?,
                Err(error) if error.kind() == Kind::Conflict => self.post = None,
                Err(error) => return Err(error),
            },
            None => self.stand().await?,
        }
        if self.post.is_none() && matches!(self.standing, Standing::Leads(_)) {
            self.stand().await?;
        }
        Ok(&self.standing)
    }

    async fn stand(&mut self) -> Result<()> {
        let Some(leader) = newest(&self.vault).await? else { return self.win(1).await };
        let next = leader.generation + 1;
        if leader.domain != self.host.domain() {
            if self.take_over {
                return self.win(next).await;
            }
            self.standing = Standing::Reads(leader);
            return Ok(());
        }
        let gone = match self.host.fate(&leader.holder) {
            // Won by ourselves in a look that was given up before its answer came: nobody holds that post.
            _ if leader.holder.process == self.host.me().process => true,
            Fate::Gone => true,
            Fate::Alive | Fate::Stopped | Fate::Unknown => self.is_silent(leader.generation).await?,
        };
        if gone {
            return self.win(next).await;
        }
        self.standing = Standing::Follows(leader);
        Ok(())
    }

    async fn win(&mut self, generation: u64) -> Result<()> {
        let mine = Generation {
            generation,
            nonce: layout::nonce(),
            domain: self.host.domain().to_owned(),
            holder: self.host.me().clone(),
            at: self.vault.clock.now(),
        };
        let began = self.vault.clock.monotonic();
        let key = layout::leader(generation);
        match decide(self.vault.store.as_ref(), self.vault.clock.as_ref(), &key, &mine).await? {
            Decision::Ours => {
                self.take_over = false;
                self.standing = Standing::Leads(generation);
                self.post = Some(Arc::new(Post {
                    vault: self.vault.clone(),
                    generation,
                    seen: Mutex::new(began),
                    lost: AtomicBool::new(false),
                }));
            }
            Decision::Theirs(theirs) if theirs.domain == self.host.domain() => {
                self.standing = Standing::Follows(theirs);
            }
            Decision::Theirs(theirs) => self.standing = Standing::Reads(theirs),
        }
        Ok(())
    }

    /// Asks a leader that may live, and tells whether it has left a question open for too long.
    async fn is_silent(&mut self, generation: u64) -> Result<bool> {
        let now = self.vault.clock.monotonic();
        let Some(asked) = self.asked.as_mut().filter(|asked| asked.generation == generation) else {
            return self.ask(generation, now).await.map(|()| false);
        };
        let age = now.saturating_sub(asked.at);
        if !asked.answered {
            let key = layout::leader_answered(generation, &asked.nonce);
            asked.answered = self.vault.store.stat(&key).await?.is_some();
        }
        match asked.answered {
            false => Ok(age >= PATIENCE),
            true if age >= ASK_EVERY => self.ask(generation, now).await.map(|()| false),
            true => Ok(false),
        }
    }

    async fn ask(&mut self, generation: u64, now: Duration) -> Result<()> {
        let note = self.note();
        let key = layout::leader_asked(generation, &note.nonce);
        let _ = decide(self.vault.store.as_ref(), self.vault.clock.as_ref(), &key, &note).await?;
        self.asked = Some(Asked { generation, nonce: note.nonce, at: now, answered: false });
        Ok(())
    }

    /// Answers all open questions, and sweeps away what was answered before the last look but one.
    async fn answer(&self, generation: u64, notes: &[Entry]) -> Result<()> {
        let of = |entry: &Entry| match layout::leader_key(&entry.key) {
            Some(LeaderKey::Asked(n, nonce)) if n == generation => Some(nonce.to_owned()),
            _ => None,
        };
        for nonce in notes.iter().filter_map(of) {
            let key = layout::leader_answered(generation, &nonce);
            match notes.iter().find(|entry| entry.key == key) {
                None => {
                    let note = self.note();
                    let _ = decide(self.vault.store.as_ref(), self.vault.clock.as_ref(), &key, &note).await?;
                }
                Some(answer) => self.sweep(generation, &nonce, answer).await?,
            }
        }
        Ok(())
    }

    /// A question and its answer have served once the asker would ask anew. The question goes first: without it nobody
    /// answers again.
    async fn sweep(&self, generation: u64, nonce: &str, answer: &Entry) -> Result<()> {
        let age = self.vault.clock.now().duration_since(answer.modified);
        if age > jiff::SignedDuration::from_secs(2 * ASK_EVERY.as_secs() as i64) {
            self.vault.store.delete(&layout::leader_asked(generation, nonce)).await?;
            self.vault.store.delete(&answer.key).await?;
        }
        Ok(())
    }

    fn note(&self) -> Note {
        Note { nonce: layout::nonce(), holder: self.host.me().clone(), at: self.vault.clock.now() }
    }
}

/// The newest generation.
pub async fn newest(vault: &Vault) -> Result<Option<Generation>> {
    newest_of(vault, &list_all(vault.store.as_ref(), layout::LEADERS).await?).await
}

/// The newest generation, and what is known of its process. One that left a question open for [`PATIENCE`] is as good as
/// gone: whoever asked would have followed it by now.
pub async fn regard(vault: &Vault, host: &dyn Host) -> Result<Option<(Generation, Fate)>> {
    let entries = list_all(vault.store.as_ref(), layout::LEADERS).await?;
    let Some(leader) = newest_of(vault, &entries).await? else { return Ok(None) };
    let fate = match host.fate(&leader.holder) {
        Fate::Alive | Fate::Unknown if left_open(leader.generation, &entries, vault.store.now().await?) => {
            Fate::Gone
        }
        known => known,
    };
    Ok(Some((leader, fate)))
}

async fn newest_of(vault: &Vault, entries: &[Entry]) -> Result<Option<Generation>> {
    let generation = |entry: &Entry| match layout::leader_key(&entry.key) {
        Some(LeaderKey::Generation(n)) => Some(n),
        _ => None,
    };
    match entries.iter().filter_map(generation).max() {
        Some(n) => read_json(vault.store.as_ref(), &layout::leader(n)).await,
        None => Ok(None),
    }
}

/// Whether a question has had no answer for longer than a follower waits, at `now` by the store's clock.
fn left_open(generation: u64, entries: &[Entry], now: Timestamp) -> bool {
    let is_open = |entry: &Entry| match layout::leader_key(&entry.key) {
        Some(LeaderKey::Asked(n, nonce)) if n == generation => {
            let answer = layout::leader_answered(n, nonce);
            entry.modified + PATIENCE <= now && entries.iter().all(|other| other.key != answer)
        }
        _ => false,
    };
    entries.iter().any(is_open)
}
