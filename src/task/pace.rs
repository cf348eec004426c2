//! How fast bytes may leave: a limit shared by everything that one process sends.

use std::sync::Mutex;
use std::time::Duration;

use crate::clock::SharedClock;

/// A line that carries so many bytes a second, and one sender at a time.
#[derive(Debug)]
pub struct Pace {
    clock: SharedClock,
    bytes_per_second: u64,
    line: Mutex<Line>,
}

#[derive(Debug, Default)]
struct Line {
    free_at: Duration,
    /// The same for those that go ahead.
    free_ahead_at: Duration,
}

impl Pace {
    /// A line of `bytes_per_second`; 0 is unlimited.
    pub fn new(bytes_per_second: u64, clock: SharedClock) -> Self {
        Pace { clock, bytes_per_second, line: Mutex::default() }
    }

    /// Waits until `bytes` may be sent, and books the line for as long as they take.
    ///
    /// So the average holds whatever the sizes are; within one call the bytes may go as fast as they can.
    pub async fn book(&self, bytes: u64) {
        self.wait(bytes, |line, now, takes| {
            let begin = now.max(line.free_at);
            line.free_at = begin + takes;
            begin
        })
        .await;
    }

    /// The same for what cannot wait until the line is free, because somebody waits for it: it waits for others of its kind
    /// only, and everybody else waits longer. The average holds.
    pub async fn book_ahead(&self, bytes: u64) {
        self.wait(bytes, |line, now, takes| {
            let begin = now.max(line.free_ahead_at);
            line.free_ahead_at = begin + takes;
            line.free_at = now.max(line.free_at) + takes;
            begin
        })
        .await;
    }

    async fn wait(&self, bytes: u64, book: impl FnOnce(&mut Line, Duration, Duration) -> Duration) {
        if self.bytes_per_second == 0 {
            return;
        }
        let now = self.clock.monotonic();
        let takes = Duration::from_secs_f64(bytes as f64 / self.bytes_per_second as f64);
        let begin = book(&mut self.line.lock().expect("no holder panics"), now, takes);
        if begin > now {
            self.clock.sleep(begin - now).await;
        }
    }
}
