//! The master's half of replication: takes one replica, gives it one RDB, and waits until it is loaded.
//!
//! The RDB goes out in the form `$EOF:<mark>` although its length is known. With the mark the replica acknowledges
//! the moment it has loaded (with a length it waits for its next second), and the last word is ours: without the
//! mark nothing is loaded. Nothing follows the mark, because a replica that loads straight from the socket reads
//! ahead and drops what it finds there. `+CONTINUE` is never answered.
//! Protocol: `replication.c` of Redis, `syncWithMaster` and `readSyncBulkPayload`.

use std::net::{IpAddr, SocketAddr};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::time::Duration;

use bytes::Bytes;
use tokio::io::{AsyncRead, AsyncWriteExt, ReadHalf, WriteHalf};
use tokio::net::TcpListener;
use tokio_rustls::TlsAcceptor;

use self::command::{Commands, Heard};
use super::connection::Duplex;
use super::feed::Feed;
use crate::clock::{SharedClock, within};
use crate::config::secret::Secret;
use crate::error::{Context, Error, Kind, Result};
use crate::task::Progress;

pub mod command;

/// The one server that may have the data, and how it proves that it is the one.
#[derive(Clone, Debug)]
pub struct Guest {
    /// For people: endpoint and version.
    pub label: String,
    /// From where it may dial.
    pub addresses: Vec<IpAddr>,
    /// Its `master_replid`. A master that is told to follow another asks to go on from its own history, by this id of
    /// 160 random bits, so the id shows that the caller is the server that was told.
    pub replid: String,
    /// What it logs in with; `None` where it has no `masterauth`, or where its configuration may not be read.
    pub login: Option<Login>,
}

/// `masteruser` and `masterauth` of the target.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Login {
    /// None: `AUTH <password>`.
    pub user: Option<String>,
    /// The password.
    pub password: Secret,
}

/// What is served.
#[derive(Debug)]
pub struct Offer {
    /// 40 letters: the history that the data belongs to. After its promotion the target names it as `master_replid2`.
    pub replid: String,
    /// The offset in that history.
    pub offset: u64,
    /// How many bytes the feed has.
    pub bytes: u64,
    /// The bytes.
    pub feed: Feed,
}

/// How long each silence may last.
#[derive(Clone, Copy, Debug)]
pub struct Patience {
    /// From `REPLICAOF` until the right caller has said what it wants. A server dials at once, or within its next second.
    pub dial: Duration,
    /// For a caller's whole handshake: who only talks keeps the target out no longer.
    pub handshake: Duration,
    /// Without a byte taken or heard, once the transfer began: the default `repl-timeout`, by which a real master and
    /// a real replica give each other up.
    pub silence: Duration,
}

impl Default for Patience {
    fn default() -> Self {
        Patience {
            dial: Duration::from_secs(20),
            handshake: Duration::from_secs(5),
            silence: Duration::from_secs(60),
        }
    }
}

/// Where the target dials.
pub struct Listener {
    socket: TcpListener,
    tls: Option<TlsAcceptor>,
}

impl Listener {
    /// Listens at `address`; with `tls` the target must speak TLS (`tls-replication yes`).
    pub async fn bind(address: SocketAddr, tls: Option<Arc<rustls::ServerConfig>>) -> Result<Self> {
        let doing = || format!("listening for the target at {address}");
        let socket = TcpListener::bind(address).await.doing(doing()).map_err(|error| {
            error.hint("set `listen` of the target to an address of this machine, or to 0.0.0.0:0")
        })?;
        Ok(Listener { socket, tls: tls.map(TlsAcceptor::from) })
    }

    /// Where it really listens.
    pub fn address(&self) -> Result<SocketAddr> {
        self.socket.local_addr().doing("listening for the target")
    }

    async fn accept(&self) -> Result<(tokio::net::TcpStream, IpAddr)> {
        let (link, from) = self.socket.accept().await.doing("listening for the target")?;
        link.set_nodelay(true).doing("listening for the target")?;
        Ok((link, from.ip().to_canonical()))
    }
}

type Link = Box<dyn Duplex>;

/// A caller that was let in and waits for its RDB.
struct Session {
    commands: Commands<ReadHalf<Link>>,
    out: WriteHalf<Link>,
}

/// Serves one RDB to one server.
#[derive(Clone, Debug)]
pub struct Master {
    /// To whom.
    pub guest: Guest,
    /// The clock.
    pub clock: SharedClock,
    /// Told the bytes as they go out.
    pub progress: Progress,
    /// The limits.
    pub patience: Patience,
}

impl Master {
    /// Waits for the target to dial, sends the RDB, and returns when the target says that it has loaded it.
    ///
    /// Whatever goes wrong before that, the link is cut without the mark, so the target does not take the data on.
    /// The listener is closed as soon as the target is in.
    pub async fn serve(&self, listener: Listener, offer: Offer) -> Result<()> {
        let Session { mut commands, out } = self.admit(listener).await?;
        let sent = Sent { all: AtomicBool::new(false), bytes: AtomicU64::new(0), total: offer.bytes };
        let offset = offer.offset;
        let sending = async {
            self.send(out, offer, &sent).await?;
            sent.all.store(true, Ordering::Release);
            Ok(())
        };
        tokio::try_join!(sending, self.await_loaded(&mut commands, offset, &sent))?;
        Ok(())
    }

    async fn admit(&self, listener: Listener) -> Result<Session> {
        let until = self.clock.monotonic() + self.patience.dial;
        let mut turned_away: Vec<String> = Vec::new();
        loop {
            let left = until.saturating_sub(self.clock.monotonic());
            let (link, from) = tokio::select! {
                caller = listener.accept() => caller?,
                () = self.clock.sleep(left) => return Err(self.nobody_came(&turned_away)),
            };
            let refusal = if self.guest.addresses.contains(&from) {
                match self.within_handshake(self.greet(link, listener.tls.as_ref())).await {
                    Ok(session) => return Ok(session),
                    Err(refusal) => refusal.why().to_owned(),
                }
            } else {
                "it is not an address of the target".to_owned()
            };
            let line = format!("{from}: {refusal}");
            if turned_away.len() < 5 && !turned_away.contains(&line) {
                turned_away.push(line);
            }
        }
    }

    async fn greet(&self, link: tokio::net::TcpStream, tls: Option<&TlsAcceptor>) -> Result<Session> {
        let link: Link = match tls {
            None => Box::new(link),
            Some(tls) => Box::new(tls.accept(link).await.doing(DOING)?),
        };
        let (input, mut out) = tokio::io::split(link);
        let mut commands = Commands::new(input);
        let mut logged_in = false;
        loop {
            let words = match commands.next().await? {
                Heard::Keepalive => continue,
                Heard::Command(words) => words,
                Heard::End => return Err(Error::new(Kind::Protocol, DOING, "it hung up in the handshake")),
            };
            let (reply, why) = match answer(&words, &self.guest, &mut logged_in) {
                Answer::Admit => return Ok(Session { commands, out }),
                Answer::Reply(reply) => (reply, None),
                Answer::Refuse(reply, why) => (reply, Some(why)),
            };
            out.write_all(reply.as_bytes()).await.doing(DOING)?;
            if let Some(why) = why {
                return Err(Error::new(Kind::Denied, DOING, why));
            }
        }
    }

    async fn within_handshake<T>(&self, work: impl Future<Output = Result<T>>) -> Result<T> {
        let late = || Err(Error::new(Kind::Timeout, DOING, "its handshake took too long"));
        within(&*self.clock, self.patience.handshake, work, late).await
    }

    async fn send(&self, mut out: WriteHalf<Link>, offer: Offer, sent: &Sent) -> Result<()> {
        let Offer { replid, offset, bytes, mut feed } = offer;
        self.write(&mut out, format!("+FULLRESYNC {replid} {offset}\r\n").as_bytes(), sent).await?;
        let mut next = self.first_chunk(&mut out, &mut feed, sent).await?;
        let mark = hex_40();
        self.write(&mut out, format!("$EOF:{mark}\r\n").as_bytes(), sent).await?;
        while let Some(chunk) = next {
            let chunk = chunk?;
            self.write(&mut out, &chunk, sent).await?;
            sent.bytes.fetch_add(chunk.len() as u64, Ordering::Relaxed);
            self.progress.add_bytes(chunk.len() as u64);
            next = feed.recv().await;
        }
        let got = sent.bytes.load(Ordering::Relaxed);
        if got != bytes {
            let why = format!("the artifact ended after {got} of {bytes} bytes");
            return Err(Error::new(Kind::Damaged, self.doing(), why));
        }
        self.write(&mut out, mark.as_bytes(), sent).await?;
        out.flush().await.doing(self.doing())
    }

    /// Newlines keep the target waiting while the vault is slow; it gives up after a silence of `repl-timeout`.
    async fn first_chunk(
        &self,
        out: &mut WriteHalf<Link>,
        feed: &mut Feed,
        sent: &Sent,
    ) -> Result<Option<Result<Bytes>>> {
        loop {
            tokio::select! {
                chunk = feed.recv() => return Ok(chunk),
                () = self.clock.sleep(Duration::from_secs(1)) => self.write(out, b"\n", sent).await?,
            }
        }
    }

    async fn write(&self, out: &mut WriteHalf<Link>, bytes: &[u8], sent: &Sent) -> Result<()> {
        tokio::select! {
            done = out.write_all(bytes) => done.doing(self.doing()).map_err(|error| match error.kind() {
                Kind::Unreachable => self.hung_up(sent),
                _ => error,
            }),
            () = self.clock.sleep(self.patience.silence) => {
                let why = format!("it has taken nothing for {:?} ({sent})", self.patience.silence);
                Err(Error::new(Kind::Timeout, self.doing(), why).hint("look into the target's log"))
            }
        }
    }

    async fn await_loaded<R: AsyncRead + Unpin>(
        &self,
        commands: &mut Commands<R>,
        offset: u64,
        sent: &Sent,
    ) -> Result<()> {
        loop {
            let heard = tokio::select! {
                heard = commands.next() => heard.map_err(|error| match error.kind() {
                    Kind::Unreachable => self.hung_up(sent),
                    _ => error,
                })?,
                () = self.clock.sleep(self.patience.silence) => {
                    if sent.all.load(Ordering::Acquire) {
                        return Err(self.silent());
                    }
                    continue;
                }
            };
            match heard {
                Heard::Keepalive => {}
                Heard::End => return Err(self.hung_up(sent)),
                Heard::Command(words) => match acknowledged(&words) {
                    Some(at) if at == offset => return Ok(()),
                    Some(at) => {
                        let why = format!("it acknowledges offset {at}, where the data is of {offset}");
                        return Err(Error::new(Kind::Protocol, self.doing(), why));
                    }
                    None => {}
                },
            }
        }
    }

    fn doing(&self) -> String {
        format!("sending the RDB to {}", self.guest.label)
    }

    fn nobody_came(&self, turned_away: &[String]) -> Error {
        let waited = self.patience.dial;
        let why = match turned_away {
            [] => format!("the target has not dialled us within {waited:?}"),
            some => format!("nobody who dialled us within {waited:?} was let in: {}", some.join("; ")),
        };
        Error::new(Kind::Unreachable, self.doing(), why).retryable(false).hint(
            "the target must be able to dial us: set `listen` and `advertise` of the target to an address \
             that it reaches, look for a NetworkPolicy or a proxy between, or restore with the option \
             way=restore, where only we dial",
        )
    }

    fn hung_up(&self, sent: &Sent) -> Error {
        let why =
            format!("the target hung up ({sent}): it died, refused the data, or was told to follow another");
        Error::new(Kind::Unreachable, self.doing(), why)
            .retryable(false)
            .hint("look into the target's log; what it holds now depends on its `repl-diskless-load`")
    }

    fn silent(&self) -> Error {
        let why = format!("it has all of the data, but has said nothing for {:?}", self.patience.silence);
        Error::new(Kind::Timeout, format!("waiting for {} to load", self.guest.label), why)
            .hint("look into the target's log")
    }
}

const DOING: &str = "greeting the target";

/// How far the sender is, for the messages of whoever listens.
struct Sent {
    all: AtomicBool,
    bytes: AtomicU64,
    total: u64,
}

impl std::fmt::Display for Sent {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "after {} of {} bytes", self.bytes.load(Ordering::Relaxed), self.total)
    }
}

/// What a command of the handshake is answered with.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Answer {
    /// This line, and the handshake goes on.
    Reply(&'static str),
    /// It is the target and wants its RDB.
    Admit,
    /// This line, then the link is cut, because of that.
    Refuse(&'static str, &'static str),
}

/// Decides on one command of a caller. Any capability is taken note of and none is used, so a newer server falls back
/// to what all versions speak.
pub fn answer(words: &[Vec<u8>], guest: &Guest, logged_in: &mut bool) -> Answer {
    let Some((verb, rest)) = words.split_first() else { return Answer::Reply("") };
    match verb.to_ascii_uppercase().as_slice() {
        b"PING" => Answer::Reply("+PONG\r\n"),
        b"AUTH" if guest.login.as_ref().is_none_or(|login| login.is(rest)) => {
            *logged_in = true;
            Answer::Reply("+OK\r\n")
        }
        b"AUTH" => Answer::Refuse("-WRONGPASS not the target's masterauth\r\n", "its password is wrong"),
        b"PSYNC" if guest.login.is_some() && !*logged_in => Answer::Refuse(
            "-NOAUTH Authentication required.\r\n",
            "it did not log in with the target's masterauth",
        ),
        b"PSYNC" if rest.first().is_some_and(|id| id.as_slice() == guest.replid.as_bytes()) => Answer::Admit,
        b"PSYNC" | b"SYNC" => Answer::Refuse(
            "-ERR this is a restore for another server\r\n",
            "it does not know the target's replication id",
        ),
        b"REPLCONF" => Answer::Reply("+OK\r\n"),
        _ => Answer::Refuse("-ERR unknown command\r\n", "it is not a replica"),
    }
}

impl Login {
    fn is(&self, words: &[Vec<u8>]) -> bool {
        let (user, password) = match words {
            [password] => (b"default".as_slice(), password),
            [user, password] => (user.as_slice(), password),
            _ => return false,
        };
        let expected = self.user.as_deref().unwrap_or("default");
        let same = aws_lc_rs::constant_time::verify_slices_are_equal;
        user == expected.as_bytes() && same(password, self.password.expose().as_bytes()).is_ok()
    }
}

/// The offset of `REPLCONF ACK <offset>`.
fn acknowledged(words: &[Vec<u8>]) -> Option<u64> {
    let [verb, what, offset, ..] = words else { return None };
    let ack = verb.eq_ignore_ascii_case(b"REPLCONF") && what.eq_ignore_ascii_case(b"ACK");
    ack.then(|| std::str::from_utf8(offset).ok()?.parse().ok()).flatten()
}

/// 160 random bits as 40 letters: an end mark, or a history that is nobody's.
pub fn hex_40() -> String {
    let mut bytes = [0; 20];
    getrandom::fill(&mut bytes).expect("the operating system gives random bytes");
    hex::encode(bytes)
}
