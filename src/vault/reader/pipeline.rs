//! From a stored object to plain bytes: read ahead, hashed and decrypted, unpacked and hashed again.

use bytes::Bytes;
use futures_util::future::{pending, try_join};
use futures_util::{StreamExt, TryStreamExt};
use tokio::sync::mpsc::{self, Receiver, Sender};
use tokio::task::JoinHandle;

use crate::error::{Error, Kind, Result};
use crate::task::Task;
use crate::vault::Vault;
use crate::vault::codec::download::fetch;
use crate::vault::codec::pack::{Pause, Unpacker};
use crate::vault::codec::pool::{Buffer, Pool};
use crate::vault::codec::seal::{Identities, Opener};
use crate::vault::codec::{BLOCK, Hasher, persist, start};
use crate::vault::manifest::{Artifact, Codec, Digest};
use crate::vault::store::Key;

/// Chunks between two steps: one that waits while the next is made.
const QUEUE: usize = 1;

/// How an artifact will be read: everything that can be refused before the first byte was.
pub struct Plan {
    vault: Vault,
    key: Key,
    stored: Digest,
    plain: Digest,
    opener: Option<Opener>,
}

impl Plan {
    /// Looks at the artifact's object. `sha256` of the plain bytes is what the manifest or the details tell.
    pub async fn new(
        vault: &Vault,
        artifact: &Artifact,
        identities: Option<Identities>,
        sha256: Option<String>,
    ) -> Result<Self> {
        let damaged = |why: String| damaged(&artifact.key, why);
        if !Key::is_valid(&artifact.key) {
            return Err(damaged("that is not a key".to_owned()));
        }
        if !matches!(artifact.codecs[..], [Codec::Zstd] | [Codec::Zstd, Codec::Age]) {
            let why = format!("codecs {:?}", artifact.codecs);
            return Err(Error::new(Kind::Unsupported, "decoding", why).hint("use a newer tidekeeper"));
        }
        let key = Key::new(&artifact.key);
        let stat = || vault.store.stat(&key);
        match persist(&*vault.clock, super::CALL_LIMIT, stat).await? {
            None => return Err(damaged("it is not there".to_owned())),
            Some(entry) if entry.size != artifact.stored.bytes => {
                let (found, expected) = (entry.size, artifact.stored.bytes);
                return Err(damaged(format!("it has {found} bytes instead of {expected}")));
            }
            Some(_) => {}
        }
        Ok(Plan {
            vault: vault.clone(),
            key,
            stored: artifact.stored.clone(),
            plain: Digest { bytes: artifact.plain.bytes, sha256: sha256.unwrap_or_default() },
            opener: identities.map(Opener::new),
        })
    }

    /// Reads until all was checked, or `task` ends. The chunks end before the result is there.
    pub fn start(self, task: Task) -> (Receiver<Bytes>, JoinHandle<Result<()>>) {
        let (sender, chunks) = mpsc::channel(QUEUE);
        let reading = tokio::spawn(async move { task.guard(self.read(sender)).await });
        (chunks, reading)
    }

    /// Checks the stored bytes alone.
    pub async fn check_stored(mut self) -> Result<()> {
        self.opener = None;
        let key = self.key.clone();
        self.open(None).await.map_err(|error| at(&key, error))
    }

    async fn read(self, out: Sender<Bytes>) -> Result<()> {
        let (key, expected) = (self.key.clone(), self.plain.clone());
        let (vault, stored) = (self.vault.clone(), self.stored.clone());
        let unsealed = Plan { vault, key: key.clone(), stored, plain: expected.clone(), opener: None };
        let (opened, packed) = mpsc::channel(QUEUE);
        let both = try_join(self.open(Some(opened)), unpack(expected, packed, out)).await;
        if both.as_ref().is_err_and(|error| error.kind() == Kind::Denied) {
            // A changed header looks like one that was made for others: only the stored bytes tell which it
            // is.
            unsealed.check_stored().await?;
        }
        both.map(drop).map_err(|error| at(&key, error))
    }

    /// Fetches, hashes and decrypts.
    async fn open(self, out: Option<Sender<Bytes>>) -> Result<()> {
        let mut chunks = fetch(self.vault.store, self.vault.clock, self.key, self.stored.bytes).boxed();
        let mut step = Open { hasher: Hasher::default(), opener: self.opener };
        let mut ended = false;
        while !ended {
            let chunk = chunks.try_next().await?.unwrap_or_default();
            ended = chunk.is_empty();
            let opened;
            (step, opened) = start(chunk.len(), move || step.open(chunk)).await?;
            if let Some(out) = &out {
                send(out, opened).await;
            }
        }
        agree("stored", &self.stored, step.hasher.finish())
    }
}

/// The step that sees stored bytes.
struct Open {
    hasher: Hasher,
    opener: Option<Opener>,
}

impl Open {
    fn open(mut self, chunk: Bytes) -> Result<(Self, Bytes)> {
        self.hasher.update(&chunk);
        let Some(opener) = self.opener.as_mut() else { return Ok((self, chunk)) };
        let mut plain = Vec::with_capacity(chunk.len() + (128 << 10));
        opener.open(chunk, &mut plain)?;
        Ok((self, plain.into()))
    }
}

/// Decompresses and hashes again. What is handed on are whole frames with the right checksums, so that
/// damage in the
/// middle ends the stream before it, not after.
async fn unpack(expected: Digest, mut packed: Receiver<Bytes>, out: Sender<Bytes>) -> Result<()> {
    let mut step = Unpack::new()?;
    while let Some(chunk) = packed.recv().await {
        let weight = chunk.len();
        step.packed = chunk;
        loop {
            let plain;
            (step, plain) = start(weight, move || step.unpack()).await?;
            let Some(plain) = plain else { break };
            if step.hasher.bytes() > expected.bytes {
                let why = format!("it has more than {} plain bytes", expected.bytes);
                return Err(Error::new(Kind::Damaged, "decompressing", why));
            }
            send(&out, plain).await;
        }
    }
    if !step.unpacker.is_at_boundary() {
        return Err(Error::new(Kind::Damaged, "decompressing", "the last frame is cut off"));
    }
    agree("plain", &expected, step.hasher.finish())
}

/// The step that sees frames and plain bytes.
struct Unpack {
    unpacker: Unpacker,
    hasher: Hasher,
    packed: Bytes,
    plain: Buffer,
    buffers: Pool,
}

impl Unpack {
    fn new() -> Result<Self> {
        let unpacker = Unpacker::new().map_err(|cause| Error::new(Kind::Internal, "decompressing", cause))?;
        let buffers = Pool::default();
        let plain = buffers.take(0);
        Ok(Unpack { unpacker, hasher: Hasher::default(), packed: Bytes::new(), plain, buffers })
    }

    /// The next frame's plain bytes, or a block of them if it has more; none if more packed bytes are needed.
    fn unpack(mut self) -> Result<(Self, Option<Bytes>)> {
        // A byte more than a block, so that the frame's checksum is read before there is no more room.
        self.plain.grow_to(BLOCK + 1);
        let paused = self.unpacker.unpack(&mut self.packed, &mut self.plain);
        match paused.map_err(|cause| Error::new(Kind::Damaged, "decompressing", cause))? {
            Pause::Hungry => Ok((self, None)),
            Pause::Frame | Pause::Full => {
                let plain = std::mem::replace(&mut self.plain, self.buffers.take(0));
                self.hasher.update(&plain);
                Ok((self, Some(plain.into())))
            }
        }
    }
}

/// Hands bytes on. If nobody takes them any more, the other half has failed or the reader was dropped:
/// either ends
/// this half too, so there is nothing to do but to wait for it.
async fn send(out: &Sender<Bytes>, bytes: Bytes) {
    if !bytes.is_empty() && out.send(bytes).await.is_err() {
        pending::<()>().await;
    }
}

/// Compares what came with what should have. Where the digest is not known, the length alone.
pub fn agree(which: &str, expected: &Digest, found: Digest) -> Result<()> {
    let known = !expected.sha256.is_empty();
    let why = if found.bytes != expected.bytes {
        format!("there are {} of them instead of {}", found.bytes, expected.bytes)
    } else if known && found.sha256 != expected.sha256 {
        format!("their SHA-256 is {} instead of {}", found.sha256, expected.sha256)
    } else {
        return Ok(());
    };
    Err(Error::new(Kind::Damaged, format!("checking its {which} bytes"), why))
}

/// Says of which object an error speaks. A manifest promises the object, so one that is gone is damage.
fn at(key: &Key, error: Error) -> Error {
    match error.kind() {
        Kind::NotFound => damaged(key.as_str(), error.why()),
        Kind::Damaged => advise(error.while_doing(format!("at {key}"))),
        _ => error.while_doing(format!("at {key}")),
    }
}

/// Says what is wrong with the object of an artifact.
pub fn damaged(key: &str, why: impl std::fmt::Display) -> Error {
    advise(Error::new(Kind::Damaged, format!("looking at {key}"), why))
}

fn advise(error: Error) -> Error {
    error.hint("`tidekeeper verify` tells what else is damaged; restore an older backup, or the second copy")
}
