//! Which process this is, and whether another one still lives.

use std::fmt::Debug;
use std::fs;

use rustix::io::Errno;
use rustix::process::{Pid, test_kill_process};
use serde::{Deserialize, Serialize};

/// A process, named so that others can tell whether it is gone.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Holder {
    /// The host's name.
    pub host: String,
    /// The kernel's boot id: process ids mean nothing across a boot.
    pub boot: String,
    /// The namespace that the process id counts in: containers on one host have one each.
    pub namespace: String,
    /// The process id.
    pub pid: u32,
    /// When that process started, in clock ticks since boot: process ids come again.
    pub started: u64,
    /// The process's nonce.
    pub process: String,
}

/// What is known of another process.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Fate {
    /// It is there.
    Alive,
    /// It is there, and does nothing: it was stopped (SIGSTOP, Ctrl-Z, a debugger).
    Stopped,
    /// It is provably gone: same host, same boot, same namespace, and no such process.
    Gone,
    /// It ran where we cannot look.
    Unknown,
}

/// Knows the processes around us.
pub trait Host: Debug + Send + Sync {
    /// This process.
    fn me(&self) -> &Holder;

    /// Within which leadership passes from a dead process to the next by itself: the cluster (kube-system UID), else
    /// this machine.
    fn domain(&self) -> &str;

    /// Whether another process still lives.
    fn fate(&self, of: &Holder) -> Fate;
}

/// The real thing: `/proc`.
#[derive(Debug)]
pub struct LocalHost {
    me: Holder,
    domain: String,
}

impl LocalHost {
    /// This process, whose nonce is `process`; `cluster` is the kube-system UID where there is one.
    pub fn new(process: &str, cluster: Option<&str>) -> Self {
        let pid = std::process::id();
        let host = rustix::system::uname().nodename().to_string_lossy().into_owned();
        let me = Holder {
            boot: line("/proc/sys/kernel/random/boot_id"),
            namespace: namespace(),
            pid,
            started: stat(pid).map_or(0, |(_, started)| started),
            process: process.to_owned(),
            host,
        };
        let domain = match cluster {
            Some(uid) => format!("cluster:{uid}"),
            None => machine(&me.host),
        };
        LocalHost { me, domain }
    }
}

impl Host for LocalHost {
    fn me(&self) -> &Holder {
        &self.me
    }

    fn domain(&self) -> &str {
        &self.domain
    }

    fn fate(&self, of: &Holder) -> Fate {
        let me = &self.me;
        let visible = of.host == me.host && of.boot == me.boot && of.namespace == me.namespace;
        // Without /proc (not Linux) both fields are empty, and nothing can be proved.
        if !visible || me.boot.is_empty() || me.namespace.is_empty() {
            return Fate::Unknown;
        }
        match stat(of.pid) {
            Some((state, started)) if started == of.started && !matches!(state, 'Z' | 'X') => match state {
                'T' | 't' => Fate::Stopped,
                _ => Fate::Alive,
            },
            Some(_) => Fate::Gone,
            None if no_such_process(of.pid) => Fate::Gone,
            // There, but hidden from us (`hidepid`).
            None => Fate::Unknown,
        }
    }
}

fn machine(host: &str) -> String {
    match line("/etc/machine-id") {
        id if id.is_empty() => format!("host:{host}"),
        id => format!("machine:{id}:{host}"),
    }
}

fn namespace() -> String {
    fs::read_link("/proc/self/ns/pid").map(|link| link.to_string_lossy().into_owned()).unwrap_or_default()
}

fn line(path: &str) -> String {
    fs::read_to_string(path).map(|text| text.trim().to_owned()).unwrap_or_default()
}

/// State and start time (fields 3 and 22) of a process, if `/proc` shows it. The second field is the command's name in
/// parentheses and may hold anything, so fields count from the last parenthesis.
fn stat(pid: u32) -> Option<(char, u64)> {
    let stat = fs::read_to_string(format!("/proc/{pid}/stat")).ok()?;
    let mut fields = stat.rsplit_once(')')?.1.split_ascii_whitespace();
    let state = fields.next()?.chars().next()?;
    Some((state, fields.nth(18)?.parse().ok()?))
}

fn no_such_process(pid: u32) -> bool {
    let Some(pid) = i32::try_from(pid).ok().and_then(Pid::from_raw) else { return true };
    test_kill_process(pid) == Err(Errno::SRCH)
}
