//! A kind of source that is made up: a few bytes that nobody else would write, captured slowly, restored slowly, and
//! compared with what was captured.

use std::sync::Arc;
use std::time::Duration;

use async_trait::async_trait;
use bytes::Bytes;
use jiff::Timestamp;
use serde_json::{Value, json};
use tidekeeper::config::SourceName;
use tidekeeper::config::node::{Node, Problem};
use tidekeeper::error::{Error, Kind, Result};
use tidekeeper::source::{
    self, Action, BackupPlan, Check, Configured, Extracted, Format, Identity, Inspection, Outlet, Permission,
    RestorePlan, Restored, Role, Slice, Source, Target, Wish,
};
use tidekeeper::task::Task;
use tidekeeper::vault::manifest::Omission;
use tidekeeper::vault::reader::BackupReader;
use tidekeeper::vault::writer::{BackupWriter, Capture};

use super::gate::Gate;
use super::truth::Truth;
use super::weather::Weather;

/// The kind, as one process knows it.
#[derive(Clone, Debug)]
pub struct Tide {
    pub weather: Arc<Weather>,
    pub truth: Arc<Truth>,
    pub gate: Arc<Gate>,
}

#[async_trait]
impl source::Kind for Tide {
    fn name(&self) -> &'static str {
        "tide"
    }

    fn schema(&self) -> Value {
        json!({})
    }

    fn configure(&self, name: &SourceName, _: &Node) -> Result<Box<dyn Configured>, Vec<Problem>> {
        Ok(Box::new(System { name: name.clone(), tide: self.clone() }))
    }

    fn formats(&self) -> &'static [Format] {
        &[Format { name: "native", is_stream: false }]
    }

    async fn extract(&self, _: &BackupReader, _: &Format, _: Outlet<'_>, _: &Task) -> Result<Vec<Extracted>> {
        Ok(Vec::new())
    }
}

/// One system: source and target in one.
#[derive(Clone, Debug)]
struct System {
    name: SourceName,
    tide: Tide,
}

impl Configured for System {
    fn kind(&self) -> &'static str {
        "tide"
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
    /// Most steps take seconds, some minutes.
    async fn dawdle(&self, task: &Task) -> Result<()> {
        let weather = &self.tide.weather;
        let pause = match weather.below(20) {
            0..14 => weather.seconds(0, 3),
            14..19 => weather.seconds(3, 30),
            _ => weather.seconds(30, 500),
        };
        let slept = async {
            task.clock.sleep(pause).await;
            Ok(())
        };
        task.guard(slept).await
    }

    /// Writes one artifact and tells the truth of it.
    async fn write(&self, name: &str, task: &Task, out: &BackupWriter) -> Result<()> {
        let plain = format!("{name} of {} as of {}, ", self.name, task.run).repeat(4);
        let plain = Bytes::from(plain + &self.tide.weather.below(1 << 32).to_string());
        self.tide.truth.captured(out.attempt(), name, plain.clone());
        let mut artifact = out.artifact(name, "application/octet-stream")?;
        artifact.write(plain).await?;
        self.dawdle(task).await?;
        artifact.finish().await.map(drop)
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

    async fn backup(&self, _: &Slice, task: &Task, out: &BackupWriter) -> Result<Capture> {
        let weather = &self.tide.weather;
        // In calm weather a source is well.
        let mishap = if weather.is_calm() { 100 } else { weather.below(100) };
        self.write("dump.bin", task, out).await?;
        match mishap {
            0..6 => return Err(Error::new(Kind::Unreachable, "capturing", "the source hung up")),
            6..8 => return Err(Error::new(Kind::Protocol, "capturing", "the source makes no sense")),
            8..60 => self.write("log.bin", task, out).await?,
            _ => {}
        }
        let mut capture = Capture::default();
        capture.contents.items = if (60..72).contains(&mishap) { 0 } else { 100 };
        if (72..76).contains(&mishap) {
            let (what, why) = ("one table".to_owned(), "it is locked".to_owned());
            capture.omissions.push(Omission { what, why });
        }
        Ok(capture)
    }
}

#[async_trait]
impl Target for System {
    async fn identity(&self, _: &Task) -> Result<Identity> {
        Ok(Identity { id: format!("tide:{}", self.name), label: self.name.to_string() })
    }

    async fn plan_restore(
        &self,
        from: &BackupReader,
        at: Option<Timestamp>,
        _: &Wish,
        task: &Task,
    ) -> Result<RestorePlan> {
        let _reading = self.tide.truth.reads(&from.manifest.backup(), task, &self.tide.gate);
        self.dawdle(task).await?;
        let load =
            Action { verb: "load".into(), object: self.name.to_string(), reason: "it is asked for".into() };
        Ok(RestorePlan {
            backup: from.manifest.backup(),
            at,
            as_of: String::new(),
            target: self.identity(task).await?,
            actions: vec![load],
            findings: Vec::new(),
            at_stake: Vec::new(),
            live: Vec::new(),
            spec: Value::Null,
        })
    }

    async fn restore(&self, from: &BackupReader, plan: &RestorePlan, task: &Task) -> Result<Restored> {
        let truth = &self.tide.truth;
        let _reading = truth.reads(&from.manifest.backup(), task, &self.tide.gate);
        let _loading = truth.loads(&plan.target.id, task, &self.tide.gate);
        let mut restored = Restored { items: from.manifest.contents.items, ..Restored::default() };
        for artifact in &from.manifest.artifacts {
            self.dawdle(task).await?;
            let mut plain = Vec::new();
            let read = async {
                let mut reader = from.open(artifact, task).await?;
                while let Some(chunk) = reader.next().await? {
                    plain.extend_from_slice(&chunk);
                }
                Ok(())
            };
            let read: Result<()> = read.await;
            truth.restored(&from.manifest, &artifact.name, read.as_ref().map(|()| plain.as_slice()));
            read?;
            restored.bytes += plain.len() as u64;
        }
        self.tide.weather.count("restores that read all");
        Ok(restored)
    }

    async fn compare(&self, _: &BackupReader, _: &Task) -> Result<Vec<Check>> {
        Ok(Vec::new())
    }
}

/// How long a run of these may take.
pub const DEADLINE: Duration = Duration::from_secs(20 * 60);
