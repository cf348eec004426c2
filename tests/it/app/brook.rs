//! A kind of source that is made up: a list of words that grows, and a log of each that was added.

use std::collections::BTreeMap;
use std::sync::{Arc, Mutex};
use std::time::Duration;

use async_trait::async_trait;
use bytes::Bytes;
use jiff::Timestamp;
use serde_json::{Value, json};
use tidekeeper::clock::{Clock, TestClock};
use tidekeeper::config::SourceName;
use tidekeeper::config::node::{Node, Problem};
use tidekeeper::error::{Error, Kind, Result};
use tidekeeper::source::{
    self, Action, BackupPlan, Check, Configured, Extracted, Format, Identity, Inspection, Outlet, Permission,
    RestorePlan, Restored, Role, Slice, Source, Target, Until, Wish,
};
use tidekeeper::task::Task;
use tidekeeper::vault::layout::log::Position;
use tidekeeper::vault::manifest::{Consistency, Level};
use tidekeeper::vault::reader::BackupReader;
use tidekeeper::vault::timeline::Framing;
use tidekeeper::vault::timeline::writer::{Beginning, Bounds, TimelineWriter};
use tidekeeper::vault::writer::{BackupWriter, Capture, LogPoint};

/// Its kinds, as an app takes them.
pub static KINDS: &[&dyn source::Kind] = &[&Brook];

/// All brooks of this process, by name: a test names its own.
static BEDS: Mutex<BTreeMap<SourceName, Arc<Bed>>> = Mutex::new(BTreeMap::new());

/// What flows: the words that are in it, and its log.
#[derive(Debug)]
pub struct Bed {
    clock: Arc<TestClock>,
    name: SourceName,
    state: Mutex<State>,
}

#[derive(Debug)]
struct State {
    words: Vec<String>,
    log: Vec<(u64, String)>,
    /// Why nobody can read the log at the moment.
    broken: Option<&'static str>,
    /// How long a restore takes.
    restore: Duration,
}

impl Bed {
    pub fn of(name: &SourceName, clock: &Arc<TestClock>) -> Arc<Bed> {
        let state =
            State { words: Vec::new(), log: Vec::new(), broken: None, restore: Duration::from_secs(1) };
        let bed = Arc::new(Bed { clock: clock.clone(), name: name.clone(), state: Mutex::new(state) });
        bed.write("spring");
        BEDS.lock().unwrap().insert(name.clone(), bed.clone());
        bed
    }

    /// Adds a word; so many in one second are told apart by their place in it.
    pub fn write(&self, word: &str) {
        let mut state = self.state.lock().unwrap();
        let second = (self.clock.now().as_second() as u64) << 16;
        let next = state.log.last().map_or(0, |(at, _)| at + 1);
        state.log.push((next.max(second), word.to_owned()));
        state.words.push(word.to_owned());
    }

    pub fn words(&self) -> Vec<String> {
        self.state.lock().unwrap().words.clone()
    }

    /// The words that the log stamps with this second or an earlier one, from the beginning.
    pub fn words_at(&self, at: Timestamp) -> Vec<String> {
        let state = self.state.lock().unwrap();
        let last = (at.as_second() as u64) << 16 | 0xffff;
        state.log.iter().filter(|(stamp, _)| *stamp <= last).map(|(_, word)| word.clone()).collect()
    }

    pub fn break_log(&self, why: Option<&'static str>) {
        self.state.lock().unwrap().broken = why;
    }

    pub fn slow_restores(&self, restore: Duration) {
        self.state.lock().unwrap().restore = restore;
    }

    /// The log forgets all but its newest records.
    pub fn roll_over(&self, keep: usize) {
        let mut state = self.state.lock().unwrap();
        let gone = state.log.len().saturating_sub(keep);
        state.log.drain(..gone);
    }

    fn records_after(&self, position: u64) -> Result<Vec<(u64, String)>> {
        let state = self.state.lock().unwrap();
        match state.broken {
            Some(why) => Err(Error::new(Kind::Unreachable, "reading the log", why)),
            None => Ok(state.log.iter().filter(|(at, _)| *at > position).cloned().collect()),
        }
    }

    fn record(&self, position: u64) -> Option<(u64, String)> {
        self.state.lock().unwrap().log.iter().find(|(at, _)| *at == position).cloned()
    }

    fn newest(&self) -> (u64, String) {
        self.state.lock().unwrap().log.last().cloned().expect("a brook begins with a word")
    }

    fn identity(&self) -> String {
        format!("bed of {}", self.name)
    }
}

fn bytes((at, word): &(u64, String)) -> Bytes {
    format!("{at:016x} {word}\n").into()
}

fn read(line: &str) -> (u64, String) {
    let (at, word) = line.split_once(' ').expect("a record has two parts");
    (u64::from_str_radix(at, 16).expect("a position"), word.to_owned())
}

/// The kind.
#[derive(Debug)]
pub struct Brook;

#[async_trait]
impl source::Kind for Brook {
    fn name(&self) -> &'static str {
        "brook"
    }

    fn schema(&self) -> Value {
        json!({})
    }

    fn configure(&self, name: &SourceName, _: &Node) -> Result<Box<dyn Configured>, Vec<Problem>> {
        let bed = BEDS.lock().unwrap()[name].clone();
        Ok(Box::new(System { bed }))
    }

    fn formats(&self) -> &'static [Format] {
        &[Format { name: "words", is_stream: true }, Format { name: "directory", is_stream: false }]
    }

    async fn extract(
        &self,
        from: &BackupReader,
        _: &Format,
        to: Outlet<'_>,
        task: &Task,
    ) -> Result<Vec<Extracted>> {
        let words = stored_words(from, task).await?.join("\n");
        if let Outlet::Stream(to) = to {
            tokio::io::AsyncWriteExt::write_all(to, words.as_bytes()).await.expect("a stream that takes it");
        }
        Ok(vec![Extracted { path: "words".into(), bytes: words.len() as u64, usage: "read it".into() }])
    }

    fn framing(&self) -> Framing {
        |bytes| bytes.iter().position(|byte| *byte == b'\n').map(|end| end + 1)
    }

    fn moment(&self, position: Position) -> Option<Timestamp> {
        Timestamp::from_second((position.0 >> 16) as i64).ok()
    }

    fn position_at(&self, moment: Timestamp) -> Option<Position> {
        Some(Position((moment.as_second() as u64) << 16 | 0xffff))
    }
}

async fn stored_words(from: &BackupReader, task: &Task) -> Result<Vec<String>> {
    let mut reader = from.open(from.artifact("words.txt")?, task).await?;
    let mut plain = Vec::new();
    while let Some(chunk) = reader.next().await? {
        plain.extend_from_slice(&chunk);
    }
    Ok(String::from_utf8(plain).expect("it is text").lines().map(str::to_owned).collect())
}

/// Source and target in one.
#[derive(Clone, Debug)]
struct System {
    bed: Arc<Bed>,
}

impl Configured for System {
    fn kind(&self) -> &'static str {
        "brook"
    }

    fn source(&self) -> Box<dyn Source> {
        Box::new(self.clone())
    }

    fn target(&self) -> Box<dyn Target> {
        Box::new(self.clone())
    }

    fn permissions(&self, _: Role) -> Vec<Permission> {
        Vec::new()
    }
}

impl System {
    async fn catch_up(&self, reached: &mut u64, out: &mut TimelineWriter<'_>) -> Result<()> {
        for record in self.bed.records_after(*reached)? {
            out.push(bytes(&record), Position(record.0)).await?;
            *reached = record.0;
        }
        Ok(())
    }

    async fn take_up(&self, out: &mut TimelineWriter<'_>) -> Result<u64> {
        self.bed.records_after(u64::MAX)?;
        let mut why = "the first";
        if let Some(reach) = out.resume().await? {
            match self.bed.record(reach.to.0) {
                Some(record) if reach.origin.identity == self.bed.identity() => {
                    if reach.record.is_none() {
                        out.push(bytes(&record), reach.to).await?;
                    }
                    return Ok(reach.to.0);
                }
                _ => why = "the log has rolled over",
            }
        }
        let newest = self.bed.newest();
        let (identity, record, at) = (self.bed.identity(), bytes(&newest), Position(newest.0));
        out.begin(Beginning { identity, record, at, why: why.to_owned() }).await?;
        Ok(newest.0)
    }
}

#[async_trait]
impl Source for System {
    async fn inspect(&self, _: &Task) -> Result<Inspection> {
        Ok(Inspection::default())
    }

    async fn plan_backup(&self, _: &Task) -> Result<BackupPlan> {
        Ok(BackupPlan { slices: vec![Slice { n: 0, spec: Value::Null }] })
    }

    async fn backup(&self, _: &Slice, _: &Task, out: &BackupWriter) -> Result<Capture> {
        let (words, newest) = (self.bed.words(), self.bed.newest());
        let mut artifact = out.artifact("words.txt", "text/plain")?;
        artifact.write(words.join("\n").into()).await?;
        artifact.finish().await?;
        let mut capture = Capture::default();
        capture.contents.items = words.len() as u64;
        let at = source::Kind::moment(&Brook, Position(newest.0));
        capture.consistency = Some(Consistency {
            level: Level::PointInTime,
            at,
            from: None,
            to: None,
            position: BTreeMap::new(),
        });
        capture.log = Some(LogPoint { identity: self.bed.identity(), position: Position(newest.0) });
        Ok(capture)
    }

    fn timeline(&self) -> Option<Bounds> {
        Some(Bounds { age: Duration::from_secs(20), plain_bytes: 64 << 20 })
    }

    async fn follow(&self, until: Until, task: &Task, out: &mut TimelineWriter<'_>) -> Result<()> {
        let mut reached = self.take_up(out).await?;
        loop {
            self.catch_up(&mut reached, out).await?;
            let mut ends = until == Until::Newest;
            let mut seals = ends;
            if !ends {
                tokio::select! {
                    biased;
                    () = task.cancel.cancelled() => (ends, seals) = (true, true),
                    () = out.due() => seals = true,
                    () = task.clock.sleep(Duration::from_secs(1)) => {}
                }
            }
            if seals {
                self.catch_up(&mut reached, out).await?;
                out.seal().await?;
                ends |= out.closed().await?.is_some();
            }
            if ends {
                return Ok(());
            }
        }
    }
}

#[async_trait]
impl Target for System {
    async fn identity(&self, _: &Task) -> Result<Identity> {
        Ok(Identity { id: format!("brook:{}", self.bed.name), label: self.bed.name.to_string() })
    }

    async fn plan_restore(
        &self,
        from: &BackupReader,
        at: Option<Timestamp>,
        _: &Wish,
        task: &Task,
    ) -> Result<RestorePlan> {
        let cut = at.and_then(|at| source::Kind::position_at(&Brook, at));
        if let Some(cut) = cut {
            from.log(cut, source::Kind::framing(&Brook), task).await?;
        }
        let reason = "it is asked for".to_owned();
        Ok(RestorePlan {
            backup: from.manifest.backup(),
            at,
            as_of: at.map(|at| at.to_string()).unwrap_or_default(),
            target: self.identity(task).await?,
            actions: vec![Action { verb: "load".into(), object: self.bed.name.to_string(), reason }],
            findings: Vec::new(),
            at_stake: Vec::new(),
            live: Vec::new(),
            spec: json!(cut),
        })
    }

    async fn restore(&self, from: &BackupReader, plan: &RestorePlan, task: &Task) -> Result<Restored> {
        let pause = self.bed.state.lock().unwrap().restore;
        task.clock.sleep(pause).await;
        let mut words = stored_words(from, task).await?;
        let cut: Option<Position> = serde_json::from_value(plan.spec.clone()).expect("ours");
        let mut applied = from.manifest.log_position.expect("a brook's backup is of a place in its log").0;
        if let Some(cut) = cut
            && let Some(log) = from.log(cut, source::Kind::framing(&Brook), task).await?
        {
            for segment in &log.chain.segments {
                let mut reader = log.segment(segment, task).await?;
                let mut plain = Vec::new();
                while let Some(block) = reader.next().await? {
                    plain.extend_from_slice(&block);
                }
                for (at, word) in std::str::from_utf8(&plain).expect("it is text").lines().map(read) {
                    if at > applied && at <= cut.0 {
                        words.push(word);
                        applied = at;
                    }
                }
            }
        }
        self.bed.write("restored");
        let items = words.len() as u64;
        self.bed.state.lock().unwrap().words = words;
        Ok(Restored { items, ..Restored::default() })
    }

    async fn compare(&self, _: &BackupReader, _: &Task) -> Result<Vec<Check>> {
        Ok(Vec::new())
    }

    async fn log_head(&self, _: &Task) -> Result<Option<LogPoint>> {
        let position = Position(self.bed.newest().0);
        Ok(Some(LogPoint { identity: self.bed.identity(), position }))
    }
}
