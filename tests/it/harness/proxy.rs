//! A TCP proxy on loopback that does to a link what networks do: delays it, throttles it, cuts it, closes one half.

use std::io;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::tcp::{OwnedReadHalf, OwnedWriteHalf};
use tokio::net::{TcpListener, TcpStream};
use tokio::task::JoinSet;

/// What is done to the bytes that the server sends. The client's bytes pass as they are.
#[derive(Clone, Copy, Debug, Default)]
pub struct Weather {
    /// Each piece waits so long.
    pub delay: Duration,
    /// At most so many bytes a second; 0 is unlimited.
    pub rate: u64,
    /// After so many bytes, over all connections since it was set, `then` happens.
    pub after: Option<u64>,
    /// What happens then.
    pub then: Then,
}

/// How a link ends.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Then {
    /// Both directions are closed.
    #[default]
    Cut,
    /// The server's direction is closed; the client may still write, and is not read.
    HalfClose,
    /// Nothing comes any more, and nothing is closed.
    Silence,
}

/// A proxy in front of a server. It ends with its handle.
#[derive(Debug)]
pub struct Proxy {
    /// Where it listens.
    pub port: u16,
    weather: Arc<Mutex<Weather>>,
    passed: Arc<AtomicU64>,
    _work: JoinSet<()>,
}

impl Proxy {
    /// Starts one in front of a port on loopback; the weather is fine.
    pub async fn start(server: u16) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").await.expect("loopback has ports");
        let port = listener.local_addr().expect("it is bound").port();
        let (weather, passed) = (Arc::new(Mutex::new(Weather::default())), Arc::new(AtomicU64::new(0)));
        let mut work = JoinSet::new();
        let (link_weather, link_passed) = (weather.clone(), passed.clone());
        work.spawn(async move {
            let mut links = JoinSet::new();
            while let Ok((client, _)) = listener.accept().await {
                let Ok(upstream) = TcpStream::connect(("127.0.0.1", server)).await else { continue };
                let link = Link { weather: link_weather.clone(), passed: link_passed.clone() };
                links.spawn(link.carry(client, upstream));
            }
        });
        Proxy { port, weather, passed, _work: work }
    }

    /// Changes the weather, for links that are open too; counting starts anew.
    pub fn set(&self, weather: Weather) {
        *self.weather.lock().expect("no holder panics") = weather;
        self.passed.store(0, Ordering::SeqCst);
    }

    /// How many bytes of the server have passed since the weather was set.
    pub fn passed(&self) -> u64 {
        self.passed.load(Ordering::SeqCst)
    }
}

struct Link {
    weather: Arc<Mutex<Weather>>,
    passed: Arc<AtomicU64>,
}

impl Link {
    async fn carry(self, client: TcpStream, server: TcpStream) {
        let (mut from_client, to_client) = client.into_split();
        let (from_server, mut to_server) = server.into_split();
        let up = async {
            let _ = tokio::io::copy(&mut from_client, &mut to_server).await;
            let _ = to_server.shutdown().await;
        };
        tokio::select! {
            _ = self.down(from_server, to_client) => {}
            () = up => {}
        }
    }

    /// Carries the server's bytes; returns when both directions shall end.
    #[allow(clippy::disallowed_methods)]
    async fn down(&self, mut from: OwnedReadHalf, mut to: OwnedWriteHalf) -> io::Result<()> {
        let mut buffer = vec![0; 64 << 10];
        loop {
            let weather = *self.weather.lock().expect("no holder panics");
            let room = match weather.rate {
                0 => buffer.len(),
                rate => buffer.len().min((rate as usize / 20).max(1)),
            };
            let count = from.read(&mut buffer[..room]).await?;
            if count == 0 {
                return to.shutdown().await;
            }
            let pause = if weather.rate == 0 { 0.0 } else { count as f64 / weather.rate as f64 };
            tokio::time::sleep(weather.delay + Duration::from_secs_f64(pause)).await;
            let weather = *self.weather.lock().expect("no holder panics");
            let left = weather.after.map(|after| after.saturating_sub(self.passed()));
            let now = left.map_or(count, |left| count.min(left as usize));
            to.write_all(&buffer[..now]).await?;
            self.passed.fetch_add(now as u64, Ordering::SeqCst);
            if now < count {
                return self.end(weather.then, to).await;
            }
        }
    }

    async fn end(&self, then: Then, mut to: OwnedWriteHalf) -> io::Result<()> {
        match then {
            Then::Cut => Ok(()),
            Then::HalfClose => {
                to.shutdown().await?;
                std::future::pending().await
            }
            Then::Silence => std::future::pending().await,
        }
    }

    fn passed(&self) -> u64 {
        self.passed.load(Ordering::SeqCst)
    }
}
