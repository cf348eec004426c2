//! How fast bytes may leave: a limit shared by everything that one process sends.

use std::sync::Mutex;
use std::time::Duration;

use crate::clock::SharedClock;

/// A line that carries so many bytes a second, and one sender at a time.
#[derive(Debug)]
pub struct Pace {
    clock: SharedClock,
    bytes_per_second: u64,
    free_at: Mutex<Duration>,
}

impl Pace {
    /// A line of `bytes_per_second`; 0 is unlimited.
    pub fn new(bytes_per_second: u64, clock: SharedClock) -> Self {
        Pace { clock, bytes_per_second, free_at: Mutex::new(Duration::ZERO) }
    }

    /// Waits until `bytes` may be sent, and books the line for as long as they take.
    ///
    /// So the average holds whatever the sizes are; within one call the bytes may go as fast as they can.
    pub async fn book(&self, bytes: u64) {
        if self.bytes_per_second == 0 {
            return;
        }
        let now = self.clock.monotonic();
        let begin = {
            let mut free_at = self.free_at.lock().expect("no holder panics");
            let begin = now.max(*free_at);
            *free_at = begin + Duration::from_secs_f64(bytes as f64 / self.bytes_per_second as f64);
            begin
        };
        if begin > now {
            self.clock.sleep(begin - now).await;
        }
    }
}
