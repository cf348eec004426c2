//! Objects in an S3 bucket, or in a server that speaks S3 and enforces `If-None-Match`.
//!
//! What a call may do when no answer comes decides everything here. Reading, listing, deleting and storing a part can be
//! repeated, so they are: [`TRIES`] times, with a doubling pause. A conditional create is tried once; without an answer
//! it is `Undecided`, and [`decide`](crate::vault::decide) asks again and recognises its own object. Completing an upload
//! is repeated, because the store forgets an upload that it has completed: then the key is there, and the answer is
//! `Exists`.
//! No call waits for ever: each has a limit by the clock, counted up with the bytes that it moves. A download whose answer
//! has begun is its reader's, as with every store: [`fetch`](crate::vault::codec::download::fetch) watches it and goes on
//! where it was cut.

use std::future::Future;
use std::ops::Range;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use async_trait::async_trait;
use aws_config::SdkConfig;
use aws_sdk_s3::Client;
use aws_sdk_s3::primitives::ByteStream;
use aws_sdk_s3::types::{ObjectLockMode, ServerSideEncryption};
use bytes::Bytes;
use futures_util::stream::{self, BoxStream};
use futures_util::{StreamExt, TryStreamExt};
use jiff::Timestamp;
use tokio::sync::Semaphore;

use self::errors::{Effect, failed};
use self::upload::S3Upload;
use super::{Create, Entry, Key, OpenUpload, Page, SMALL_OBJECT_MAX, Store, Upload};
use crate::aws;
use crate::clock::{SharedClock, aloud};
use crate::config::S3Place;
use crate::error::{Error, Kind, Result};
use crate::finding::Finding;

mod errors;
mod settings;
mod upload;

/// How often a call that can be repeated is made before its error is passed on; with the pauses below that is about 6 s
/// of waiting, which outlasts a fail-over and S3's own `SlowDown`.
const TRIES: u32 = 6;
const FIRST_PAUSE: Duration = Duration::from_millis(200);

/// How many small objects are read at the same time: enough to hide 50 ms of latency at 1,000 objects a second, few
/// enough not to be throttled.
const GETS_IN_FLIGHT: usize = 64;

/// How often it is told that no answer comes: a listing waits with many calls at once.
const TOLD_EVERY_S: u64 = 60;

/// How long a call may take that moves nothing, and the slowest transfer that still counts as one.
const LIMIT: Duration = Duration::from_secs(30);
const SLOWEST_BYTES_PER_S: u64 = 64 << 10;

/// A prefix in a bucket. Clones are the same store.
#[derive(Clone, Debug)]
pub struct S3Store(Arc<Bucket>);

#[derive(Debug)]
struct Bucket {
    client: Client,
    place: S3Place,
    clock: SharedClock,
    gets: Semaphore,
    /// When it was last told that no answer comes, in seconds of the monotonic clock; 0: never.
    told: AtomicU64,
}

impl S3Store {
    /// The store at `place`, with the credentials of the usual chain. No request is sent to it yet.
    pub async fn connect(place: &S3Place, clock: SharedClock) -> Self {
        let region = place.region.as_deref();
        let config = match place.endpoint {
            Some(_) => aws::config_for_custom_endpoint(region).await,
            None => aws::config(region).await,
        };
        Self::with_config(place, &config, clock)
    }

    /// The same with credentials and region that the caller chose.
    pub fn with_config(place: &S3Place, config: &SdkConfig, clock: SharedClock) -> Self {
        let mut config = aws_sdk_s3::config::Builder::from(config).force_path_style(place.path_style);
        if let Some(endpoint) = &place.endpoint {
            config = config.endpoint_url(endpoint);
        }
        S3Store(Arc::new(Bucket {
            client: Client::from_conf(config.build()),
            place: place.clone(),
            clock,
            gets: Semaphore::new(GETS_IN_FLIGHT),
            told: AtomicU64::new(0),
        }))
    }

    /// The name of `key` in the bucket.
    fn name(&self, key: &Key) -> String {
        self.0.place.name(key.as_str())
    }

    /// Makes one call, which must answer within the limit for moving `bytes`.
    async fn once<T>(
        &self,
        doing: &str,
        effect: Effect,
        bytes: u64,
        call: impl Future<Output = Result<T>>,
    ) -> Result<T> {
        let limit = LIMIT + Duration::from_secs(bytes / SLOWEST_BYTES_PER_S);
        tokio::select! {
            done = call => done,
            () = self.0.clock.sleep(limit) => Err(errors::unanswered(doing, effect, limit)),
        }
    }

    /// As [`persist`](Self::persist), for what is answered in a moment: where it is not, one of all who wait says so.
    async fn repeat<T, F>(&self, doing: &str, bytes: u64, call: impl Fn() -> F) -> Result<T>
    where
        F: Future<Output = Result<T>>,
    {
        let tell = || {
            let (now, last) = (self.0.clock.monotonic().as_secs(), self.0.told.load(Ordering::Relaxed));
            let due = last == 0 || now >= last + TOLD_EVERY_S;
            if due && self.0.told.compare_exchange(last, now, Ordering::Relaxed, Ordering::Relaxed).is_ok() {
                tracing::warn!(doing, "the vault has not answered yet; waiting, and asking again");
            }
        };
        aloud(&*self.0.clock, self.persist(doing, bytes, call), tell).await
    }

    /// Makes a call that can be repeated, until it succeeds, fails for good, or [`TRIES`] are over.
    async fn persist<T, F>(&self, doing: &str, bytes: u64, call: impl Fn() -> F) -> Result<T>
    where
        F: Future<Output = Result<T>>,
    {
        let mut pause = FIRST_PAUSE;
        for _ in 1..TRIES {
            match self.once(doing, Effect::None, bytes, call()).await {
                Err(error) if error.is_retryable() => tracing::debug!(?error, "trying again"),
                outcome => return outcome,
            }
            self.pause(&mut pause).await;
        }
        self.once(doing, Effect::None, bytes, call()).await
    }

    /// Waits between a half and the whole of `pause`, so that many who failed at once do not come back at once; then doubles it.
    async fn pause(&self, pause: &mut Duration) {
        let spread = getrandom::u32().map_or(1.0, |random| f64::from(random) / f64::from(u32::MAX));
        self.0.clock.sleep(pause.mul_f64(0.5 + spread / 2.0)).await;
        *pause *= 2;
    }
}

impl S3Place {
    /// The name that `key` (or a prefix of keys) has in the bucket.
    fn name(&self, key: &str) -> String {
        match self.prefix.as_str() {
            "" => key.to_owned(),
            prefix => format!("{prefix}/{key}"),
        }
    }

    /// The key of a name in the bucket; `None` for names that are no keys of ours.
    fn key(&self, name: &str) -> Option<Key> {
        let key = match self.prefix.as_str() {
            "" => name,
            prefix => name.strip_prefix(prefix)?.strip_prefix('/')?,
        };
        Key::is_valid(key).then(|| Key::new(key))
    }

    fn encryption(&self) -> Option<ServerSideEncryption> {
        self.kms_key.is_some().then_some(ServerSideEncryption::AwsKms)
    }

    fn bucket_key(&self) -> Option<bool> {
        self.kms_key.is_some().then_some(true)
    }

    /// The lock for an object that is created `now`: only what makes up a backup is locked. Markers, runs and probes have to go.
    fn lock(&self, key: &Key, now: Timestamp) -> Option<Lock> {
        let backup = ["manifests/", "data/", "timelines/"].iter().any(|room| key.as_str().starts_with(room));
        let lock = self.object_lock.filter(|_| backup)?;
        let mode = if lock.compliance { ObjectLockMode::Compliance } else { ObjectLockMode::Governance };
        let until = now.as_second().saturating_add(i64::try_from(lock.keep.as_secs()).unwrap_or(i64::MAX));
        Some(Lock { mode, until: aws_sdk_s3::primitives::DateTime::from_secs(until) })
    }
}

#[derive(Clone)]
struct Lock {
    mode: ObjectLockMode,
    until: aws_sdk_s3::primitives::DateTime,
}

#[async_trait]
impl Store for S3Store {
    fn location(&self) -> String {
        match self.0.place.prefix.as_str() {
            "" => format!("s3://{}", self.0.place.bucket),
            prefix => format!("s3://{}/{prefix}", self.0.place.bucket),
        }
    }

    async fn create(&self, key: &Key, body: Bytes) -> Result<Create> {
        let doing = format!("creating {key} in {}", self.location());
        let (place, len) = (&self.0.place, body.len() as u64);
        let lock = place.lock(key, self.0.clock.now());
        let put = self
            .0
            .client
            .put_object()
            .bucket(&place.bucket)
            .key(self.name(key))
            .if_none_match("*")
            .set_server_side_encryption(place.encryption())
            .set_ssekms_key_id(place.kms_key.clone())
            .set_bucket_key_enabled(place.bucket_key())
            .set_object_lock_mode(lock.clone().map(|lock| lock.mode))
            .set_object_lock_retain_until_date(lock.map(|lock| lock.until))
            .body(ByteStream::from(body));
        let call = async {
            match put.send().await {
                Ok(_) => Ok(Create::Created),
                Err(error) if errors::is_taken(&error) => Ok(Create::Exists),
                Err(error) => Err(failed(&doing, error, Effect::Creates)),
            }
        };
        self.once(&doing, Effect::Creates, len, call).await
    }

    async fn begin_upload(&self, key: &Key) -> Result<Box<dyn Upload>> {
        Ok(Box::new(S3Upload::begin(self, key).await?))
    }

    async fn get(&self, key: &Key) -> Result<Option<Bytes>> {
        let doing = format!("reading {key} in {}", self.location());
        let _permit = self.0.gets.acquire().await.expect("never closed");
        self.repeat(&doing, SMALL_OBJECT_MAX, || self.get_once(&doing, key)).await
    }

    async fn read(&self, key: &Key, range: Range<u64>) -> Result<BoxStream<'static, Result<Bytes>>> {
        let doing = format!("reading {key} in {}", self.location());
        if range.is_empty() {
            return Err(Error::new(Kind::Damaged, doing, format!("range {range:?}")));
        }
        let body = self.repeat(&doing, 0, || self.read_once(&doing, key, &range)).await?;
        // The chunks are those of hyper's buffer, which does not grow to 1 MiB.
        let chunks = stream::unfold(body, |mut body| async { Some((body.next().await?, body)) });
        let cut = move |cause| Error::new(Kind::Unreachable, &doing, format!("cut off: {cause}"));
        Ok(chunks.map_err(cut).boxed())
    }

    async fn stat(&self, key: &Key) -> Result<Option<Entry>> {
        let doing = format!("looking at {key} in {}", self.location());
        let found = self
            .repeat(&doing, 0, || async {
                let head = self.0.client.head_object().bucket(&self.0.place.bucket).key(self.name(key));
                match head.send().await {
                    Ok(head) => Ok(Some((head.content_length(), head.last_modified().copied()))),
                    Err(error) if errors::status(&error) == Some(404) => Ok(None),
                    Err(error) => Err(failed(&doing, error, Effect::None)),
                }
            })
            .await?;
        let Some((size, modified)) = found else {
            // The answer to HEAD has no body: a missing bucket looks like a missing object. A listing tells them apart.
            return self.list(key.as_str(), None).await.map(|_| None);
        };
        entry(key.clone(), size, modified.as_ref(), &doing).map(Some)
    }

    async fn list(&self, prefix: &str, after: Option<&Key>) -> Result<Page> {
        let mut after = after.map(|key| self.name(key));
        let doing = format!("listing {prefix} in {}", self.location());
        loop {
            let page = self.repeat(&doing, 1 << 20, || self.list_once(&doing, prefix, after.clone())).await?;
            // A page of nothing but names that are no keys would not tell the caller where to go on.
            match page {
                (page, Some(last)) if page.entries.is_empty() && page.more => after = Some(last),
                (page, _) => return Ok(page),
            }
        }
    }

    async fn delete(&self, key: &Key) -> Result<()> {
        let doing = format!("deleting {key} in {}", self.location());
        self.repeat(&doing, 0, || async {
            let delete = self.0.client.delete_object().bucket(&self.0.place.bucket).key(self.name(key));
            match delete.send().await {
                Ok(_) => Ok(()),
                Err(error) if errors::code(&error) == Some("NoSuchKey") => Ok(()),
                Err(error) => Err(failed(&doing, error, Effect::None)),
            }
        })
        .await
    }

    async fn open_uploads(&self, prefix: &str) -> Result<Vec<OpenUpload>> {
        upload::open(self, prefix).await
    }

    async fn abort_upload(&self, open: &OpenUpload) -> Result<()> {
        upload::abort(self, &open.key, &open.id).await
    }

    /// The `Date` of an answer. The SDK hands out an answer's headers only with an error, so an object is asked for that
    /// nobody ever creates.
    async fn now(&self) -> Result<Timestamp> {
        let doing = format!("asking {} for the time", self.location());
        self.repeat(&doing, 0, || async {
            let nowhere = self.0.place.name("probes/now");
            let head = self.0.client.head_object().bucket(&self.0.place.bucket).key(nowhere);
            let Err(error) = head.send().await else {
                return Err(Error::new(Kind::Protocol, &doing, "an object is where nobody creates one"));
            };
            match errors::date(&error) {
                Some(date) => Ok(date),
                None => Err(failed(&doing, error, Effect::None)),
            }
        })
        .await
    }

    async fn inspect(&self) -> Result<Vec<Finding>> {
        settings::inspect(self).await
    }
}

impl S3Store {
    async fn get_once(&self, doing: &str, key: &Key) -> Result<Option<Bytes>> {
        let get = self.0.client.get_object().bucket(&self.0.place.bucket).key(self.name(key));
        let object = match get.send().await {
            Ok(object) => object,
            Err(error) if errors::code(&error) == Some("NoSuchKey") => return Ok(None),
            Err(error) => return Err(failed(doing, error, Effect::None)),
        };
        let size = object.content_length().unwrap_or(0);
        if size > SMALL_OBJECT_MAX as i64 {
            let why = format!("{size} bytes, where a small object was expected");
            return Err(Error::new(Kind::Damaged, doing, why));
        }
        let body = object.body.collect().await;
        let body = body.map_err(|cause| Error::new(Kind::Unreachable, doing, format!("cut off: {cause}")))?;
        Ok(Some(body.into_bytes()))
    }

    /// The body of one answer; that it ends too early is an error of the body's.
    async fn read_once(&self, doing: &str, key: &Key, range: &Range<u64>) -> Result<ByteStream> {
        let bytes = format!("bytes={}-{}", range.start, range.end - 1);
        let wanted = (range.end - range.start) as i64;
        let get = self.0.client.get_object().bucket(&self.0.place.bucket).key(self.name(key));
        match get.range(&bytes).send().await {
            Ok(object) if object.content_length() == Some(wanted) => Ok(object.body),
            Ok(object) => {
                let sent = object.content_length().unwrap_or(0);
                let why = format!("{bytes}: the store has {sent} of {wanted} bytes");
                Err(Error::new(Kind::Damaged, doing, why))
            }
            Err(error) if errors::status(&error) == Some(416) => {
                let why = format!("{bytes} lies past the end of the object");
                Err(Error::new(Kind::Damaged, doing, why).caused_by(error))
            }
            Err(error) => Err(failed(doing, error, Effect::None)),
        }
    }

    /// One page, and the last name on it, key or not.
    async fn list_once(
        &self,
        doing: &str,
        prefix: &str,
        after: Option<String>,
    ) -> Result<(Page, Option<String>)> {
        let place = &self.0.place;
        let list = self.0.client.list_objects_v2().bucket(&place.bucket).prefix(place.name(prefix));
        let listed = list.set_start_after(after).max_keys(1_000).send().await;
        let listed = listed.map_err(|error| failed(doing, error, Effect::None))?;
        let mut page = Page { entries: Vec::new(), more: listed.is_truncated().unwrap_or(false) };
        for object in listed.contents() {
            if let Some(key) = object.key().and_then(|name| place.key(name)) {
                page.entries.push(entry(key, object.size(), object.last_modified(), doing)?);
            }
        }
        let last = listed.contents().last().and_then(|object| object.key()).map(str::to_owned);
        Ok((page, last))
    }
}

fn entry(
    key: Key,
    size: Option<i64>,
    modified: Option<&aws_sdk_s3::primitives::DateTime>,
    doing: &str,
) -> Result<Entry> {
    let modified = modified.and_then(timestamp);
    match (size.and_then(|size| u64::try_from(size).ok()), modified) {
        (Some(size), Some(modified)) => Ok(Entry { key, size, modified }),
        _ => Err(Error::new(Kind::Protocol, doing, format!("the store does not tell size and age of {key}"))),
    }
}

fn timestamp(time: &aws_sdk_s3::primitives::DateTime) -> Option<Timestamp> {
    Timestamp::new(time.secs(), time.subsec_nanos() as i32).ok()
}
