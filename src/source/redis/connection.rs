//! A connection to one server: TCP, TLS, `AUTH`, and one command at a time.

use std::time::Duration;

use bytes::{Buf, Bytes, BytesMut};
use rustls::pki_types::ServerName;
use tokio::io::{AsyncRead, AsyncReadExt, AsyncWrite, AsyncWriteExt};
use tokio::net::TcpStream;
use tokio_rustls::TlsConnector;

use super::address::Address;
use super::config::{Access, Tls};
use super::reply::{self, Reply};
use super::tls;
use crate::clock::{SharedClock, within};
use crate::error::{Context, Error, Kind, Result};

/// How long a server may take to accept, with TLS and DNS.
const DIAL: Duration = Duration::from_secs(10);

/// How long a server may take to answer a command: it runs one at a time, and slow ones of others come first.
const ANSWER: Duration = Duration::from_secs(20);

/// What may be wrong where TLS is not answered.
const NO_TLS: &str = "does the server speak TLS on this port?";

/// The least room for a read, and how much is made when there is less: reads of a fast transfer fill what they get.
const ROOM_MIN: usize = 64 << 10;
const ROOM: usize = 1 << 20;

/// What a replica without its master waits for, and what ends that.
pub const MASTERLESS: &str = "it is a replica whose master does not answer. If that is gone, or a restore into it was \
     interrupted, it waits for a master that never comes: make sure that no restore runs (`tidekeeper runs`), send it \
     `REPLICAOF NO ONE`, and restore again, since its data may be half";

/// What bytes go through.
pub trait Duplex: AsyncRead + AsyncWrite + Send + Unpin {}

impl<T: AsyncRead + AsyncWrite + Send + Unpin> Duplex for T {}

/// A logged-in connection.
pub struct Connection {
    link: Box<dyn Duplex>,
    buffer: BytesMut,
    clock: SharedClock,
    /// Since when it waits for bytes, in monotonic time, if it does: a wait that is dropped leaves that behind.
    waits: Option<Duration>,
    /// Whom it reaches.
    pub address: Address,
    /// As whom it is logged in.
    user: String,
}

/// Opens a socket, with TLS where `tls` says so. Nothing is said on it yet.
pub async fn dial(address: &Address, tls: Option<&Tls>, clock: &SharedClock) -> Result<Box<dyn Duplex>> {
    let doing = || format!("connecting to Redis at {address}");
    let dialled = async {
        let socket = TcpStream::connect((address.host.as_str(), address.port)).await.map_err(|cause| {
            Error::new(Kind::Unreachable, doing(), &cause)
                .caused_by(cause)
                .hint("is the address right, the server up, and a NetworkPolicy in the way?")
        })?;
        socket.set_nodelay(true).doing(doing())?;
        match tls {
            Some(tls) => secure(address, tls, socket).await,
            None => Ok(Box::new(socket) as Box<dyn Duplex>),
        }
    };
    let silent = || {
        let error = Error::new(Kind::Timeout, doing(), format!("no connection within {} s", DIAL.as_secs()));
        Err(if tls.is_some() { error.hint(NO_TLS) } else { error })
    };
    within(&**clock, DIAL, dialled, silent).await
}

async fn secure(address: &Address, tls: &Tls, socket: TcpStream) -> Result<Box<dyn Duplex>> {
    let doing = || format!("speaking TLS with Redis at {address}");
    let host = tls.server_name.as_ref().unwrap_or(&address.host);
    let name = ServerName::try_from(host.clone()).map_err(|cause| {
        Error::new(Kind::Config, doing(), cause)
            .hint("set `tls.server_name` to a name that its certificate has")
    })?;
    let connector = TlsConnector::from(tls::client(tls)?);
    let link = connector.connect(name, socket).await.map_err(|cause| refused_tls(doing(), cause))?;
    Ok(Box::new(link))
}

fn refused_tls(doing: String, cause: std::io::Error) -> Error {
    match rustls_error(&cause) {
        Some(rustls::Error::InvalidCertificate(_)) => Error::new(Kind::Denied, doing, &cause)
            .caused_by(cause)
            .hint("set tls.ca_file to the CA that signs the server's certificate"),
        Some(rustls::Error::AlertReceived(_)) => broken(doing, cause),
        _ => Error::new(Kind::Unreachable, doing, &cause).caused_by(cause).hint(NO_TLS),
    }
}

/// A link that broke. A server that wants a certificate of ours says so only after the handshake, by an alert.
fn broken(doing: String, cause: std::io::Error) -> Error {
    match rustls_error(&cause) {
        Some(rustls::Error::AlertReceived(_)) => Error::new(Kind::Denied, doing, &cause)
            .caused_by(cause)
            .hint("does the server ask for a certificate? Set tls.cert_file and tls.key_file"),
        _ => Error::io(doing, cause),
    }
}

fn rustls_error(cause: &std::io::Error) -> Option<&rustls::Error> {
    cause.get_ref().and_then(|inner| inner.downcast_ref::<rustls::Error>())
}

impl Connection {
    /// Dials and logs in.
    ///
    /// # Errors
    /// `Unreachable`, `Timeout`; `Denied` for a wrong password, a wrong user, or none where one is needed.
    pub async fn open(address: &Address, access: &Access, clock: &SharedClock) -> Result<Self> {
        let link = dial(address, access.tls.as_ref(), clock).await?;
        let user = access.username.clone().unwrap_or_else(|| "default".to_owned());
        let (clock, address, waits) = (clock.clone(), address.clone(), None);
        let mut connection = Connection { link, buffer: BytesMut::new(), clock, waits, address, user };
        connection.log_in(access).await?;
        Ok(connection)
    }

    async fn log_in(&mut self, access: &Access) -> Result<()> {
        let Some(password) = &access.password else { return Ok(()) };
        let password = password.read()?;
        let reply = match &access.username {
            Some(user) => self.call(&["AUTH", user, password.expose()]).await?,
            None => self.call(&["AUTH", password.expose()]).await?,
        };
        match reply {
            // A server without a password is told one all the same: that is no reason to stop.
            Reply::Error(text) if text.contains("without any password configured") => Ok(()),
            Reply::Error(text) => Err(self.refusal("AUTH", &text)),
            _ => Ok(()),
        }
    }

    /// Sends a command and waits for its answer, which may be an error of the server's.
    pub async fn call(&mut self, words: &[&str]) -> Result<Reply> {
        let name = words.first().copied().unwrap_or_default();
        self.send(name, &reply::command(words)).await?;
        self.reply(name, ANSWER).await
    }

    /// Sends a command; an error of the server's is ours.
    pub async fn ask(&mut self, words: &[&str]) -> Result<Reply> {
        match self.call(words).await? {
            Reply::Error(text) => Err(self.refusal(&words[..words.len().min(2)].join(" "), &text)),
            reply => Ok(reply),
        }
    }

    /// Sends a command that only tells more; `None` if the server does not know it or refuses it to us.
    pub async fn try_ask(&mut self, words: &[&str]) -> Result<Option<Reply>> {
        Ok(match self.call(words).await? {
            Reply::Error(_) => None,
            reply => Some(reply),
        })
    }

    /// Sends bytes. `name` is the command, for errors.
    pub async fn send(&mut self, name: &str, bytes: &[u8]) -> Result<()> {
        let doing = format!("sending {name} to Redis at {}", self.address);
        let silent = || Err(Error::new(Kind::Timeout, doing.clone(), "the server takes no bytes"));
        let sent = async { self.link.write_all(bytes).await.map_err(|cause| broken(doing.clone(), cause)) };
        within(&*self.clock, ANSWER, sent, silent).await
    }

    /// Waits for the answer to `name`, at most `limit` without a byte.
    pub async fn reply(&mut self, name: &str, limit: Duration) -> Result<Reply> {
        loop {
            match reply::take(&mut self.buffer) {
                Ok(Some(reply)) => return Ok(reply),
                Ok(None) => {}
                Err(cause) => {
                    let doing = format!("reading the answer to {name} from {}", self.address);
                    return Err(Error::new(Kind::Protocol, doing, cause)
                        .hint("is this the port of a Redis, with TLS where the server has it?"));
                }
            }
            if self.fill(&format!("the answer to {name}"), limit).await? == 0 {
                let doing = format!("waiting for the answer to {name} from Redis at {}", self.address);
                return Err(Error::new(Kind::Unreachable, doing, "the server closed the connection")
                    .hint("its log says why; does it restart, or want TLS on this port?"));
            }
        }
    }

    /// Reads what has come, at most `limit` without a byte; 0 at the end. `awaited` is for errors.
    pub async fn fill(&mut self, awaited: &str, limit: Duration) -> Result<usize> {
        if self.buffer.capacity() - self.buffer.len() < ROOM_MIN {
            self.buffer.reserve(ROOM);
        }
        let doing = format!("waiting for {awaited} from Redis at {}", self.address);
        let silent = || {
            let why = format!("nothing came for {} s", limit.as_secs());
            Err(Error::new(Kind::Timeout, doing.clone(), why).hint("is the server stuck, or the way to it?"))
        };
        let read = async {
            let read = self.link.read_buf(&mut self.buffer).await;
            read.map_err(|cause| broken(doing.clone(), cause))
        };
        self.waits = Some(self.clock.monotonic());
        let read = within(&*self.clock, limit, read, silent).await?;
        self.waits = None;
        Ok(read)
    }

    /// For how long nothing has come, though it was waited for.
    pub fn silent_for(&self) -> Duration {
        self.waits.map_or(Duration::ZERO, |since| self.clock.monotonic().saturating_sub(since))
    }

    /// The bytes that were read and not yet taken.
    pub fn unread(&self) -> &[u8] {
        &self.buffer
    }

    /// Takes the first `count` of the unread bytes, without copying them.
    pub fn take(&mut self, count: usize) -> Bytes {
        self.buffer.split_to(count).freeze()
    }

    /// Drops the first `count` of the unread bytes.
    pub fn skip(&mut self, count: usize) {
        self.buffer.advance(count);
    }

    /// The socket itself, once every answer has been read.
    pub fn into_link(self) -> Box<dyn Duplex> {
        self.link
    }

    /// Says goodbye. That it was not heard is no failure.
    pub async fn close(mut self) {
        let doing = format!("closing the connection to {}", self.address);
        let closed = async { self.link.shutdown().await.doing(doing) };
        let _ = within(&*self.clock, Duration::from_secs(1), closed, || Ok(())).await;
    }

    /// What an error of the server's means to us.
    pub fn refusal(&self, name: &str, text: &str) -> Error {
        let doing = format!("{name} at Redis {}", self.address);
        let code = text.split(' ').next().unwrap_or_default();
        let error = |kind| Error::new(kind, doing, text);
        match code {
            "NOAUTH" => error(Kind::Denied).hint("set username and password_file of this Redis"),
            "WRONGPASS" => error(Kind::Denied).hint("check username and password_file of this Redis"),
            "NOPERM" => error(Kind::Denied).hint(format!(
                "run `ACL SETUSER {} {}` on it; `tidekeeper permissions` prints all that is needed",
                self.user,
                right(name)
            )),
            "LOADING" => error(Kind::Unready).hint("the server loads its data; try again when it has"),
            "MASTERDOWN" | "NOMASTERLINK" => error(Kind::Unready).hint(MASTERLESS),
            "BUSY" | "TRYAGAIN" | "CLUSTERDOWN" | "BUSYKEY" => error(Kind::Unready),
            _ if text.contains("invalid password") || text.contains("invalid username-password") => {
                error(Kind::Denied).hint("check username and password_file of this Redis")
            }
            _ if text.contains("max number of clients") => error(Kind::Unready),
            _ if text.contains("unknown command") => error(Kind::Unsupported),
            _ => error(Kind::Protocol),
        }
    }
}

impl std::fmt::Debug for Connection {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "Connection to {}", self.address)
    }
}

/// The right to send a command: `+psync`, `+cluster|nodes`.
fn right(command: &str) -> String {
    const WITH_SUBCOMMANDS: [&str; 7] =
        ["client", "cluster", "command", "config", "function", "pubsub", "sentinel"];
    let lower = command.to_lowercase();
    let mut words = lower.split(' ');
    match (words.next().unwrap_or_default(), words.next()) {
        (first, Some(second)) if WITH_SUBCOMMANDS.contains(&first) => format!("+{first}|{second}"),
        (first, _) => format!("+{first}"),
    }
}
