//! A link that breaks, stalls, or is slow, at every place of a backup.

use std::sync::Arc;
use std::time::Duration;

use async_trait::async_trait;
use jiff::Timestamp;
use tidekeeper::clock::{Clock, SharedClock, SystemClock};
use tidekeeper::error::Kind;
use tidekeeper::source::redis::address::Address;
use tidekeeper::source::redis::config::{Place, Settings};

use super::backup::{back_up, refused};
use super::stage::{Stage, command, settings};
use crate::harness::proxy::{Proxy, Then, Weather};
use crate::harness::redis::RedisServer;
use crate::harness::wait_for;

/// How much a server of these tests holds: 4,000 values of 1 KiB.
const DATA: u64 = 4 << 20;

async fn server() -> RedisServer {
    let server = RedisServer::start(&["--rdbcompression", "no"]).await;
    let _: () = command(&server, &["DEBUG", "POPULATE", "4096", "key", "1024"]).await;
    server
}

fn through(proxy: &Proxy, server: &RedisServer) -> Settings {
    Settings { place: Place::Fixed(Address::new("127.0.0.1", proxy.port)), ..settings(server) }
}

#[tokio::test]
async fn a_slow_link_is_waited_for() {
    let (stage, server) = (Stage::new(), server().await);
    let proxy = Proxy::start(server.port).await;
    proxy.set(Weather { rate: 4 << 20, delay: Duration::from_millis(2), ..Weather::default() });
    let (capture, _) = back_up(&stage, &through(&proxy, &server)).await.expect("it is backed up");
    assert_eq!(capture.contents.items, 4096);
    assert!(proxy.passed() > DATA);
}

#[tokio::test]
async fn a_cut_anywhere_leaves_no_backup() {
    let (stage, server) = (Stage::new(), server().await);
    let proxy = Proxy::start(server.port).await;
    let settings = through(&proxy, &server);
    proxy.set(Weather::default());
    back_up(&stage, &settings).await.expect("it is backed up");
    let all = proxy.passed();
    // Before and within the answers, before the RDB, inside it. Its very end is where a scripted server is asked.
    let cuts = [0, 1, 10, 150, 300, 600, 900, 2_000, 100_000, all / 2, all - 10_000];
    for after in cuts {
        for then in [Then::Cut, Then::HalfClose] {
            proxy.set(Weather { after: Some(after), then, ..Weather::default() });
            let error = refused(&stage, &settings).await;
            let cut = matches!(error.kind(), Kind::Unreachable | Kind::Unready);
            assert!(cut && error.is_retryable(), "after {after} of {all} bytes, {then:?}: {error:?}");
            if after >= 2_000 {
                assert!(error.why().contains("the transfer was cut after "), "{error:?}");
            }
        }
    }
}

#[tokio::test]
async fn a_server_that_dies_in_mid_transfer_is_unreachable() {
    let (stage, mut server) = (Stage::new(), server().await);
    // More than waits in the kernel's buffers: what the server has handed over arrives although it is dead.
    let _: () = command(&server, &["DEBUG", "POPULATE", "65536", "more", "1024"]).await;
    let proxy = Proxy::start(server.port).await;
    proxy.set(Weather { rate: 1 << 20, ..Weather::default() });
    let settings = through(&proxy, &server);
    let killing = async {
        wait_for("the transfer is under way", Duration::from_secs(20), async || proxy.passed() > 256 << 10)
            .await;
        server.stop();
        proxy.set(Weather::default());
    };
    let (error, ()) = tokio::join!(refused(&stage, &settings), killing);
    assert_eq!(error.kind(), Kind::Unreachable, "{error:?}");
    assert!(error.why().contains("the transfer was cut after "), "{error:?}");
}

/// The machine's clock, but whoever waits waits a twentieth as long: limits of a minute pass in a test.
#[derive(Debug)]
struct Hurried(SharedClock);

#[async_trait]
impl Clock for Hurried {
    fn now(&self) -> Timestamp {
        self.0.now()
    }

    fn monotonic(&self) -> Duration {
        self.0.monotonic()
    }

    async fn sleep(&self, duration: Duration) {
        self.0.sleep(duration / 20).await;
    }
}

#[tokio::test]
async fn a_silence_anywhere_ends_with_what_was_awaited() {
    let server = server().await;
    let proxy = Proxy::start(server.port).await;
    let settings = through(&proxy, &server);
    let mut stage = Stage::new();
    stage.task.clock = Arc::new(Hurried(SystemClock::shared()));
    stage.task.deadline = Duration::from_secs(10_000);
    let awaited = [(0, "the answer to HELLO"), (100_000, "the rest of the RDB")];
    for (after, what) in awaited {
        proxy.set(Weather { after: Some(after), then: Then::Silence, ..Weather::default() });
        let error = refused(&stage, &settings).await;
        assert_eq!(error.kind(), Kind::Timeout, "{error:?}");
        assert!(error.is_retryable());
        assert!(error.doing().contains(what), "after {after} bytes: {error:?}");
    }
}

#[tokio::test]
async fn a_cancelled_backup_leaves_the_server_at_once() {
    let (stage, server) = (Stage::new(), server().await);
    let proxy = Proxy::start(server.port).await;
    proxy.set(Weather { rate: 1 << 20, ..Weather::default() });
    let settings = through(&proxy, &server);
    let cancelling = async {
        wait_for("the transfer is under way", Duration::from_secs(20), async || proxy.passed() > 64 << 10)
            .await;
        stage.task.cancel.cancel();
    };
    let (error, ()) = tokio::join!(refused(&stage, &settings), cancelling);
    assert_eq!(error.kind(), Kind::Cancelled, "{error:?}");
    wait_for("the replica is gone", Duration::from_secs(10), async || {
        super::stage::info(&server, "connected_slaves").await == "0"
    })
    .await;
}
