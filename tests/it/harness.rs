//! Starts the real servers that the tests run against, and waits for conditions.
//!
//! A missing server fails the test with the command that installs it.
#![allow(dead_code)]

pub mod bench;
pub mod cli;
pub mod clock;
pub mod daemon;
pub mod disk;
pub mod mongodb;
pub mod proxy;
pub mod redis;
pub mod s3;
pub mod slow;
pub mod tls;
pub mod wire;

use std::net::TcpListener;
use std::time::Duration;

/// A port that was free a moment ago. The kernel hands out others first, so a clash is rare; starters retry on one.
pub fn free_port() -> u16 {
    TcpListener::bind("127.0.0.1:0")
        .and_then(|socket| socket.local_addr())
        .expect("loopback has ports")
        .port()
}

/// Waits until `condition` holds, at most `limit`; panics with `what` otherwise.
#[allow(clippy::disallowed_methods)]
pub async fn wait_for(what: &str, limit: Duration, mut condition: impl AsyncFnMut() -> bool) {
    let began = std::time::Instant::now();
    while !condition().await {
        assert!(began.elapsed() < limit, "waited {limit:?} in vain: {what}");
        tokio::time::sleep(Duration::from_millis(10)).await;
    }
}

/// What `work` returns, which takes at most `limit`; panics with `what` otherwise.
#[allow(clippy::disallowed_methods)]
pub async fn within<T>(what: &str, limit: Duration, work: impl Future<Output = T>) -> T {
    let done = tokio::time::timeout(limit, work).await;
    done.unwrap_or_else(|_| panic!("waited {limit:?} in vain: {what}"))
}
