//! An artifact's plain bytes, read ahead: decoding and sending go on at the same time.

use bytes::Bytes;
use tokio::sync::mpsc;

use crate::error::Result;
use crate::vault::reader::ArtifactReader;

/// The plain bytes of an RDB, in order. It ends after the last, but also if whoever reads was stopped: only the number
/// of bytes tells a whole one from a cut one.
pub type Feed = mpsc::Receiver<Result<Bytes>>;

/// Chunks that wait between the decoder and the socket.
const AHEAD: usize = 8;

/// Reads ahead from an artifact until the feed is dropped.
pub fn read_ahead(mut artifact: ArtifactReader) -> Feed {
    let (to, feed) = mpsc::channel(AHEAD);
    tokio::spawn(async move {
        while let Some(chunk) = artifact.next().await.transpose() {
            let failed = chunk.is_err();
            if to.send(chunk).await.is_err() || failed {
                return;
            }
        }
    });
    feed
}
