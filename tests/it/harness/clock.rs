//! Another time for the real binary: libfaketime, as dev/setup installs it.

use std::path::PathBuf;

use super::cli::Cli;

/// The file from which a process with another time reads it, again and again.
const FILE: &str = "time";

impl Cli {
    /// Gives every process started from here on the time that [`time`](Self::time) says; the monotonic clock stays.
    pub fn with_time(mut self, time: &str) -> Self {
        self.time(time);
        self.env.push(("LD_PRELOAD", library()));
        self.env.push(("FAKETIME_TIMESTAMP_FILE", self.path(FILE).display().to_string()));
        self.env.push(("FAKETIME_NO_CACHE", "1".to_owned()));
        self.env.push(("FAKETIME_DONT_FAKE_MONOTONIC", "1".to_owned()));
        self
    }

    /// Sets the clock, of running processes too: `-3600` is an hour back, `@2027-03-28 00:59:57` starts there.
    pub fn time(&self, time: &str) {
        // By a rename: a process may read it at any moment.
        self.write("time.new", time);
        std::fs::rename(self.path("time.new"), self.path(FILE)).expect("writable");
    }
}

/// Variables by which all clocks of a process run so many times as fast, from its start on.
pub fn hurried(times: u32) -> Vec<(&'static str, String)> {
    vec![("LD_PRELOAD", library()), ("FAKETIME", format!("+0 x{times}"))]
}

/// The library that is loaded before libc.
fn library() -> String {
    let folders = std::fs::read_dir("/usr/lib").into_iter().flatten().flatten().map(|entry| entry.path());
    let of = |folder: PathBuf| folder.join("faketime/libfaketimeMT.so.1");
    let found = folders.chain(["/usr/lib".into()]).map(of).find(|library| library.exists());
    let found = found.expect("libfaketime is missing: run dev/setup, or `apt-get install faketime`");
    found.display().to_string()
}
