//! Restores by `RESTORE` commands: walks the RDBs, and hands what the encoder makes of them to the pipeline.

use std::time::Duration;

use super::connection::Connection;
use super::estate::Estate;
use super::feed::read_ahead;
use super::glob::Pattern;
use super::pipeline::encode::{Encoder, Rules, Skipped};
use super::pipeline::{Pipeline, count_and_names};
use super::plan::Spec;
use super::rdb::Walker;
use super::reply::Reply;
use super::survey::{Shard, Survey};
use crate::error::Result;
use crate::source::Restored;
use crate::task::Task;
use crate::vault::manifest::Omission;
use crate::vault::reader::BackupReader;

/// Emptying a server, or compiling a library, is one command, and takes as long as it takes.
const SLOW: Duration = Duration::from_secs(600);

/// The walker gets so much at once, so that what the encoder makes of it stays small too.
const PIECE: usize = 64 << 10;

/// A restore by commands: one connection to each master for the keys, another for everything else.
pub struct Restorer<'a> {
    /// The backup.
    pub from: &'a BackupReader,
    /// What is in it.
    pub survey: &'a Survey,
    /// Into which servers.
    pub estate: &'a Estate,
    /// What is wanted.
    pub spec: &'a Spec,
    /// On whose behalf.
    pub task: &'a Task,
}

impl Restorer<'_> {
    /// Empties the target where everything is restored, and brings the keys.
    pub async fn run(&self, mut control: Vec<Connection>, lanes: Vec<Connection>) -> Result<Restored> {
        if self.spec.keys.is_none() && !self.estate.server.is_empty() {
            self.task.step("empty");
            self.task.guard(self.empty(&mut control)).await?;
        }
        self.task.step("restore");
        let total: u64 = self.survey.shards.iter().map(|shard| shard.artifact.plain.bytes).sum();
        self.task.progress.set_total(total);
        let links = lanes.into_iter().map(Connection::into_link).collect();
        let mut pipeline = Pipeline::start(links, &self.task.clock, &self.task.progress);
        let mut omissions = Vec::new();
        for shard in &self.survey.shards {
            let sent = self.send(shard, &mut pipeline, &mut control);
            omissions.extend(self.task.guard(sent).await?);
        }
        let tally = self.task.guard(pipeline.finish()).await?;
        omissions.extend(tally.omissions());
        omissions.extend(self.never_sent());
        let selected = self.spec.keys.is_some();
        if let Some(keys) = self.spec.keys.as_ref().filter(|_| tally.restored == 0 && omissions.is_empty()) {
            let why = "the backup has none, or the time of all of them has come".to_owned();
            omissions.push(Omission { what: format!("keys that match {keys}"), why });
        }
        Ok(Restored { items: tally.restored, bytes: total, selected, omissions, ..Restored::default() })
    }

    async fn empty(&self, control: &mut [Connection]) -> Result<()> {
        for link in control {
            slow(link, &[b"FLUSHALL"]).await?.map_err(|text| link.refusal("FLUSHALL", &text))?;
            if self.estate.server.libraries > 0 {
                slow(link, &[b"FUNCTION", b"FLUSH"])
                    .await?
                    .map_err(|text| link.refusal("FUNCTION", &text))?;
            }
        }
        Ok(())
    }

    /// Walks one RDB and sends what the encoder makes of it.
    async fn send(
        &self,
        shard: &Shard,
        pipeline: &mut Pipeline,
        control: &mut [Connection],
    ) -> Result<Vec<Omission>> {
        let rules = self.rules(shard);
        let mut encoder = Encoder::new(&rules, &self.estate.slots, &shard.long_values);
        let mut omissions = Vec::new();
        let mut walker = Walker::new();
        let mut feed = read_ahead(self.from.open(&shard.artifact, self.task).await?);
        while let Some(chunk) = feed.recv().await {
            let chunk = chunk?;
            for piece in chunk.chunks(PIECE) {
                walker.feed(piece, &mut encoder)?;
                flush(&mut encoder, pipeline).await?;
                for library in std::mem::take(&mut encoder.functions) {
                    omissions.extend(load_function(control, &library).await?);
                }
            }
            self.task.progress.add_bytes(chunk.len() as u64);
        }
        walker.finish()?;
        encoder.close();
        flush(&mut encoder, pipeline).await?;
        omissions.extend(too_long(&encoder.skipped));
        Ok(omissions)
    }

    fn rules(&self, shard: &Shard) -> Rules {
        let (server, summary) = (&self.estate.server, &shard.summary);
        Rules {
            keys: self.spec.keys.as_deref().map(Pattern::new),
            replace: self.spec.replace,
            now_ms: self.task.clock.now().as_millisecond(),
            payload_version: server.payload_version(summary.dialect, summary.version),
            bulk_max: server.bulk_max,
        }
    }

    /// What commands cannot bring, whatever the target says.
    fn never_sent(&self) -> Vec<Omission> {
        if self.spec.keys.is_some() {
            return Vec::new();
        }
        let summaries = || self.survey.shards.iter().map(|shard| &shard.summary);
        let beside = summaries().flat_map(|summary| &summary.modules).filter(|(_, used)| used.values == 0);
        let beside = beside.map(|(module, _)| Omission {
            what: format!("what the module type {module} keeps beside the keys"),
            why: "RESTORE commands bring keys only".to_owned(),
        });
        let functions = summaries().map(|summary| summary.pre_release_functions).max().unwrap_or_default();
        let functions = (functions > 0).then(|| Omission {
            what: format!("{functions} functions"),
            why: "they are written as only pre-releases of 7.0 did".to_owned(),
        });
        beside.chain(functions).collect()
    }
}

async fn flush(encoder: &mut Encoder<'_>, pipeline: &mut Pipeline) -> Result<()> {
    while let Some((server, batch)) = encoder.ready.pop_front() {
        pipeline.send(server, batch).await?;
    }
    Ok(())
}

/// Loads a library into each master.
async fn load_function(control: &mut [Connection], library: &[u8]) -> Result<Option<Omission>> {
    for link in control {
        if let Err(why) = slow(link, &[b"FUNCTION", b"LOAD", b"REPLACE", library]).await? {
            let head = library.split(|byte| *byte == b'\n').next().unwrap_or_default();
            let what = format!("function library {}", head.escape_ascii());
            return Ok(Some(Omission { what, why }));
        }
    }
    Ok(None)
}

fn too_long(skipped: &Skipped) -> Option<Omission> {
    (skipped.too_long > 0).then(|| Omission {
        what: count_and_names(skipped.too_long, &skipped.too_long_keys),
        why:
            "longer than the target takes in one command (proto-max-bulk-len): replicate, or extract the RDB"
                .to_owned(),
    })
}

/// Sends a command that may take long; the inner error is the server's.
async fn slow(link: &mut Connection, words: &[&[u8]]) -> Result<Result<(), String>> {
    let name = String::from_utf8_lossy(words[0]).into_owned();
    let mut wire = format!("*{}\r\n", words.len()).into_bytes();
    for word in words {
        wire.extend_from_slice(format!("${}\r\n", word.len()).as_bytes());
        wire.extend_from_slice(word);
        wire.extend_from_slice(b"\r\n");
    }
    link.send(&name, &wire).await?;
    Ok(match link.reply(&name, SLOW).await? {
        Reply::Error(text) => Err(text),
        _ => Ok(()),
    })
}
