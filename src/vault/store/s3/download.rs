//! A ranged read that goes on where it was cut.

use std::ops::Range;

use aws_sdk_s3::primitives::ByteStream;
use bytes::Bytes;
use futures_util::StreamExt;
use futures_util::stream::{self, BoxStream};

use super::errors::{self, Effect, failed};
use super::{FIRST_PAUSE, LIMIT, S3Store, TRIES};
use crate::error::{Error, Kind, Result};
use crate::vault::store::{Key, Store};

/// The longest chunk that is handed out.
const CHUNK: usize = 1 << 20;

/// Streams `range` of an object; the first answer has come when this returns.
pub(super) async fn stream(
    store: S3Store,
    key: &Key,
    range: Range<u64>,
) -> Result<BoxStream<'static, Result<Bytes>>> {
    let doing = format!("reading {key} in {}", store.location());
    if range.is_empty() {
        return Err(Error::new(Kind::Damaged, doing, format!("range {range:?}")));
    }
    let mut download =
        Download { store, key: key.clone(), doing, left: range, body: None, rest: Bytes::new() };
    download.body = Some(download.open().await?);
    let chunks = stream::unfold(Some(download), |download| async {
        let mut download = download?;
        let chunk = download.next().await.transpose()?;
        let go_on = chunk.is_ok();
        Some((chunk, go_on.then_some(download)))
    });
    Ok(chunks.boxed())
}

struct Download {
    store: S3Store,
    key: Key,
    doing: String,
    /// What has not yet come from the store.
    left: Range<u64>,
    body: Option<ByteStream>,
    /// What has come and is not yet handed out.
    rest: Bytes,
}

impl Download {
    async fn next(&mut self) -> Result<Option<Bytes>> {
        if self.rest.is_empty() {
            match self.receive().await? {
                Some(bytes) => self.rest = bytes,
                None => return Ok(None),
            }
        }
        Ok(Some(self.rest.split_to(self.rest.len().min(CHUNK))))
    }

    /// The next bytes from the store, over as many connections as it takes, while each brings something.
    async fn receive(&mut self) -> Result<Option<Bytes>> {
        let mut pause = FIRST_PAUSE;
        for cut in 1.. {
            if self.left.is_empty() {
                return Ok(None);
            }
            let why = match self.receive_once().await? {
                Ok(bytes) => return Ok(Some(bytes)),
                Err(why) => why,
            };
            self.body = None;
            if cut == TRIES {
                let why = format!("cut {TRIES} times in a row at byte {}: {why}", self.left.start);
                return Err(Error::new(Kind::Unreachable, &self.doing, why));
            }
            tracing::debug!(doing = self.doing, at = self.left.start, why, "the download was cut; going on");
            self.store.pause(&mut pause).await;
        }
        Ok(None)
    }

    /// The next bytes of this connection, or why it brings no more.
    async fn receive_once(&mut self) -> Result<Result<Bytes, String>> {
        let mut body = match self.body.take() {
            Some(body) => body,
            None => self.open().await?,
        };
        let clock = self.store.0.clock.clone();
        let received = tokio::select! {
            received = body.next() => received,
            () = clock.sleep(LIMIT) => return Ok(Err(format!("nothing came for {} s", LIMIT.as_secs()))),
        };
        let bytes = match received {
            Some(Ok(bytes)) => bytes,
            Some(Err(cause)) => return Ok(Err(cause.to_string())),
            None => return Ok(Err("the connection ended".to_owned())),
        };
        self.left.start += bytes.len() as u64;
        if self.left.start > self.left.end {
            return Err(Error::new(Kind::Protocol, &self.doing, "the store sent more than was asked for"));
        }
        self.body = Some(body);
        Ok(Ok(bytes))
    }

    async fn open(&self) -> Result<ByteStream> {
        let (store, doing) = (&self.store, self.doing.as_str());
        let range = format!("bytes={}-{}", self.left.start, self.left.end - 1);
        let wanted = (self.left.end - self.left.start) as i64;
        store
            .repeat(doing, 0, || async {
                let get =
                    store.0.client.get_object().bucket(&store.0.place.bucket).key(store.name(&self.key));
                match get.range(&range).send().await {
                    Ok(object) if object.content_length() == Some(wanted) => Ok(object.body),
                    Ok(object) => {
                        let sent = object.content_length().unwrap_or(0);
                        let why = format!("{range}: the store has {sent} of {wanted} bytes");
                        Err(Error::new(Kind::Damaged, doing, why))
                    }
                    Err(error) if errors::status(&error) == Some(416) => {
                        let why = format!("{range} lies past the end of the object");
                        Err(Error::new(Kind::Damaged, doing, why).caused_by(error))
                    }
                    Err(error) => Err(failed(doing, error, Effect::None)),
                }
            })
            .await
    }
}
