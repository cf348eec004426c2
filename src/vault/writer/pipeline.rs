//! From blocks of plain bytes to a stored object: packed in parallel, sealed and spooled in order, uploaded beside it.

use std::fmt;
use std::mem::take;
use std::sync::Arc;

use futures_util::FutureExt;
use futures_util::future::{self, BoxFuture, pending, try_join};
use tokio::sync::mpsc::{self, Receiver, Sender, UnboundedSender};
use tokio::task::JoinHandle;

use crate::error::{Error, Kind, Result};
use crate::task::Task;
use crate::vault::Vault;
use crate::vault::codec::pack::Packers;
use crate::vault::codec::parts::{Cutter, Section};
use crate::vault::codec::pool::{Buffer, Pool};
use crate::vault::codec::seal::Sealer;
use crate::vault::codec::upload::Outgoing;
use crate::vault::codec::{Hasher, start};
use crate::vault::manifest::Digest;
use crate::vault::store::Key;

/// Blocks that are packed, besides the one whose turn it is to be stored. One keeps two cores busy, as two hashes are
/// under way too; each more costs another packer, and 5 MiB.
const QUEUE: usize = 1;

/// What the artifacts of one attempt use again.
#[derive(Default)]
pub struct Shared {
    buffers: Pool,
    packers: Packers,
}

impl fmt::Debug for Shared {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Shared")
    }
}

/// What an artifact turned out to be.
#[derive(Debug)]
pub struct Done {
    pub plain: Digest,
    pub stored: Digest,
}

/// The way of one artifact, as seen from its beginning.
#[derive(Debug)]
pub struct Pipeline {
    blocks: Sender<Block>,
    running: Option<JoinHandle<Result<Done>>>,
    shared: Arc<Shared>,
}

/// A block on its way: its packing has begun when it is sent.
struct Block {
    packing: BoxFuture<'static, Result<Packed>>,
    last: bool,
}

struct Packed {
    plain: Buffer,
    frame: Buffer,
}

impl Pipeline {
    /// Starts it. When `task` is cancelled or late it aborts its upload and ends with that error.
    pub fn start(
        vault: &Vault,
        task: Task,
        key: Key,
        recipients: &[String],
        shared: Arc<Shared>,
    ) -> Result<Self> {
        let sealer = (!recipients.is_empty()).then(|| Sealer::new(recipients)).transpose()?;
        let outgoing = Outgoing::new(vault.store.clone(), vault.clock.clone(), key, &task.spool)?;
        let (blocks, queue) = mpsc::channel(QUEUE);
        let storing = Storing {
            plain: future::ready(Ok(Hasher::default())).boxed(),
            sealing: Sealing { sealer, stored: Hasher::default() },
            cutter: Cutter::default(),
            buffers: shared.buffers.clone(),
        };
        let running = tokio::spawn(run(outgoing, storing, queue, task));
        Ok(Pipeline { blocks, running: Some(running), shared })
    }

    /// An empty block, to be filled and pushed.
    pub fn block(&self) -> Buffer {
        self.shared.buffers.take(0)
    }

    /// Begins to pack `plain` as soon as fewer than [`QUEUE`] blocks are before it.
    pub async fn push(&mut self, plain: Buffer, last: bool) -> Result<()> {
        let Ok(place) = self.blocks.reserve().await else {
            return Err(self.end().await.err().unwrap_or_else(ended));
        };
        let shared = self.shared.clone();
        let packing = start(plain.len(), move || {
            let mut frame = shared.buffers.take(0);
            shared.packers.pack(&plain, &mut frame)?;
            Ok(Packed { plain, frame })
        });
        place.send(Block { packing, last });
        Ok(())
    }

    /// Waits for the end.
    pub async fn end(&mut self) -> Result<Done> {
        let running = self.running.take().ok_or_else(ended)?;
        running.await.unwrap_or_else(|died| Err(Error::new(Kind::Internal, "storing", died)))
    }
}

fn ended() -> Error {
    Error::new(Kind::Internal, "storing", "it has ended before")
}

async fn run(outgoing: Outgoing, storing: Storing, queue: Receiver<Block>, task: Task) -> Result<Done> {
    let whole = async {
        let (cut, sections) = mpsc::unbounded_channel();
        let (done, ()) = try_join(storing.store(&outgoing, queue, cut), outgoing.upload(sections)).await?;
        outgoing.finish(done.stored.bytes).await?;
        Ok(done)
    };
    let outcome = task.guard(whole).await;
    if outcome.is_err() {
        outgoing.abort().await;
    }
    outcome
}

/// The steps that must see the blocks in order.
struct Storing {
    /// The hash of the plain bytes so far, and the block that it takes now: nothing waits for it but the next block's.
    plain: BoxFuture<'static, Result<Hasher>>,
    sealing: Sealing,
    cutter: Cutter,
    buffers: Pool,
}

impl Storing {
    async fn store(
        mut self,
        outgoing: &Outgoing,
        mut queue: Receiver<Block>,
        cut: UnboundedSender<Section>,
    ) -> Result<Done> {
        let mut ended = false;
        while !ended {
            let Some(block) = queue.recv().await else {
                return Err(Error::new(Kind::Cancelled, "storing", "the writer was dropped before its end"));
            };
            let packed = block.packing.await?;
            let sealed = self.seal(packed, block.last).await?;
            self.spool(sealed, outgoing, &cut).await?;
            ended = block.last;
        }
        if !self.cutter.is_whole() {
            send(&cut, self.cutter.rest()).await;
        }
        Ok(Done { plain: self.plain.await?.finish(), stored: self.sealing.stored.finish() })
    }

    /// Begins to hash the plain bytes on one thread; encrypts and hashes what will be stored on another.
    async fn seal(&mut self, packed: Packed, last: bool) -> Result<Buffer> {
        let Packed { plain, frame } = packed;
        let mut hasher = (&mut self.plain).await?;
        self.plain = start(plain.len(), move || {
            hasher.update(&plain);
            Ok(hasher)
        });
        let (mut sealing, buffers) = (take(&mut self.sealing), self.buffers.clone());
        let (sealing, sealed) = start(frame.len(), move || {
            let sealed = sealing.seal(frame, last, &buffers)?;
            Ok((sealing, sealed))
        })
        .await?;
        self.sealing = sealing;
        Ok(sealed)
    }

    async fn spool(
        &mut self,
        sealed: Buffer,
        outgoing: &Outgoing,
        cut: &UnboundedSender<Section>,
    ) -> Result<()> {
        let (from, to) = (self.cutter.end(), self.cutter.end() + sealed.len() as u64);
        if !outgoing.file().try_book(from, to) {
            // Several artifacts may have filled the spool with the beginnings of parts: what can go, goes now.
            send(cut, self.cutter.early()).await;
            outgoing.file().book(from, to).await?;
        }
        let file = outgoing.file().clone();
        start(sealed.len(), move || file.write_at(&sealed, from)).await?;
        self.cutter.grow(to - from);
        while let Some(section) = self.cutter.full() {
            send(cut, Some(section)).await;
        }
        Ok(())
    }
}

/// Hands a section to the uploading half. If that has failed, its error is about to end this half: there is nothing to
/// say, and nothing to do but to wait for it.
async fn send(cut: &UnboundedSender<Section>, section: Option<Section>) {
    let Some(section) = section else { return };
    if cut.send(section).is_err() {
        pending::<()>().await;
    }
}

/// From frames to stored bytes.
#[derive(Default)]
struct Sealing {
    sealer: Option<Sealer>,
    stored: Hasher,
}

impl Sealing {
    fn seal(&mut self, frame: Buffer, last: bool, buffers: &Pool) -> Result<Buffer> {
        let sealed = match self.sealer.as_mut() {
            None => frame,
            Some(sealer) => {
                // Room for the chunk that age holds back, a header, and a tag for each 64 KiB.
                let mut sealed = buffers.take(frame.len() + (128 << 10));
                sealer.seal(&frame, &mut sealed)?;
                if last && let Some(sealer) = self.sealer.take() {
                    sealer.finish(&mut sealed)?;
                }
                sealed
            }
        };
        self.stored.update(&sealed);
        Ok(sealed)
    }
}
