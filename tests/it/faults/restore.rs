//! What would harm a target is refused before it is touched: by `restore`, whether it was confirmed or not.

use bytes::Bytes;
use serde_json::Value;
use tidekeeper::clock::SystemClock;
use tidekeeper::config::Limits;
use tidekeeper::source::redis::crc64::Crc64;
use tidekeeper::task::{Spool, Task};
use tidekeeper::vault::Vault;
use tidekeeper::vault::layout::{BackupId, BackupRef, random};
use tidekeeper::vault::manifest::Status;
use tidekeeper::vault::writer::{BackupWriter, Capture};

use super::{backed_up, directory, filled, redis_cmd, say, says};
use crate::harness::cli::Cli;
use crate::harness::daemon::LONG;
use crate::harness::redis::RedisServer;
use crate::harness::wait_for;

/// A source, a vault, and a target that holds something.
async fn stage(args: &[&str]) -> (RedisServer, RedisServer, Cli) {
    let (source, target) = tokio::join!(filled(4 << 20), RedisServer::start(args));
    let cli = Cli::of_redis(&source.url());
    cli.configure(&format!("targets:\n  - name: scratch\n    redis: {{ url: \"{}\" }}\n", target.url()));
    cli.run(&["init"]).await.exits(0);
    if !args.contains(&"--replicaof") {
        say(&target, &["SET", "old", "data"]).await;
    }
    (source, target, cli)
}

/// The same with a target that takes its time to load, and a backup that makes it do so.
async fn slow_stage() -> (RedisServer, RedisServer, Cli, String) {
    let slow = ["--key-load-delay", "1000", "--loading-process-events-interval-bytes", "1024"];
    let (source, target, cli) = stage(&slow).await;
    say(&source, &["DEBUG", "POPULATE", "3000"]).await;
    let backup = backed_up(&cli).await;
    (source, target, cli, backup)
}

/// The hash of the plan that `args` ask for.
async fn planned(cli: &Cli, args: &[&str]) -> String {
    let plan = cli.run(&[args, &["--dry-run", "--json"]].concat()).await.exits(0).json();
    plan["hash"].as_str().expect("a hash").to_owned()
}

/// Whether a server says `field` of itself.
async fn reports(server: &RedisServer, field: &str) -> bool {
    let info = redis_cmd(&["INFO"]).query_async::<String>(&mut server.connect().await).await;
    info.expect("it answers").contains(field)
}

/// Neither the plan nor a confirmation lets it happen, and every answer says why.
async fn is_refused(cli: &Cli, target: &RedisServer, backup: &str, words: &[&str]) {
    let before = target.digest().await;
    let dry = ["restore", backup, "--to", "scratch", "--dry-run", "--json"];
    let plan = cli.run(&dry).await.exits(1).json();
    let findings = plan["findings"].as_array().expect("a list").iter();
    let errors: Vec<&Value> = findings.filter(|finding| finding["severity"] == "error").collect();
    assert!(errors.iter().all(|error| error["advice"].as_str().is_some_and(|advice| !advice.is_empty())));
    assert!(plan["hash"].is_null(), "there is nothing that could be confirmed: {plan}");
    for confirm in [&[][..], &["--confirm", "0123456789abcdef"]] {
        let ran = cli.run(&[&["restore", backup, "--to", "scratch"], confirm].concat()).await;
        says(ran, 1, &[words, &["the target was not touched"]].concat());
    }
    let runs = cli.run(&["runs", "--action", "restore", "--json"]).await.exits(0).json();
    assert_eq!(runs["runs"][0]["state"], "failed", "{runs}");
    assert_eq!(target.digest().await, before, "a refused restore touched the target");
}

#[tokio::test]
async fn into_too_few_databases() {
    let (source, target, cli) = stage(&["--databases", "1"]).await;
    let mut connection = source.connect().await;
    let set = redis::pipe()
        .add_command(redis_cmd(&["SELECT", "9"]))
        .add_command(redis_cmd(&["SET", "a", "b"]))
        .to_owned();
    let () = set.query_async(&mut connection).await.expect("it is set");
    let backup = backed_up(&cli).await;
    is_refused(&cli, &target, &backup, &["uses database 9, the target has 1 databases"]).await;
}

#[tokio::test]
async fn into_too_little_memory() {
    let (_source, target, cli) = stage(&["--maxmemory", "3mb"]).await;
    let backup = backed_up(&cli).await;
    is_refused(&cli, &target, &backup, &["maxmemory of the target is 3 MiB"]).await;
}

#[tokio::test]
async fn into_the_replica_of_another() {
    let (_source, target, cli) = stage(&["--replicaof", "127.0.0.1", "1"]).await;
    let backup = backed_up(&cli).await;
    is_refused(&cli, &target, &backup, &["is a replica of 127.0.0.1:1"]).await;
}

/// Puts an RDB into the vault that no server here writes.
async fn planted(cli: &Cli, magic: &str, body: &[u8]) -> String {
    let mut rdb = [magic.as_bytes(), body, &[255]].concat();
    rdb.extend_from_slice(&Crc64::of(&rdb).to_le_bytes());
    let clock = SystemClock::shared();
    let limits = Limits { spool_dir: cli.path("spool"), ..Limits::default() };
    let task = Task {
        run: "planted".into(),
        deadline: clock.monotonic() + LONG,
        cancel: Default::default(),
        progress: Default::default(),
        spool: Spool::new(&limits, clock.clone()).expect("a spool"),
        limits: limits.into(),
        clock: clock.clone(),
    };
    let vault = Vault::new(directory(cli), clock.clone(), None);
    let id = BackupId::new(clock.now(), None, random() as u32);
    let backup = BackupRef { source: "redis-main".parse().expect("a name"), id };
    let writer = BackupWriter::new(&vault, backup.clone(), "redis", &task, clock.now());
    let mut artifact = writer.artifact("dump.rdb", "application/vnd.redis.rdb").expect("an artifact");
    artifact.write(Bytes::from(rdb)).await.expect("it is written");
    artifact.finish().await.expect("it is stored");
    writer.commit(Capture::default(), Status::Complete, None).await.expect("it is committed");
    backup.to_string()
}

#[tokio::test]
async fn into_a_server_that_is_older_than_the_format() {
    let (_source, target, cli) = stage(&[]).await;
    let backup = planted(&cli, "REDIS0012", b"\xfe\x00\x00\x01k\x01v").await;
    is_refused(&cli, &target, &backup, &["format REDIS 12"]).await;
}

#[tokio::test]
async fn into_a_server_without_the_module() {
    let (_source, target, cli) = stage(&[]).await;
    let backup = planted(&cli, "REDIS0010", b"\x07\x01k\x81\x45\xe2\x52\x38\xdf\x91\x2c\x03\x00").await;
    is_refused(&cli, &target, &backup, &["the target has no module for it"]).await;
}

#[tokio::test]
async fn one_that_was_stopped_says_whether_the_target_was_touched() {
    let (_source, target, cli, backup) = slow_stage().await;
    let to = ["restore", &backup, "--to", "scratch"];
    let hash = planned(&cli, &to).await;
    let args = [&to[..], &["--confirm", &hash]].concat();
    let mut command = cli.command(&args);
    command.stdout(std::process::Stdio::piped()).stderr(std::process::Stdio::piped());
    let restore = command.spawn().expect("the binary is built");
    let id = restore.id().and_then(|id| i32::try_from(id).ok()).and_then(rustix::process::Pid::from_raw);
    wait_for("it loads", LONG, async || reports(&target, "loading:1").await).await;
    rustix::process::kill_process(id.expect("it runs"), rustix::process::Signal::INT).expect("it is ours");
    let ended = restore.wait_with_output().await.expect("it ends");
    let said = String::from_utf8(ended.stderr).expect("text");
    let touched = "hint: the target was being written: it may hold part or all of the backup; restore again";
    for words in [&format!("restoring {backup} into scratch"), "somebody asked for an end", touched] {
        assert!(ended.status.code() == Some(1) && said.contains(words), "{words:?} is not in {said}");
    }
    let runs = cli.run(&["runs", "--action", "restore", "--json"]).await.exits(0).json();
    assert_eq!(runs["runs"][0]["state"], "cancelled", "{runs}");
    let shown = cli.run(&["runs", "show", runs["runs"][0]["run"].as_str().expect("a run")]).await.stdout;
    assert!(shown.contains(&format!("restoring {backup} into scratch")), "{shown}");
}

#[tokio::test]
async fn one_that_was_killed_says_how_the_target_is_freed() {
    let (source, target, cli, backup) = slow_stage().await;
    let to = ["restore", &backup, "--to", "scratch"];
    let confirmed = planned(&cli, &to).await;
    let mut command = cli.command(&[&to[..], &["--confirm", &confirmed]].concat());
    let mut restore = command.stderr(std::process::Stdio::null()).spawn().expect("the binary is built");
    wait_for("it loads", LONG, async || reports(&target, "loading:1").await).await;
    restore.kill().await.expect("it was running");
    wait_for("it has loaded", LONG, async || reports(&target, "loading:0").await).await;
    assert!(reports(&target, "role:slave").await);
    let told = async || cli.run(&["status", "--json"]).await.exits(0).json()["problems"].to_string();
    let again = format!("`tidekeeper restore {backup} --to scratch`");
    let status = told().await;
    assert!(
        status.contains("was interrupted when it had begun to write") && status.contains(&again),
        "{status}"
    );

    is_refused(&cli, &target, &backup, &["is a replica of", "send `REPLICAOF NO ONE` to the target"]).await;
    say(&target, &["REPLICAOF", "NO", "ONE"]).await;
    cli.run(&[&to[..], &["--confirm", &planned(&cli, &to).await]].concat()).await.exits(0);
    assert_eq!(target.digest().await, source.digest().await);
    assert!(!told().await.contains("begun to write"));
}
