//! A store around another that fails, delays, cuts or forgets to answer, exactly where a test says.
//!
//! Every call passes a [`Hook`] before it acts and after it has acted. A [`Plan`] is the hook for tests: 'the third
//! `put_part` is torn'. A simulation brings its own, which may yield, crash or fail at every call of every process.
//! Nothing here is random: the same plan and the same calls give the same faults.

use std::collections::BTreeMap;
use std::fmt::Debug;
use std::ops::Range;
use std::sync::{Arc, Mutex, MutexGuard};
use std::time::Duration;

use async_trait::async_trait;
use bytes::Bytes;
use futures_util::StreamExt;
use futures_util::stream::{self, BoxStream};
use jiff::Timestamp;

use super::{Create, Entry, Key, OpenUpload, Page, Part, SharedStore, Store, Upload};
use crate::clock::SharedClock;
use crate::error::{Error, Kind, Result};
use crate::finding::Finding;

/// The calls of [`Store`] and [`Upload`].
#[allow(missing_docs)]
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Method {
    Create,
    BeginUpload,
    PutPart,
    Finish,
    Abort,
    Get,
    Read,
    Stat,
    List,
    Delete,
    OpenUploads,
    AbortUpload,
    Now,
    Inspect,
}

impl Method {
    /// All of them, so that a test can fail each in turn.
    pub const ALL: [Method; 14] = [
        Method::Create,
        Method::BeginUpload,
        Method::PutPart,
        Method::Finish,
        Method::Abort,
        Method::Get,
        Method::Read,
        Method::Stat,
        Method::List,
        Method::Delete,
        Method::OpenUploads,
        Method::AbortUpload,
        Method::Now,
        Method::Inspect,
    ];
}

/// One call, as hooks and the log see it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Call {
    /// Which method.
    pub method: Method,
    /// The how-manieth call of this method it is, from 1.
    pub nth: u64,
    /// The key, or the prefix; empty where the call has none.
    pub of: String,
}

impl Call {
    fn fail(&self, kind: Kind) -> Error {
        let doing = format!("{:?} {} (call {})", self.method, self.of, self.nth);
        Error::new(kind, doing, "this failure was planned")
    }
}

/// What a hook decides before a call acts.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Before {
    /// Let it act.
    Pass,
    /// Fail without acting.
    Fail(Kind),
    /// Let it act on its first bytes only: a read's stream breaks after so many; of a part so many arrive, and it fails.
    Cut(u64),
}

/// Sees every call. Both methods may wait, so a simulation can hold, interleave or end its processes here.
#[async_trait]
pub trait Hook: Debug + Send + Sync {
    /// Before the call acts.
    async fn before(&self, call: &Call) -> Before;

    /// After it acted, successfully or not (`ok`): with a kind, its reply is lost and that error comes instead.
    async fn after(&self, call: &Call, ok: bool) -> Option<Kind>;
}

/// A fault that a [`Plan`] holds for one call.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Fault {
    /// Fails without having acted.
    Before(Kind),
    /// Fails though it has acted: the reply is lost.
    After(Kind),
    /// Takes so much longer.
    Delay(Duration),
    /// Breaks off after so many bytes: see [`Before::Cut`].
    Cut(u64),
}

/// Which call has which fault.
#[derive(Debug)]
pub struct Plan {
    clock: SharedClock,
    faults: Mutex<BTreeMap<(Method, u64), Fault>>,
}

impl Plan {
    /// A plan without faults; delays are of `clock`.
    pub fn new(clock: SharedClock) -> Arc<Self> {
        Arc::new(Plan { clock, faults: Mutex::default() })
    }

    /// The `nth` call (from 1) of `method` has this fault.
    pub fn on(&self, method: Method, nth: u64, fault: Fault) {
        locked(&self.faults).insert((method, nth), fault);
    }

    fn fault(&self, call: &Call) -> Option<Fault> {
        locked(&self.faults).get(&(call.method, call.nth)).copied()
    }
}

#[async_trait]
impl Hook for Plan {
    async fn before(&self, call: &Call) -> Before {
        match self.fault(call) {
            Some(Fault::Before(kind)) => Before::Fail(kind),
            Some(Fault::Cut(bytes)) => Before::Cut(bytes),
            Some(Fault::Delay(duration)) => {
                self.clock.sleep(duration).await;
                Before::Pass
            }
            Some(Fault::After(_)) | None => Before::Pass,
        }
    }

    async fn after(&self, call: &Call, _ok: bool) -> Option<Kind> {
        match self.fault(call) {
            Some(Fault::After(kind)) => Some(kind),
            _ => None,
        }
    }
}

/// The store around the store. Clones are the same store, with the same counts.
#[derive(Clone, Debug)]
pub struct Faults {
    inner: SharedStore,
    hook: Arc<dyn Hook>,
    log: Arc<Mutex<Log>>,
}

/// What was called so far.
#[derive(Debug, Default)]
struct Log {
    calls: Vec<Call>,
    counts: BTreeMap<Method, u64>,
}

impl Faults {
    /// `inner`, with every call passing `hook`.
    pub fn around(inner: SharedStore, hook: Arc<dyn Hook>) -> Self {
        Faults { inner, hook, log: Arc::default() }
    }

    /// Every call so far, in the order in which they began.
    pub fn calls(&self) -> Vec<Call> {
        locked(&self.log).calls.clone()
    }

    /// How often a method was called so far.
    pub fn count(&self, method: Method) -> u64 {
        locked(&self.log).counts.get(&method).copied().unwrap_or_default()
    }

    fn record(&self, method: Method, of: &str) -> Call {
        let mut log = locked(&self.log);
        let count = log.counts.entry(method).or_default();
        *count += 1;
        let call = Call { method, nth: *count, of: of.to_owned() };
        log.calls.push(call.clone());
        call
    }

    /// Passes one call: `act` gets the number of bytes after which it is to break off, if it is.
    async fn pass<T, F>(&self, method: Method, of: &str, act: impl FnOnce(Option<u64>) -> F) -> Result<T>
    where
        F: Future<Output = Result<T>> + Send,
    {
        let call = self.record(method, of);
        let cut = match self.hook.before(&call).await {
            Before::Fail(kind) => return Err(call.fail(kind)),
            Before::Pass => None,
            Before::Cut(bytes) => Some(bytes),
        };
        let done = act(cut).await;
        match self.hook.after(&call, done.is_ok()).await {
            Some(kind) => Err(call.fail(kind)),
            None => done,
        }
    }
}

#[async_trait]
impl Store for Faults {
    fn location(&self) -> String {
        self.inner.location()
    }

    async fn create(&self, key: &Key, body: Bytes) -> Result<Create> {
        self.pass(Method::Create, key.as_str(), |_| self.inner.create(key, body)).await
    }

    async fn begin_upload(&self, key: &Key) -> Result<Box<dyn Upload>> {
        let inner = self.pass(Method::BeginUpload, key.as_str(), |_| self.inner.begin_upload(key)).await?;
        Ok(Box::new(FaultyUpload { store: self.clone(), key: key.clone(), inner }))
    }

    async fn get(&self, key: &Key) -> Result<Option<Bytes>> {
        self.pass(Method::Get, key.as_str(), |_| self.inner.get(key)).await
    }

    async fn read(&self, key: &Key, range: Range<u64>) -> Result<BoxStream<'static, Result<Bytes>>> {
        self.pass(Method::Read, key.as_str(), async |cut| {
            let whole = self.inner.read(key, range).await?;
            Ok(match cut {
                Some(bytes) => break_after(bytes, whole, key),
                None => whole,
            })
        })
        .await
    }

    async fn stat(&self, key: &Key) -> Result<Option<Entry>> {
        self.pass(Method::Stat, key.as_str(), |_| self.inner.stat(key)).await
    }

    async fn list(&self, prefix: &str, after: Option<&Key>) -> Result<Page> {
        self.pass(Method::List, prefix, |_| self.inner.list(prefix, after)).await
    }

    async fn delete(&self, key: &Key) -> Result<()> {
        self.pass(Method::Delete, key.as_str(), |_| self.inner.delete(key)).await
    }

    async fn open_uploads(&self, prefix: &str) -> Result<Vec<OpenUpload>> {
        self.pass(Method::OpenUploads, prefix, |_| self.inner.open_uploads(prefix)).await
    }

    async fn abort_upload(&self, upload: &OpenUpload) -> Result<()> {
        self.pass(Method::AbortUpload, upload.key.as_str(), |_| self.inner.abort_upload(upload)).await
    }

    async fn now(&self) -> Result<Timestamp> {
        self.pass(Method::Now, "", |_| self.inner.now()).await
    }

    async fn inspect(&self) -> Result<Vec<Finding>> {
        self.pass(Method::Inspect, "", |_| self.inner.inspect()).await
    }
}

struct FaultyUpload {
    store: Faults,
    key: Key,
    inner: Box<dyn Upload>,
}

#[async_trait]
impl Upload for FaultyUpload {
    async fn put_part(&self, number: u32, part: Part) -> Result<()> {
        self.store
            .pass(Method::PutPart, self.key.as_str(), async |cut| {
                let Some(bytes) = cut else { return self.inner.put_part(number, part).await };
                self.inner.put_part(number, beginning(part, bytes)).await?;
                Err(broken(&self.key, bytes))
            })
            .await
    }

    async fn finish(&self) -> Result<Create> {
        self.store.pass(Method::Finish, self.key.as_str(), |_| self.inner.finish()).await
    }

    async fn abort(&self) -> Result<()> {
        self.store.pass(Method::Abort, self.key.as_str(), |_| self.inner.abort()).await
    }
}

/// The first `bytes` of a part: what arrived before the connection broke.
fn beginning(part: Part, bytes: u64) -> Part {
    match part {
        Part::Bytes(body) => Part::Bytes(body.slice(..body.len().min(bytes as usize))),
        Part::File { file, offset, len } => Part::File { file, offset, len: len.min(bytes) },
    }
}

/// A stream that yields `bytes` of `whole` and then the error of a broken connection.
fn break_after(
    bytes: u64,
    whole: BoxStream<'static, Result<Bytes>>,
    key: &Key,
) -> BoxStream<'static, Result<Bytes>> {
    let key = key.clone();
    let head = whole.scan(bytes, |left, chunk| {
        let chunk = chunk.map(|mut chunk| chunk.split_to(chunk.len().min(*left as usize)));
        *left -= chunk.as_ref().map_or(0, |chunk| chunk.len() as u64);
        std::future::ready(Some(chunk))
    });
    let head =
        head.take_while(|chunk| std::future::ready(chunk.as_ref().map_or(true, |chunk| !chunk.is_empty())));
    head.chain(stream::once(async move { Err(broken(&key, bytes)) })).boxed()
}

fn broken(key: &Key, after: u64) -> Error {
    let why = format!("the connection broke after {after} bytes, as planned");
    Error::new(Kind::Unreachable, format!("transferring {key}"), why)
}

fn locked<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().expect("no holder panics")
}
