//! age v1, binary, as a stream: what `age -d -i KEY` reads.

use std::collections::VecDeque;
use std::io::{self, ErrorKind, Read, Write};
use std::path::Path;
use std::sync::{Arc, Mutex};

use age::stream::{StreamReader, StreamWriter};
use age::{DecryptError, Decryptor, Encryptor, Identity, Recipient};
use bytes::{Buf, Bytes};

use crate::error::{Error, Kind, Result};

/// More than the header of an age file takes with 300 recipients; it must be there as a whole before it is read.
const HEADER_MAX: usize = 64 << 10;

/// Encrypts a stream.
pub struct Sealer {
    stream: StreamWriter<Outbox>,
    outbox: Outbox,
}

/// Takes what the age crate writes. The buffer is lent to it for one call.
#[derive(Clone, Default)]
struct Outbox(Arc<Mutex<Vec<u8>>>);

impl Outbox {
    fn swap(&self, with: &mut Vec<u8>) {
        std::mem::swap(&mut *self.0.lock().expect("no holder panics"), with);
    }
}

impl Write for Outbox {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        self.0.lock().expect("no holder panics").extend_from_slice(bytes);
        Ok(bytes.len())
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

impl Sealer {
    /// A stream that each of `recipients` can decrypt.
    ///
    /// # Errors
    /// `Config` if one is not an X25519 public key (`age1...`).
    pub fn new(recipients: &[String]) -> Result<Self> {
        let parse = |text: &String| {
            text.parse::<age::x25519::Recipient>().map_err(|why| {
                Error::new(Kind::Config, format!("reading the recipient {text:?}"), why)
                    .hint("`age-keygen -y KEYFILE` prints the public key that `encryption.recipients` takes")
            })
        };
        let keys = recipients.iter().map(parse).collect::<Result<Vec<_>>>()?;
        let outbox = Outbox::default();
        let failed = |why: String| Error::new(Kind::Config, "encrypting", why);
        let encryptor = Encryptor::with_recipients(keys.iter().map(|key| key as &dyn Recipient));
        let encryptor = encryptor.map_err(|cause| failed(cause.to_string()))?;
        let stream = encryptor.wrap_output(outbox.clone()).map_err(|cause| failed(cause.to_string()))?;
        Ok(Sealer { stream, outbox })
    }

    /// Encrypts the next bytes; whole chunks are appended to `sealed`.
    pub fn seal(&mut self, bytes: &[u8], sealed: &mut Vec<u8>) -> Result<()> {
        let held = std::mem::take(&mut *self.outbox.0.lock().expect("no holder panics"));
        sealed.extend_from_slice(&held);
        self.outbox.swap(sealed);
        let written = self.stream.write_all(bytes);
        self.outbox.swap(sealed);
        written.map_err(|cause| Error::new(Kind::Internal, "encrypting", cause))
    }

    /// Appends the last chunk.
    pub fn finish(mut self, sealed: &mut Vec<u8>) -> Result<()> {
        self.seal(&[], sealed)?;
        self.outbox.swap(sealed);
        let finished = self.stream.finish();
        self.outbox.swap(sealed);
        finished.map(drop).map_err(|cause| Error::new(Kind::Internal, "encrypting", cause))
    }
}

/// Private keys.
pub type Identities = Arc<Vec<Box<dyn Identity + Send + Sync>>>;

/// Reads the private keys in a file as `age-keygen` writes it.
pub fn read_identities(path: &Path) -> Result<Identities> {
    let doing = || format!("reading the identity file {}", path.display());
    let text = std::fs::read(path).map_err(|cause| Error::io(doing(), cause))?;
    let keys = age::IdentityFile::from_buffer(&*text)
        .map_err(|cause| cause.to_string())
        .and_then(|file| file.into_identities().map_err(|cause| cause.to_string()));
    match keys {
        Ok(keys) if keys.is_empty() => Err(Error::new(Kind::Config, doing(), "it holds no key")
            .hint("`age-keygen -o KEYFILE` makes one; its lines begin with AGE-SECRET-KEY-1")),
        Ok(keys) => Ok(Arc::new(keys)),
        Err(why) => Err(Error::new(Kind::Config, doing(), why)),
    }
}

/// Decrypts a stream that comes in pieces.
pub struct Opener {
    inbox: Inbox,
    identities: Identities,
    stream: Option<StreamReader<Inbox>>,
}

/// Gives the age crate what has come so far, then `WouldBlock`, which leaves its state as it is.
#[derive(Clone, Default)]
struct Inbox(Arc<Mutex<Arrived>>);

#[derive(Default)]
struct Arrived {
    pieces: VecDeque<Bytes>,
    bytes: usize,
    ended: bool,
}

impl Read for Inbox {
    fn read(&mut self, into: &mut [u8]) -> io::Result<usize> {
        let mut arrived = self.0.lock().expect("no holder panics");
        let ended = arrived.ended;
        let Some(piece) = arrived.pieces.front_mut() else {
            return if ended { Ok(0) } else { Err(ErrorKind::WouldBlock.into()) };
        };
        let len = piece.len().min(into.len());
        piece.copy_to_slice(&mut into[..len]);
        if piece.is_empty() {
            arrived.pieces.pop_front();
        }
        arrived.bytes -= len;
        Ok(len)
    }
}

impl Opener {
    /// A stream that one of `identities` decrypts.
    pub fn new(identities: Identities) -> Self {
        Opener { inbox: Inbox::default(), identities, stream: None }
    }

    /// Decrypts the next bytes, appending what is whole and authentic to `plain`; no bytes are the end.
    ///
    /// # Errors
    /// `Denied` if no identity fits; `Damaged` for bytes that were changed, cut off or added.
    pub fn open(&mut self, sealed: Bytes, plain: &mut Vec<u8>) -> Result<()> {
        let ready = {
            let mut arrived = self.inbox.0.lock().expect("no holder panics");
            arrived.ended = sealed.is_empty();
            arrived.bytes += sealed.len();
            arrived.pieces.extend(Some(sealed).filter(|sealed| !sealed.is_empty()));
            arrived.ended || arrived.bytes >= HEADER_MAX
        };
        let stream = match &mut self.stream {
            Some(stream) => stream,
            None if !ready => return Ok(()),
            None => {
                let keys = self.identities.iter().map(|key| &**key as &dyn Identity);
                let opened = Decryptor::new(self.inbox.clone()).and_then(|file| file.decrypt(keys));
                self.stream.insert(opened.map_err(refused)?)
            }
        };
        match stream.read_to_end(plain) {
            Err(cause) if cause.kind() == ErrorKind::WouldBlock => Ok(()),
            Err(cause) => Err(Error::new(Kind::Damaged, "decrypting", cause)),
            Ok(_) => Ok(()),
        }
    }
}

fn refused(cause: DecryptError) -> Error {
    match cause {
        DecryptError::NoMatchingKeys => {
            Error::new(Kind::Denied, "decrypting", "none of the private keys is that of a recipient")
                .hint("`encryption` in the manifest names the recipients; give one's key as `identity_file`")
        }
        cause => Error::new(Kind::Damaged, "decrypting", cause),
    }
}
