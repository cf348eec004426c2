//! A wire that breaks: a TCP proxy before a real server, told when to cut, swallow or stall.

use std::sync::Arc;
use std::sync::atomic::{AtomicI64, AtomicUsize, Ordering};
use std::time::Duration;

use async_trait::async_trait;
use jiff::Timestamp;
use tidekeeper::clock::{Clock, SharedClock, SystemClock};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpListener, TcpStream};

use super::S3Server;

/// What happens on the wire from now on.
#[derive(Debug, Default)]
struct Wire {
    /// How many more connections are to be cut.
    cuts: AtomicUsize,
    /// After how many bytes of answers, on each of them; negative: never a byte of an answer passes, nor an end.
    after: AtomicI64,
}

/// The proxy; it ends with the test's runtime.
#[derive(Clone, Debug)]
pub struct Proxy {
    wire: Arc<Wire>,
    /// The server as seen through the proxy.
    pub server: S3Server,
}

impl Proxy {
    /// A proxy before `server`.
    pub async fn before(server: S3Server) -> Self {
        let socket = TcpListener::bind("127.0.0.1:0").await.expect("loopback has ports");
        let port = socket.local_addr().expect("it is bound").port();
        let target = server.endpoint.trim_start_matches("http://").to_owned();
        let wire = Arc::new(Wire::default());
        let of = wire.clone();
        tokio::spawn(async move {
            while let Ok((client, _)) = socket.accept().await {
                tokio::spawn(pass(client, target.clone(), of.clone()));
            }
        });
        let endpoint = format!("http://127.0.0.1:{port}");
        Proxy { wire, server: S3Server { endpoint, ..server } }
    }

    /// Cuts the next `times` connections that carry answers, each after `bytes` bytes of them: with 0 bytes the server has
    /// acted and its reply is lost.
    pub fn cut(&self, times: usize, bytes: i64) {
        self.wire.after.store(bytes, Ordering::SeqCst);
        self.wire.cuts.store(times, Ordering::SeqCst);
    }

    /// Holds back every answer on the next `times` connections that carry one, for ever.
    pub fn stall(&self, times: usize) {
        self.cut(times, -1);
    }

    /// How many cuts or stalls are still to come.
    pub fn left(&self) -> usize {
        self.wire.cuts.load(Ordering::SeqCst)
    }
}

async fn pass(client: TcpStream, target: String, wire: Arc<Wire>) {
    let Ok(server) = TcpStream::connect(target).await else { return };
    let (mut from_client, mut to_client) = client.into_split();
    let (mut from_server, mut to_server) = server.into_split();
    let requests = tokio::spawn(async move { tokio::io::copy(&mut from_client, &mut to_server).await });
    let mut buffer = vec![0; 64 << 10];
    let mut budget: Option<i64> = None;
    while let Ok(received @ 1..) = from_server.read(&mut buffer).await {
        if budget.is_none() && take_one(&wire.cuts) {
            budget = Some(wire.after.load(Ordering::SeqCst));
        }
        let pass = match &mut budget {
            None => received,
            Some(..0) => std::future::pending().await,
            Some(left) => {
                let pass = received.min(*left as usize);
                *left -= pass as i64;
                pass
            }
        };
        if to_client.write_all(&buffer[..pass]).await.is_err() || pass < received {
            break;
        }
    }
    requests.abort();
}

fn take_one(left: &AtomicUsize) -> bool {
    left.fetch_update(Ordering::SeqCst, Ordering::SeqCst, |left| left.checked_sub(1)).is_ok()
}

/// A clock by which waiting takes a two-hundredth of its time: 30 s of patience are over in 150 ms.
#[derive(Debug)]
pub struct HurriedClock(SharedClock);

impl HurriedClock {
    /// A new one.
    pub fn shared() -> SharedClock {
        Arc::new(HurriedClock(SystemClock::shared()))
    }
}

#[async_trait]
impl Clock for HurriedClock {
    fn now(&self) -> Timestamp {
        self.0.now()
    }

    fn monotonic(&self) -> Duration {
        self.0.monotonic() * 200
    }

    async fn sleep(&self, duration: Duration) {
        self.0.sleep(duration / 200).await;
    }
}
