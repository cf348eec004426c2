//! The one place where time comes from: wall, monotonic, and waiting.
//!
//! Nothing else in the crate may ask for the time (the tidy test and clippy hold this), so tests and the
//! simulation can move it. The third clock, the store's, is [`Store::now`](crate::vault::store::Store::now).

use std::fmt::Debug;
use std::pin::pin;
use std::sync::Arc;
use std::sync::atomic::{AtomicI64, Ordering};
use std::time::Duration;

use async_trait::async_trait;
use jiff::{SignedDuration, Timestamp};

/// A source of time. Shared by everything that one process does.
#[async_trait]
pub trait Clock: Debug + Send + Sync + 'static {
    /// The wall clock: may jump, in both directions.
    fn now(&self) -> Timestamp;

    /// Time since this clock was made: never goes back. Deadlines are counted with it.
    fn monotonic(&self) -> Duration;

    /// Returns after `duration` of monotonic time.
    async fn sleep(&self, duration: Duration);
}

/// How a clock is passed around.
pub type SharedClock = Arc<dyn Clock>;

/// Waits for `work`, but no longer than `limit`: then it is dropped, and `late` answers in its place. What does not
/// answer must not hang us.
pub async fn within<T>(
    clock: &dyn Clock,
    limit: Duration,
    work: impl Future<Output = T>,
    late: impl FnOnce() -> T,
) -> T {
    tokio::select! {
        biased;
        done = work => done,
        () = clock.sleep(limit) => late(),
    }
}

/// How long one waits for others without a word.
const SILENCE: Duration = Duration::from_secs(10);

/// Waits for `work`, and calls `tell` once if that takes long: who waits in silence is taken for one who works.
pub async fn aloud<T>(clock: &dyn Clock, work: impl Future<Output = T>, tell: impl FnOnce()) -> T {
    let mut work = pin!(work);
    tokio::select! {
        biased;
        done = &mut work => return done,
        () = clock.sleep(SILENCE) => tell(),
    }
    work.await
}

/// The machine's clock.
#[derive(Debug)]
pub struct SystemClock {
    started: tokio::time::Instant,
}

impl SystemClock {
    /// The machine's clock, its monotonic time starting at zero now.
    pub fn shared() -> SharedClock {
        #[allow(clippy::disallowed_methods)]
        let started = tokio::time::Instant::now();
        Arc::new(SystemClock { started })
    }
}

#[async_trait]
impl Clock for SystemClock {
    #[allow(clippy::disallowed_methods)]
    fn now(&self) -> Timestamp {
        Timestamp::now()
    }

    fn monotonic(&self) -> Duration {
        self.started.elapsed()
    }

    #[allow(clippy::disallowed_methods)]
    async fn sleep(&self, duration: Duration) {
        tokio::time::sleep(duration).await;
    }
}

/// A clock for tests: its monotonic time is tokio's (so a paused runtime advances it by itself), its
/// wall time is a chosen start plus that, plus whatever jumps the test made.
#[derive(Debug)]
pub struct TestClock {
    origin: Timestamp,
    started: tokio::time::Instant,
    jumped_ms: AtomicI64,
}

impl TestClock {
    /// A clock that shows `origin` now. Call inside a tokio runtime with paused time.
    pub fn starting_at(origin: Timestamp) -> Arc<Self> {
        #[allow(clippy::disallowed_methods)]
        let started = tokio::time::Instant::now();
        Arc::new(TestClock { origin, started, jumped_ms: AtomicI64::new(0) })
    }

    /// Moves the wall clock only, as an operator or NTP would: negative goes back.
    pub fn jump(&self, by: SignedDuration) {
        let ms = i64::try_from(by.as_millis()).expect("a jump fits 64 bits of milliseconds");
        self.jumped_ms.fetch_add(ms, Ordering::SeqCst);
    }
}

#[async_trait]
impl Clock for TestClock {
    fn now(&self) -> Timestamp {
        let jumped = SignedDuration::from_millis(self.jumped_ms.load(Ordering::SeqCst));
        self.origin + self.started.elapsed() + jumped
    }

    fn monotonic(&self) -> Duration {
        self.started.elapsed()
    }

    #[allow(clippy::disallowed_methods)]
    async fn sleep(&self, duration: Duration) {
        tokio::time::sleep(duration).await;
    }
}
