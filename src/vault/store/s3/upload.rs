//! Multipart uploads: parts with a CRC-32 each, completed on the condition that the key is free.

use std::collections::BTreeMap;
use std::fs::File;
use std::os::fd::AsRawFd;
use std::sync::{Arc, Mutex, MutexGuard};

use async_trait::async_trait;
use aws_sdk_s3::operation::list_multipart_uploads::ListMultipartUploadsOutput;
use aws_sdk_s3::primitives::{ByteStream, Length, SdkBody};
use aws_sdk_s3::types::{ChecksumAlgorithm, CompletedMultipartUpload, CompletedPart, MultipartUpload};
use bytes::Bytes;

use super::errors::{self, Effect, failed};
use super::{FIRST_PAUSE, S3Store, TRIES, timestamp};
use crate::error::{Error, Kind, Result};
use crate::vault::store::{Create, Key, OpenUpload, Part, Store, Upload};

/// How much of the spool file an upload holds in memory at a time.
const BUFFER: usize = 128 << 10;

/// An upload into a bucket.
pub(super) struct S3Upload {
    store: S3Store,
    key: Key,
    id: String,
    parts: Mutex<BTreeMap<u32, CompletedPart>>,
}

impl S3Upload {
    pub(super) async fn begin(store: &S3Store, key: &Key) -> Result<Self> {
        let doing = format!("beginning the upload of {key} to {}", store.location());
        let place = &store.0.place;
        let begin = || async {
            let lock = place.lock(key, store.0.clock.now());
            let begun = store
                .0
                .client
                .create_multipart_upload()
                .bucket(&place.bucket)
                .key(store.name(key))
                .checksum_algorithm(ChecksumAlgorithm::Crc32)
                .set_server_side_encryption(place.encryption())
                .set_ssekms_key_id(place.kms_key.clone())
                .set_bucket_key_enabled(place.bucket_key())
                .set_object_lock_mode(lock.clone().map(|lock| lock.mode))
                .set_object_lock_retain_until_date(lock.map(|lock| lock.until))
                .send();
            let begun = begun.await.map_err(|error| failed(&doing, error, Effect::None))?;
            begun.upload_id.ok_or_else(|| Error::new(Kind::Protocol, &doing, "the store gave no upload id"))
        };
        let id = store.repeat(&doing, 0, begin).await?;
        Ok(S3Upload { store: store.clone(), key: key.clone(), id, parts: Mutex::default() })
    }

    fn parts(&self) -> MutexGuard<'_, BTreeMap<u32, CompletedPart>> {
        self.parts.lock().expect("no holder panics")
    }

    fn doing(&self, verb: &str) -> String {
        format!("{verb} the upload of {} to {}", self.key, self.store.location())
    }

    async fn put_once(&self, doing: &str, number: u32, part: &Part) -> Result<CompletedPart> {
        let stored = self
            .store
            .0
            .client
            .upload_part()
            .bucket(&self.store.0.place.bucket)
            .key(self.store.name(&self.key))
            .upload_id(&self.id)
            .part_number(number as i32)
            .content_length(part.len() as i64)
            .checksum_algorithm(ChecksumAlgorithm::Crc32)
            .body(body(part, doing).await?)
            .send()
            .await
            .map_err(|error| failed(doing, error, Effect::None))?;
        Ok(CompletedPart::builder()
            .part_number(number as i32)
            .set_e_tag(stored.e_tag)
            .set_checksum_crc32(stored.checksum_crc32)
            .build())
    }

    async fn complete_once(&self, doing: &str) -> Result<Create> {
        let parts = self.parts().values().cloned().collect();
        let parts = CompletedMultipartUpload::builder().set_parts(Some(parts)).build();
        let completed = self
            .store
            .0
            .client
            .complete_multipart_upload()
            .bucket(&self.store.0.place.bucket)
            .key(self.store.name(&self.key))
            .upload_id(&self.id)
            .multipart_upload(parts)
            .if_none_match("*")
            .send()
            .await;
        match completed {
            Ok(_) => Ok(Create::Created),
            Err(error) if errors::is_taken(&error) => {
                // The parts are of no use any more. What this leaves, scrub finds.
                let _ = abort_once(&self.store, doing, &self.key, &self.id).await;
                Ok(Create::Exists)
            }
            Err(error) if errors::code(&error) == Some("NoSuchUpload") => {
                // Completed before, its answer lost; or aborted by somebody.
                match self.store.stat(&self.key).await? {
                    Some(_) => Ok(Create::Exists),
                    None => Err(failed(doing, error, Effect::Creates).hint(
                        "somebody aborted it: a lifecycle rule of the bucket, or scrub after a long pause",
                    )),
                }
            }
            Err(error) => Err(failed(doing, error, Effect::Creates)),
        }
    }
}

#[async_trait]
impl Upload for S3Upload {
    async fn put_part(&self, number: u32, part: Part) -> Result<()> {
        let doing = self.doing(&format!("sending part {number} of"));
        let stored = self.store.persist(&doing, part.len(), || self.put_once(&doing, number, &part)).await?;
        self.parts().insert(number, stored);
        Ok(())
    }

    async fn finish(&self) -> Result<Create> {
        // S3 wants at least one part, also for an empty object.
        if self.parts().is_empty() {
            self.put_part(1, Part::Bytes(Bytes::new())).await?;
        }
        let doing = self.doing("finishing");
        let bytes = 0;
        let mut pause = FIRST_PAUSE;
        for _ in 1..TRIES {
            match self.store.once(&doing, Effect::Creates, bytes, self.complete_once(&doing)).await {
                Err(error) if error.is_retryable() => tracing::debug!(?error, "trying again"),
                outcome => return outcome,
            }
            self.store.pause(&mut pause).await;
        }
        self.store.once(&doing, Effect::Creates, bytes, self.complete_once(&doing)).await
    }

    async fn abort(&self) -> Result<()> {
        abort(&self.store, &self.key, &self.id).await
    }
}

/// Ends an upload, ours or somebody's.
pub(super) async fn abort(store: &S3Store, key: &Key, id: &str) -> Result<()> {
    let doing = format!("aborting the upload of {key} to {}", store.location());
    store.repeat(&doing, 0, || abort_once(store, &doing, key, id)).await
}

async fn abort_once(store: &S3Store, doing: &str, key: &Key, id: &str) -> Result<()> {
    let abort = store.0.client.abort_multipart_upload().bucket(&store.0.place.bucket);
    match abort.key(store.name(key)).upload_id(id).send().await {
        Ok(_) => Ok(()),
        Err(error) if errors::code(&error) == Some("NoSuchUpload") => Ok(()),
        Err(error) => Err(failed(doing, error, Effect::None)),
    }
}

/// All uploads under `prefix` that are open.
///
/// A page is left by key alone: its last key is listed again, whole, on the next. That is legal on S3, and versitygw 1.8
/// refuses the upload id markers that it hands out. They are used only when one key has more uploads than a page.
pub(super) async fn open(store: &S3Store, prefix: &str) -> Result<Vec<OpenUpload>> {
    let doing = format!("listing open uploads in {}", store.location());
    let (mut key, mut id) = (None, None);
    let mut open = Vec::new();
    loop {
        let mut page = store.repeat(&doing, 1 << 20, || open_once(store, &doing, prefix, &key, &id)).await?;
        let mut uploads = page.uploads.take().unwrap_or_default();
        let more = page.is_truncated().unwrap_or(false);
        let last = uploads.last().and_then(|upload| upload.key.clone());
        let several_keys = uploads.first().and_then(MultipartUpload::key) != last.as_deref();
        if more && several_keys {
            uploads.retain(|upload| upload.key != last);
            (key, id) = (uploads.last().and_then(|upload| upload.key.clone()), None);
        } else if more && page.next_key_marker.is_some() {
            (key, id) = (page.next_key_marker, page.next_upload_id_marker);
        }
        open.extend(uploads.iter().filter_map(|upload| open_upload(store, upload)));
        if !more {
            return Ok(open);
        }
        if uploads.is_empty() {
            return Err(Error::new(Kind::Protocol, doing, "the store says that more follow, and gives none"));
        }
    }
}

async fn open_once(
    store: &S3Store,
    doing: &str,
    prefix: &str,
    key: &Option<String>,
    id: &Option<String>,
) -> Result<ListMultipartUploadsOutput> {
    let place = &store.0.place;
    let list = store.0.client.list_multipart_uploads().bucket(&place.bucket).prefix(place.name(prefix));
    let page = list.set_key_marker(key.clone()).set_upload_id_marker(id.clone()).send().await;
    page.map_err(|error| failed(doing, error, Effect::None))
}

fn open_upload(store: &S3Store, upload: &MultipartUpload) -> Option<OpenUpload> {
    Some(OpenUpload {
        key: store.0.place.key(upload.key()?)?,
        id: upload.upload_id()?.to_owned(),
        started: upload.initiated().and_then(timestamp)?,
    })
}

/// The bytes of a part as a request's body.
async fn body(part: &Part, doing: &str) -> Result<ByteStream> {
    match part {
        Part::Bytes(bytes) => Ok(ByteStream::from(bytes.clone())),
        Part::File { file, offset, len } => section(file.clone(), *offset, *len, doing).await,
    }
}

/// A body that reads a section of a file as it is sent, and again if the SDK asks for it again.
async fn section(file: Arc<File>, offset: u64, len: u64, doing: &str) -> Result<ByteStream> {
    // A second opening has a cursor of its own, also of a file that has no name any more.
    let section = ByteStream::read_from()
        .path(format!("/proc/self/fd/{}", file.as_raw_fd()))
        .offset(offset)
        .length(Length::Exact(len))
        .buffer_size(BUFFER)
        .build()
        .await
        .map_err(|cause| Error::new(Kind::Io, format!("{doing}: reading the spool"), cause))?
        .into_inner();
    Ok(ByteStream::new(SdkBody::retryable(move || {
        // The number must stay this file's for as long as the body may be opened.
        let _open = &file;
        section.try_clone().unwrap_or_else(SdkBody::taken)
    })))
}
