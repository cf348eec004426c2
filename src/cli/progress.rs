//! How far a task is, on stderr: a bar on a terminal, a line now and then elsewhere.

use std::future::Future;
use std::io::IsTerminal;
use std::time::Duration;

use indicatif::{ProgressBar, ProgressDrawTarget, ProgressStyle};

use super::human;
use crate::clock::SharedClock;
use crate::task::{Progress, Snapshot};

/// How often a bar is drawn.
const BAR_EVERY: Duration = Duration::from_millis(200);

/// How often a line is written within one step, so that a log of an hour stays readable.
const LINE_EVERY: Duration = Duration::from_secs(15);

/// Shows `progress` while `work` is done.
pub async fn shown<T>(clock: &SharedClock, progress: &Progress, work: impl Future<Output = T>) -> T {
    let mut display = Display::new(clock.monotonic());
    tokio::pin!(work);
    loop {
        tokio::select! {
            biased;
            done = &mut work => {
                display.clear();
                return done;
            }
            () = clock.sleep(BAR_EVERY) => display.update(&progress.snapshot(), clock.monotonic()),
        }
    }
}

/// A bar or lines.
enum Display {
    Bar(ProgressBar),
    Lines { step: String, written: Duration },
}

impl Display {
    fn new(now: Duration) -> Self {
        if !std::io::stderr().is_terminal() {
            return Display::Lines { step: String::new(), written: now };
        }
        let bar = ProgressBar::with_draw_target(None, ProgressDrawTarget::stderr_with_hz(5));
        Display::Bar(bar)
    }

    fn update(&mut self, at: &Snapshot, now: Duration) {
        match self {
            Display::Bar(bar) => draw(bar, at),
            Display::Lines { step, written } => {
                let news = *step != at.step || now.saturating_sub(*written) >= LINE_EVERY;
                if news && !at.step.is_empty() {
                    eprintln!("{}", line(at));
                    (*step, *written) = (at.step.clone(), now);
                }
            }
        }
    }

    fn clear(&mut self) {
        if let Display::Bar(bar) = self {
            bar.finish_and_clear();
        }
    }
}

fn draw(bar: &ProgressBar, at: &Snapshot) {
    let template = match at.bytes_total {
        None => "{spinner} {msg} ({elapsed})",
        Some(_) => "{spinner} {msg} [{bar:30}] {binary_bytes_per_sec}, {eta} left",
    };
    if let Ok(style) = ProgressStyle::with_template(template) {
        bar.set_style(style.progress_chars("=> "));
    }
    if at.bytes < bar.position() {
        bar.reset(); // another step began: its rate is its own
    }
    bar.set_length(at.bytes_total.unwrap_or_default());
    bar.set_position(at.bytes);
    bar.set_message(line(at));
    bar.tick();
}

/// `load: 1.2 GiB of 4.0 GiB, 944,000 items`
pub fn line(at: &Snapshot) -> String {
    let mut parts = Vec::new();
    match (at.bytes, at.bytes_total) {
        // Nothing of it is done yet, or none of it is counted: the step's name alone is true.
        (0, _) => {}
        (bytes, None) => parts.push(human::bytes(bytes)),
        (bytes, Some(total)) => parts.push(format!("{} of {}", human::bytes(bytes), human::bytes(total))),
    }
    if at.items > 0 {
        parts.push(format!("{} items", human::count(at.items)));
    }
    match parts.is_empty() {
        true => at.step.clone(),
        false => format!("{}: {}", at.step, parts.join(", ")),
    }
}
