use std::process::Command;

use tidekeeper::engine::host::{Fate, Holder, Host, LocalHost};

#[test]
fn a_process_is_alive_until_it_is_gone() {
    let host = LocalHost::new("nonce", None);
    assert_eq!(host.fate(host.me()), Fate::Alive);
    let mut child = Command::new("sleep").arg("60").spawn().unwrap();
    let started = start_time(child.id());
    let holder = Holder { pid: child.id(), started, process: "other".to_owned(), ..host.me().clone() };
    assert_eq!(host.fate(&holder), Fate::Alive);
    assert_eq!(
        host.fate(&Holder { started: started + 1, ..holder.clone() }),
        Fate::Gone,
        "the id came again"
    );
    let signal = |signal| {
        let pid = rustix::process::Pid::from_raw(child.id() as i32).unwrap();
        rustix::process::kill_process(pid, signal).unwrap();
    };
    signal(rustix::process::Signal::STOP);
    let stopped = (0..1_000_000).any(|_| host.fate(&holder) == Fate::Stopped);
    signal(rustix::process::Signal::CONT);
    assert!(stopped, "it is there, and does nothing");
    child.kill().unwrap();
    child.wait().unwrap();
    assert_eq!(host.fate(&holder), Fate::Gone);
}

#[test]
fn what_runs_elsewhere_is_unknown() {
    let host = LocalHost::new("nonce", None);
    let me = host.me().clone();
    for other in [
        Holder { host: "elsewhere".to_owned(), ..me.clone() },
        Holder { boot: "before".to_owned(), ..me.clone() },
        Holder { namespace: "pid:[1]".to_owned(), ..me.clone() },
    ] {
        assert_eq!(host.fate(&other), Fate::Unknown);
    }
}

#[test]
fn a_cluster_is_a_domain_of_its_own() {
    let alone = LocalHost::new("nonce", None);
    assert_eq!(alone.domain(), LocalHost::new("other", None).domain());
    assert_eq!(LocalHost::new("nonce", Some("uid")).domain(), "cluster:uid");
}

fn start_time(pid: u32) -> u64 {
    let stat = std::fs::read_to_string(format!("/proc/{pid}/stat")).unwrap();
    stat.rsplit_once(')').unwrap().1.split_ascii_whitespace().nth(19).unwrap().parse().unwrap()
}
