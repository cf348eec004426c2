//! Calls to the kernel that take seconds, so that a process can be ended just before one of them: strace, as dev/setup
//! installs it.

use std::process::{Child, Command, Stdio};

use super::daemon::LONG;
use super::wait_for;

/// Slows a process down; with its handle that ends.
#[derive(Debug)]
pub struct Slow(Child);

impl Slow {
    /// From now on each of these calls of process `pid` begins two seconds late.
    pub async fn down(pid: u32, calls: &str) -> Self {
        let child = Command::new("strace")
            .args(["-f", "-qq", "-o", "/dev/null", "-p", &pid.to_string()])
            .args(["-e", &format!("trace={calls}"), "-e", &format!("inject={calls}:delay_enter=2s")])
            .stderr(Stdio::null())
            .spawn()
            .expect("strace is missing: run dev/setup, or `apt-get install strace`");
        wait_for("strace is attached to every thread", LONG, async || is_traced(pid)).await;
        Slow(child)
    }
}

impl Drop for Slow {
    fn drop(&mut self) {
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

/// Whether every thread of a process has a tracer.
fn is_traced(pid: u32) -> bool {
    let threads = std::fs::read_dir(format!("/proc/{pid}/task")).into_iter().flatten().flatten();
    // A thread that has ended meanwhile has no status, and needs no tracer.
    let statuses = threads.filter_map(|thread| std::fs::read_to_string(thread.path().join("status")).ok());
    statuses.map(|status| status.contains("TracerPid:\t0\n")).all(|free| !free)
}
