//! A disk of a few MiB: a tmpfs in a mount namespace of its own, seen from outside through `/proc`.

use std::io::{BufRead, BufReader, Write};
use std::path::PathBuf;
use std::process::{Child, ChildStdin, Command, Stdio};

use tempfile::TempDir;

/// A small disk; gone with its handle.
#[derive(Debug)]
pub struct Disk {
    shell: Child,
    orders: ChildStdin,
    answers: BufReader<std::process::ChildStdout>,
    folder: TempDir,
}

impl Disk {
    /// One of so many MiB.
    pub fn of(mib: u32) -> Self {
        let folder = tempfile::tempdir().expect("a temporary folder");
        // In a user namespace of its own anybody may mount, where the kernel's administrator has not forbidden it.
        let mut shell = Command::new("unshare")
            .args(["--map-root-user", "--mount", "sh"])
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .spawn()
            .expect("unshare is missing: `apt-get install util-linux`");
        let orders = shell.stdin.take().expect("its input is a pipe");
        let answers = BufReader::new(shell.stdout.take().expect("its output is a pipe"));
        let mut disk = Disk { shell, orders, answers, folder };
        disk.order(&format!("mount -t tmpfs -o size={mib}m none '{}'", disk.folder.path().display()));
        disk
    }

    /// Where everybody finds it.
    pub fn path(&self) -> PathBuf {
        let inside = self.folder.path().strip_prefix("/").expect("an absolute path");
        PathBuf::from(format!("/proc/{}/root", self.shell.id())).join(inside)
    }

    /// Nobody may write to it from now on.
    pub fn read_only(&mut self) {
        self.order(&format!("mount -o remount,ro '{}'", self.folder.path().display()));
    }

    /// Lets the shell do something, and waits until it has.
    fn order(&mut self, command: &str) {
        writeln!(self.orders, "{command} && echo done || echo failed").expect("the shell is there");
        let mut answer = String::new();
        self.answers.read_line(&mut answer).expect("the shell answers");
        assert_eq!(answer, "done\n", "{command}: may this user mount in a user namespace of its own?");
    }
}

impl Drop for Disk {
    fn drop(&mut self) {
        let _ = self.shell.kill();
        let _ = self.shell.wait();
    }
}
