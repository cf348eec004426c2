//! A gate before a real S3 server: it reads what each request asks for, and holds, refuses or loses those it was told of.
//!
//! It relies on what every client of HTTP/1.1 without pipelining does: a request begins with a write of its own.

use std::sync::{Arc, Mutex};

use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::tcp::{OwnedReadHalf, OwnedWriteHalf};
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::Semaphore;
use tokio_util::sync::CancellationToken;

use super::S3Server;

/// What happens to a request.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Fate {
    /// So many bytes of it pass, the others when it is let go: mostly its process is dead by then.
    Held(usize),
    /// The server acts, its answer passes when the request is let go.
    AnswerHeld,
    /// The server acts, its answer never passes: the connection is cut.
    AnswerLost,
    /// The server never sees it; this is the answer.
    Refused(&'static str),
}

/// What S3 answers when it is asked too much.
pub const SLOW_DOWN: &str = "HTTP/1.1 503 Slow Down\r\nContent-Type: application/xml\r\nContent-Length: 79\r\n\
                             Connection: close\r\n\r\n\
                             <Error><Code>SlowDown</Code><Message>Reduce your request rate</Message></Error>";

/// The gate; it ends with the test's runtime.
#[derive(Clone, Debug)]
pub struct Gate {
    rules: Arc<Mutex<Vec<Arc<Rule>>>>,
    /// The server as seen through the gate.
    pub server: S3Server,
}

/// Which requests meet which fate.
#[derive(Debug)]
pub struct Rule {
    /// What their first lines begin with, and what they contain.
    line: (&'static str, String),
    fate: Fate,
    left: Semaphore,
    met: Semaphore,
    go: CancellationToken,
    arrived: Semaphore,
}

impl Rule {
    /// Returns when a request has met its fate; each is told once.
    pub async fn met(&self) {
        self.met.acquire().await.expect("it is never closed").forget();
    }

    /// How many requests have met their fate and were not told.
    pub fn times_met(&self) -> usize {
        self.met.available_permits()
    }

    /// Lets go what is held, and whatever comes.
    pub fn let_go(&self) {
        self.left.close();
        self.go.cancel();
    }

    /// Lets go what a process had sent that is dead by now; returns when the server has dealt with it.
    pub async fn arrive_late(&self) {
        self.let_go();
        self.arrived.acquire().await.expect("it is never closed").forget();
    }

    fn takes(&self, line: &str) -> bool {
        let (method, part) = &self.line;
        line.starts_with(method)
            && line.contains(part.as_str())
            && self.left.try_acquire().map(|one| one.forget()).is_ok()
    }
}

impl Gate {
    /// A gate before `server` that lets everything pass.
    pub async fn before(server: S3Server) -> Self {
        let socket = TcpListener::bind("127.0.0.1:0").await.expect("loopback has ports");
        let port = socket.local_addr().expect("it is bound").port();
        let target = server.endpoint.trim_start_matches("http://").to_owned();
        let rules: Arc<Mutex<Vec<Arc<Rule>>>> = Arc::default();
        let of = rules.clone();
        tokio::spawn(async move {
            while let Ok((client, _)) = socket.accept().await {
                tokio::spawn(pass(client, target.clone(), of.clone()));
            }
        });
        Gate { rules, server: S3Server { endpoint: format!("http://127.0.0.1:{port}"), ..server } }
    }

    /// The next `times` requests by `method` whose line contains `part` meet `fate`.
    pub fn on(&self, method: &'static str, part: &str, times: usize, fate: Fate) -> Arc<Rule> {
        let rule = Arc::new(Rule {
            line: (method, part.to_owned()),
            fate,
            left: Semaphore::new(times),
            met: Semaphore::new(0),
            go: CancellationToken::new(),
            arrived: Semaphore::new(0),
        });
        self.rules.lock().expect("no holder panics").push(rule.clone());
        rule
    }
}

/// The rule that the next answer on a connection is under.
type Pending = Arc<Mutex<Option<Arc<Rule>>>>;

async fn pass(client: TcpStream, target: String, rules: Arc<Mutex<Vec<Arc<Rule>>>>) {
    let Ok(server) = TcpStream::connect(target).await else { return };
    let (from_client, mut to_client) = client.into_split();
    let (from_server, to_server) = server.into_split();
    let pending = Pending::default();
    let (refuse, mut refused) = tokio::sync::mpsc::channel(1);
    let up = tokio::spawn(ask(from_client, to_server, rules, pending.clone(), refuse));
    tokio::select! {
        () = answer(from_server, &mut to_client, pending) => {}
        Some(text) = refused.recv() => drop(to_client.write_all(text).await),
    }
    // What is refused or held goes on without answers; a connection that is cut is cut on both sides.
    let _ = to_client.shutdown().await;
    if let Ok(Some(held)) = up.await {
        held.arrived.add_permits(1);
    }
}

/// Carries requests to the server, and tells at the end what it had held back. What a client had sent still arrives when the
/// client is gone, as on any network.
async fn ask(
    mut client: OwnedReadHalf,
    mut server: OwnedWriteHalf,
    rules: Arc<Mutex<Vec<Arc<Rule>>>>,
    pending: Pending,
    refuse: tokio::sync::mpsc::Sender<&'static [u8]>,
) -> Option<Arc<Rule>> {
    let mut buffer = vec![0; 64 << 10];
    let mut through = usize::MAX;
    let (mut held, mut was_held) = (None::<Arc<Rule>>, None);
    while let Ok(count @ 1..) = client.read(&mut buffer).await {
        let rules: Vec<_> = rules.lock().expect("no holder panics").clone();
        let line = first_line(&buffer[..count]);
        if let Some(rule) = line.and_then(|line| rules.into_iter().find(|rule| rule.takes(line))) {
            match rule.fate {
                Fate::Held(bytes) => (through, held) = (bytes, Some(rule)),
                Fate::AnswerHeld | Fate::AnswerLost => {
                    *pending.lock().expect("no holder panics") = Some(rule);
                }
                Fate::Refused(text) => {
                    rule.met.add_permits(1);
                    let _ = refuse.send(text.as_bytes()).await;
                    while let Ok(1..) = client.read(&mut buffer).await {}
                    return None;
                }
            }
        }
        let now = count.min(through);
        if server.write_all(&buffer[..now]).await.is_err() {
            return was_held;
        }
        if held.is_some() {
            through -= now;
        }
        if now < count {
            let rule = held.take().expect("what is held back has a rule");
            rule.met.add_permits(1);
            rule.go.cancelled().await;
            (through, was_held) = (usize::MAX, Some(rule));
            if server.write_all(&buffer[now..count]).await.is_err() {
                return was_held;
            }
        }
    }
    was_held
}

/// Carries answers to the client, until one is to be lost.
async fn answer(mut server: OwnedReadHalf, client: &mut OwnedWriteHalf, pending: Pending) {
    let mut buffer = vec![0; 64 << 10];
    while let Ok(count @ 1..) = server.read(&mut buffer).await {
        let only_begun = buffer[..count].starts_with(b"HTTP/1.1 100");
        let rule = match only_begun {
            true => None,
            false => pending.lock().expect("no holder panics").take(),
        };
        if let Some(rule) = rule {
            rule.met.add_permits(1);
            if rule.fate == Fate::AnswerLost {
                return;
            }
            rule.go.cancelled().await;
        }
        if client.write_all(&buffer[..count]).await.is_err() {
            return;
        }
    }
}

/// `PUT /bucket/key HTTP/1.1`, if a request begins here.
fn first_line(bytes: &[u8]) -> Option<&str> {
    let methods: [&[u8]; 5] = [b"GET ", b"HEAD ", b"PUT ", b"POST ", b"DELETE "];
    methods.iter().any(|method| bytes.starts_with(method)).then_some(())?;
    let end = bytes.iter().position(|byte| *byte == b'\r')?;
    std::str::from_utf8(&bytes[..end]).ok()
}
