//! Real servers are restored into, in every way, and interrupted in every way.

use std::collections::BTreeSet;
use std::time::Duration;

use serde_json::json;
use tidekeeper::config::secret::{Password, Secret};
use tidekeeper::error::Kind;
use tidekeeper::source::redis::address::Address;
use tidekeeper::source::redis::config::Settings;
use tidekeeper::source::redis::master::Patience;
use tidekeeper::source::redis::permissions::permissions;
use tidekeeper::source::redis::restore::RedisTarget;
use tidekeeper::source::{RestorePlan, Role, Severity, Target};
use tidekeeper::vault::manifest::Contents;
use tidekeeper::vault::reader::BackupReader;

use super::stage::{Stage, command, fill, info, rdb, saved, script, settings, target, wished, with_version};
use crate::harness::redis::RedisServer;
use crate::harness::tls::tls_server;
use crate::harness::{free_port, wait_for};

const LIMIT: Duration = Duration::from_secs(20);

/// A backup of a filled server, and that server's digest.
async fn backup(stage: &Stage) -> (BackupReader, String) {
    let source = RedisServer::start(&[]).await;
    fill(&source).await;
    let backup = stage.backup_of(&source).await;
    (backup, source.digest().await)
}

async fn role(server: &RedisServer) -> String {
    info(server, "role").await
}

fn verbs(plan: &RestorePlan) -> Vec<&str> {
    plan.actions.iter().map(|action| action.verb.as_str()).collect()
}

#[tokio::test]
async fn replication_brings_the_same_data_however_the_target_loads() {
    let stage = Stage::new();
    let (backup, digest) = backup(&stage).await;
    for load in ["disabled", "swapdb", "on-empty-db"] {
        let server = RedisServer::start(&["--repl-diskless-load", load]).await;
        let _: () = command(&server, &["SET", "old", "data"]).await;
        let target = target(&server);
        let plan = stage.plan(&target, &backup, json!({})).await.expect("a plan");
        assert_eq!(plan.blockers().count(), 0, "{:?}", plan.findings);
        assert_eq!(plan.spec["way"], "replication");
        assert!(plan.is_destructive());
        assert_eq!(plan.live, ["db0: 1 key, 0 of them with a time to live"]);
        assert_eq!(plan.at_stake, ["the keys of db0"]);
        assert_eq!(verbs(&plan), ["replace", "load", "load", "load"]);

        let restored = target.restore(&backup, &plan, &stage.task).await.expect("it restores");
        assert_eq!(restored.items, 3020, "{load}");
        assert!(restored.omissions.is_empty());
        assert_eq!(server.digest().await, digest, "{load}");
        assert_eq!(role(&server).await, "master");
        assert_eq!(info(&server, "number_of_libraries").await, "1");
        let checks = target.compare(&backup, &stage.task).await.expect("it compares");
        assert_eq!(checks.iter().filter(|check| !check.passed).count(), 0, "{checks:?}");
        assert_eq!(checks.len(), 5);
    }
}

#[tokio::test]
async fn commands_bring_the_same_data() {
    let stage = Stage::new();
    let (backup, digest) = backup(&stage).await;
    let server = RedisServer::start(&[]).await;
    let _: () = command(&server, &["SET", "old", "data"]).await;
    let target = target(&server);
    let restored = stage.restore(&target, &backup, json!({"way": "restore"})).await.expect("it restores");
    assert_eq!(restored.items, 3020);
    assert!(restored.omissions.is_empty(), "{:?}", restored.omissions);
    assert_eq!(server.digest().await, digest);
    assert_eq!(info(&server, "number_of_libraries").await, "1");
    let checks = target.compare(&backup, &stage.task).await.expect("it compares");
    assert!(checks.iter().all(|check| check.passed), "{checks:?}");
}

#[tokio::test]
async fn long_values_come_by_either_way() {
    let stage = Stage::new();
    let source = RedisServer::start(&["--rdbcompression", "no"]).await;
    script(
        &source,
        "redis.call('SETRANGE', 'big', 50 * 1024 * 1024, 'end'); redis.call('SET', 'small', 'x')",
    )
    .await;
    script(&source, "for n = 1, 100 do redis.call('SETRANGE', 'long:' .. n, 65500 + n, 'end') end").await;
    let backup = stage.backup_of(&source).await;
    for way in ["replication", "restore"] {
        let server = RedisServer::start(&[]).await;
        let restored =
            stage.restore(&target(&server), &backup, json!({"way": way})).await.expect("it restores");
        assert_eq!(restored.items, 102, "{way}");
        assert_eq!(server.digest().await, source.digest().await, "{way}");
    }
}

#[tokio::test]
async fn what_the_eviction_policy_knows_comes_along() {
    let stage = Stage::new();
    let lfu = ["--maxmemory-policy", "allkeys-lfu"];
    let source = RedisServer::start(&lfu).await;
    script(&source, "redis.call('SET', 'hot', 1); for n = 1, 2000 do redis.call('GET', 'hot') end").await;
    let backup = stage.backup_of(&source).await;
    let server = RedisServer::start(&lfu).await;
    stage.restore(&target(&server), &backup, json!({"way": "restore"})).await.expect("it restores");
    let (before, after): (u64, u64) = (
        command(&source, &["OBJECT", "FREQ", "hot"]).await,
        command(&server, &["OBJECT", "FREQ", "hot"]).await,
    );
    assert!(before > 5, "the key is hot: {before}");
    assert_eq!(after, before);
}

#[tokio::test]
async fn the_target_logs_in_with_its_masterauth() {
    let stage = Stage::new();
    let (backup, digest) = backup(&stage).await;
    for login in [&["--masterauth", "secret"][..], &["--masterauth", "secret", "--masteruser", "anna"]] {
        let server = RedisServer::start(login).await;
        stage.restore(&target(&server), &backup, json!({})).await.expect("it restores");
        assert_eq!(server.digest().await, digest);
    }
}

/// The rights that the last line of `permissions` grants, as `INFO commandstats` names them.
fn rights(line: &str) -> BTreeSet<String> {
    line.split('+').skip(1).map(|right| right.trim().to_owned()).collect()
}

/// Which commands a server was sent.
async fn obeyed(server: &RedisServer) -> Vec<String> {
    let told: String = command(server, &["INFO", "commandstats"]).await;
    let name = |line: &str| Some(line.strip_prefix("cmdstat_")?.split(':').next()?.to_owned());
    told.lines().filter_map(name).collect()
}

#[tokio::test]
async fn the_printed_rights_are_enough_and_each_is_used() {
    let stage = Stage::new();
    let (backup, digest) = backup(&stage).await;
    let source = RedisServer::start(&[]).await;
    script(&source, "redis.call('SET', 'key', 1)").await;
    let one_db = stage.backup_of(&source).await;
    let mut unused = BTreeSet::new();
    let cases =
        [(&backup, "replication", RedisServer::start(&[]).await), (&backup, "restore", filled().await)];
    for (backup, way, server) in cases.into_iter().chain([(&one_db, "restore", cluster().await)]) {
        let mut settings = settings(&server);
        settings.access.username = Some("tidekeeper".to_owned());
        settings.access.password = Some(Password::Given(Secret::new("secret")));
        let line =
            permissions(&settings, Role::Target).pop().expect("a line").text.replace("PASSWORD", "secret");
        let _: () = command(&server, &line.split(' ').collect::<Vec<_>>()).await;
        let _: () = command(&server, &["CONFIG", "RESETSTAT"]).await;
        let target = RedisTarget::new(settings);
        let plan = stage.plan(&target, backup, json!({"way": way})).await.expect("a plan");
        assert!(plan.findings.iter().all(|finding| !finding.advice.contains("allow")), "{:?}", plan.findings);
        target.restore(backup, &plan, &stage.task).await.expect("it restores");
        let expected = if std::ptr::eq(backup, &one_db) { source.digest().await } else { digest.clone() };
        assert_eq!(server.digest().await, expected, "{way}");
        if unused.is_empty() {
            unused = rights(&line);
        }
        for command in obeyed(&server).await {
            unused.remove(&command);
        }
    }
    assert_eq!(unused, BTreeSet::new(), "granted, and never sent");
}

/// A server that has data and a library.
async fn filled() -> RedisServer {
    let server = RedisServer::start(&[]).await;
    fill(&server).await;
    server
}

#[tokio::test]
async fn some_keys_are_restored_beside_others() {
    let stage = Stage::new();
    let (backup, _) = backup(&stage).await;
    let server = RedisServer::start(&[]).await;
    script(&server, "redis.call('SET', 'mine', 1); redis.call('SET', 'user:7', 'changed')").await;
    let target = target(&server);
    let plan = stage.plan(&target, &backup, json!({"keys": "user:[1-9]"})).await.expect("a plan");
    assert!(!plan.is_destructive(), "nothing is overwritten");
    assert_eq!(verbs(&plan), ["create"]);
    let restored = target.restore(&backup, &plan, &stage.task).await.expect("it restores");
    assert_eq!(restored.items, 8);
    assert_eq!(restored.omissions.len(), 1);
    assert_eq!(restored.omissions[0].what, "1 keys (user:7)");
    assert!(restored.omissions[0].why.starts_with("BUSYKEY"), "{:?}", restored.omissions);
    assert_eq!(command::<String>(&server, &["GET", "user:7"]).await, "changed");
    assert_eq!(command::<u64>(&server, &["DBSIZE"]).await, 10);
    assert_eq!(info(&server, "number_of_libraries").await, "0", "only keys were asked for");

    let wish = json!({"keys": "user:[1-9]", "replace": true});
    let plan = stage.plan(&target, &backup, wish).await.expect("a plan");
    assert!(plan.is_destructive());
    let restored = target.restore(&backup, &plan, &stage.task).await.expect("it restores");
    assert!(restored.omissions.is_empty(), "{:?}", restored.omissions);
    assert_eq!(command::<String>(&server, &["GET", "user:7"]).await, "value 7");
    assert_eq!(command::<String>(&server, &["GET", "mine"]).await, "1");
}

#[tokio::test]
async fn what_does_not_fit_is_named() {
    let stage = Stage::new();
    let (backup, _) = backup(&stage).await;
    let server = RedisServer::start(&["--maxmemory", "1500kb"]).await;
    let wish = json!({"keys": "*"});
    let restored = stage.restore(&target(&server), &backup, wish).await.expect("it goes on");
    assert!(restored.items < 3020);
    let [omission] = restored.omissions.as_slice() else { panic!("{:?}", restored.omissions) };
    assert!(omission.why.starts_with("OOM"), "{omission:?}");
    assert!(omission.what.starts_with(&format!("{} keys (", 3020 - restored.items)), "{omission:?}");
}

/// A cluster of one node that has all slots.
async fn cluster() -> RedisServer {
    let server = RedisServer::start(&["--cluster-enabled", "yes"]).await;
    let _: () = command(&server, &["CLUSTER", "ADDSLOTSRANGE", "0", "16383"]).await;
    wait_for("the cluster is up", LIMIT, async || {
        command::<String>(&server, &["CLUSTER", "INFO"]).await.contains("cluster_state:ok")
    })
    .await;
    server
}

#[tokio::test]
async fn a_cluster_gets_commands() {
    let stage = Stage::new();
    let source = RedisServer::start(&[]).await;
    script(
        &source,
        "for n = 1, 500 do redis.call('SET', 'key:' .. n, n) end; redis.call('SADD', '{tag}s', 1)",
    )
    .await;
    let backup = stage.backup_of(&source).await;
    let server = cluster().await;
    let target = target(&server);
    let plan = stage.plan(&target, &backup, json!({})).await.expect("a plan");
    assert_eq!(plan.spec["way"], "restore-commands");
    assert!(plan.target.id.starts_with("redis-cluster:"));
    let restored = target.restore(&backup, &plan, &stage.task).await.expect("it restores");
    assert_eq!((restored.items, restored.omissions.len()), (501, 0));
    assert_eq!(server.digest().await, source.digest().await);
    let forced = stage.plan(&target, &backup, json!({"way": "replication"})).await.expect("a plan");
    assert!(forced.blockers().next().is_some_and(|finding| finding.what.contains("node of a cluster")));
    let two_dbs = stage.backup(&[("dump.rdb", &rdb("REDIS0010", b"\xfe\x03\x00\x01k\x01v"))]).await;
    let plan = stage.plan(&target, &two_dbs, json!({})).await.expect("a plan");
    assert!(plan.blockers().next().is_some_and(|finding| finding.what.contains("only database 0")));
}

#[tokio::test]
async fn shards_come_together_in_one_server() {
    let stage = Stage::new();
    let (first, second) = tokio::join!(RedisServer::start(&[]), RedisServer::start(&[]));
    script(&first, "for n = 1, 300 do redis.call('SET', 'a:' .. n, n) end").await;
    script(&second, "for n = 1, 200 do redis.call('SET', 'b:' .. n, n) end").await;
    let rdbs = [saved(&first).await, saved(&second).await];
    let backup = stage.backup(&[("shard-0-8000.rdb", &rdbs[0]), ("shard-8001-16383.rdb", &rdbs[1])]).await;
    let server = RedisServer::start(&[]).await;
    let plan = stage.plan(&target(&server), &backup, json!({})).await.expect("a plan");
    assert_eq!(plan.spec["way"], "restore-commands");
    assert!(plan.actions[0].reason.contains("2 shards"), "{:?}", plan.actions);
    let restored = target(&server).restore(&backup, &plan, &stage.task).await.expect("it restores");
    assert_eq!(restored.items, 500);
    assert_eq!(command::<u64>(&server, &["DBSIZE"]).await, 500);
}

#[tokio::test]
async fn a_plan_is_for_one_server_in_one_state() {
    let stage = Stage::new();
    let (backup, _) = backup(&stage).await;
    let (server, other) = tokio::join!(RedisServer::start(&[]), RedisServer::start(&[]));
    let plan = stage.plan(&target(&server), &backup, json!({})).await.expect("a plan");
    assert!(!plan.is_destructive());
    let again = stage.plan(&target(&server), &backup, json!({})).await.expect("a plan");
    assert_eq!(plan.hash(), again.hash());
    let elsewhere = target(&other).restore(&backup, &plan, &stage.task).await.expect_err("another server");
    assert_eq!(elsewhere.kind(), Kind::Conflict);

    let _: () = command(&server, &["SET", "new", "data"]).await;
    let filled = target(&server).restore(&backup, &plan, &stage.task).await.expect_err("it has data now");
    assert_eq!(filled.kind(), Kind::Refused);
    assert!(
        filled.why().contains("the keys of db0 came into the target") && filled.why().contains("1 key now"),
        "{filled}"
    );
    assert_eq!(command::<String>(&server, &["GET", "new"]).await, "data");
    let later = stage.plan(&target(&server), &backup, json!({})).await.expect("a plan");
    assert!(later.is_destructive());
    assert_ne!(later.hash(), plan.hash(), "nobody who saw it empty has said that this may go");
    let _: () = command(&server, &["SET", "more", "data"]).await;
    let more = stage.plan(&target(&server), &backup, json!({})).await.expect("a plan");
    assert_eq!(more.hash(), later.hash(), "live counts are not part of the hash");
}

/// Plans that cannot be executed, and the servers stay as they are.
#[tokio::test]
async fn what_would_harm_a_target_is_refused_before() {
    let stage = Stage::new();
    let source = RedisServer::start(&[]).await;
    fill(&source).await;
    let bytes = saved(&source).await;
    let good = stage.backup(&[("dump.rdb", &bytes)]).await;
    let newer = stage.backup(&[("dump.rdb", &with_version(&bytes, 12))]).await;
    let unknown = stage.backup(&[("dump.rdb", &with_version(&bytes, 99))]).await;
    let json_key = b"\x07\x01k\x81\x45\xe2\x52\x38\xdf\x91\x2c\x03\x00";
    let module = stage.backup(&[("dump.rdb", &rdb("REDIS0010", json_key))]).await;
    let cases = [
        (&newer, &[][..], "format REDIS 12"),
        (&unknown, &[], "format REDIS0099 is not known"),
        (&module, &[], "and the target has no module for it"),
        (&good, &["--databases", "1"], "uses database 9, the target has 1 databases"),
        (&good, &["--maxmemory", "1200kb"], "maxmemory of the target is 1 MiB"),
        (&good, &["--replicaof", "127.0.0.1", "1"], "is a replica of 127.0.0.1:1"),
    ];
    for (backup, args, expected) in cases {
        let server = RedisServer::start(args).await;
        if !args.contains(&"--replicaof") {
            let _: () = command(&server, &["SET", "old", "data"]).await;
        }
        let before = server.digest().await;
        let target = target(&server);
        let plan = stage.plan(&target, backup, json!({})).await.expect("a plan that says no");
        let blocker = plan.blockers().find(|finding| finding.what.contains(expected));
        let blocker = blocker.unwrap_or_else(|| panic!("{expected}: {:?}", plan.findings));
        assert!(!blocker.advice.is_empty());
        let error = target.restore(backup, &plan, &stage.task).await.expect_err("it is not executed");
        assert_eq!(error.kind(), Kind::Unsupported);
        assert_eq!(server.digest().await, before);
    }
}

#[tokio::test]
async fn commands_bring_newer_formats_as_far_as_the_target_knows_them() {
    let stage = Stage::new();
    let source = RedisServer::start(&[]).await;
    fill(&source).await;
    let backup = stage.backup(&[("dump.rdb", &with_version(&saved(&source).await, 12))]).await;
    let server = RedisServer::start(&[]).await;
    let restored =
        stage.restore(&target(&server), &backup, json!({"way": "restore"})).await.expect("it restores");
    assert!(restored.omissions.is_empty(), "{:?}", restored.omissions);
    assert_eq!(server.digest().await, source.digest().await);

    let newer_hash = [b"\xfe\x00\x00\x01k\x01v\x19\x01h".as_slice(), &[0; 8], b"\x01x"].concat();
    let backup = stage.backup(&[("dump.rdb", &rdb("REDIS0012", &newer_hash))]).await;
    let plan = stage.plan(&target(&server), &backup, json!({"way": "restore"})).await.expect("a plan");
    let warned =
        |finding: &&tidekeeper::source::Finding| finding.what.starts_with("1 keys are written in ways");
    assert_eq!(plan.findings.iter().find(warned).map(|finding| finding.severity), Some(Severity::Warning));
    let restored = target(&server).restore(&backup, &plan, &stage.task).await.expect("it restores");
    assert_eq!((restored.items, restored.omissions.len()), (1, 1));
    assert!(restored.omissions[0].why.contains("Bad data format"), "{:?}", restored.omissions);
}

#[tokio::test]
async fn a_flipped_bit_is_found_before_the_target_is_touched() {
    let stage = Stage::new();
    let (backup, _) = backup(&stage).await;
    stage.damage(&backup).await;
    let server = RedisServer::start(&[]).await;
    let error = stage.plan(&target(&server), &backup, json!({})).await.expect_err("it is damaged");
    assert_eq!(error.kind(), Kind::Damaged);
    assert_eq!(info(&server, "sync_full").await, "0");
}

#[tokio::test]
async fn a_bit_that_flips_after_the_plan_never_gets_loaded() {
    let stage = Stage::new();
    for load in ["disabled", "swapdb"] {
        let (backup, _) = backup(&stage).await;
        let server = RedisServer::start(&["--repl-diskless-load", load]).await;
        let _: () = command(&server, &["SET", "old", "data"]).await;
        let target = target(&server);
        let plan = stage.plan(&target, &backup, json!({})).await.expect("a plan");
        stage.damage(&backup).await;
        let error = target.restore(&backup, &plan, &stage.task).await.expect_err("it is damaged");
        assert_eq!(error.kind(), Kind::Damaged, "{error:?}");
        assert_eq!(role(&server).await, "master");
        assert_eq!(command::<String>(&server, &["GET", "old"]).await, "data", "{load}");
    }
}

fn impatient(settings: Settings) -> RedisTarget {
    let dial = Duration::from_millis(500);
    RedisTarget::new(settings).with_patience(Patience { dial, ..Patience::default() })
}

#[tokio::test]
async fn a_target_that_cannot_dial_us_keeps_its_data() {
    let stage = Stage::new();
    let (backup, _) = backup(&stage).await;
    let server = RedisServer::start(&[]).await;
    let _: () = command(&server, &["SET", "old", "data"]).await;
    let nowhere = Some(Address::new("127.0.0.1", free_port()));
    let target = impatient(Settings { advertise: nowhere, ..settings(&server) });
    let error = stage.restore(&target, &backup, json!({})).await.expect_err("nobody dials");
    assert_eq!(error.kind(), Kind::Unreachable);
    assert!(error.why().contains("has not dialled us"), "{error}");
    assert!(
        error.hint_text().is_some_and(|hint| hint.contains("advertise") && hint.contains("NetworkPolicy"))
    );
    assert_eq!(role(&server).await, "master");
    assert_eq!(command::<String>(&server, &["GET", "old"]).await, "data");
}

/// A server that takes its time with each key, so that the test can do something meanwhile.
async fn slow_loader(args: &[&str]) -> RedisServer {
    let slow = ["--key-load-delay", "500", "--loading-process-events-interval-bytes", "1024"];
    RedisServer::start(&[&slow, args].concat()).await
}

async fn is_loading(server: &RedisServer) {
    wait_for("it loads", LIMIT, async || {
        info(server, "loading").await == "1" || info(server, "async_loading").await == "1"
    })
    .await;
}

#[tokio::test]
async fn a_target_that_dies_while_loading_is_an_error_at_once() {
    let stage = Stage::new();
    let (backup, _) = backup(&stage).await;
    let server = slow_loader(&[]).await;
    let target = target(&server);
    let killing = async {
        is_loading(&server).await;
        let pid = rustix_pid(&server);
        rustix::process::kill_process(pid, rustix::process::Signal::KILL).expect("it is ours");
    };
    let (restored, ()) = tokio::join!(stage.restore(&target, &backup, json!({})), killing);
    let error = restored.expect_err("it died");
    assert_eq!(error.kind(), Kind::Unreachable);
    assert!(error.why().contains("hung up"), "{error}");
    assert!(error.hint_text().is_some_and(|hint| hint.contains("REPLICAOF NO ONE")), "{error:?}");
}

fn rustix_pid(server: &RedisServer) -> rustix::process::Pid {
    i32::try_from(server.pid()).ok().and_then(rustix::process::Pid::from_raw).expect("a process id")
}

/// More than fits into the buffers between us and a target, so that cutting the link does cut the data.
async fn big_backup(stage: &Stage) -> BackupReader {
    let source = RedisServer::start(&["--rdbcompression", "no"]).await;
    script(&source, "for n = 1, 20000 do redis.call('SET', n, string.rep(n, 500)) end").await;
    stage.backup_of(&source).await
}

#[tokio::test]
async fn a_cancelled_restore_lets_the_target_go() {
    let stage = Stage::new();
    let backup = big_backup(&stage).await;
    let server = slow_loader(&["--repl-diskless-load", "swapdb"]).await;
    let _: () = command(&server, &["SET", "old", "data"]).await;
    let target = target(&server);
    let cancelling = async {
        is_loading(&server).await;
        stage.task.cancel.cancel();
    };
    let (restored, ()) = tokio::join!(stage.restore(&target, &backup, json!({})), cancelling);
    let error = restored.expect_err("it was cancelled");
    assert_eq!(error.kind(), Kind::Cancelled);
    assert!(
        error.hint_text().is_some_and(|hint| hint.starts_with("the target was being written")),
        "{error:?}"
    );
    assert_eq!(role(&server).await, "master");
    assert_eq!(command::<u64>(&server, &["DBSIZE"]).await, 1, "the old data is back");
}

#[tokio::test]
async fn a_dropped_restore_lets_the_target_go() {
    let stage = Stage::new();
    let (backup, _) = backup(&stage).await;
    let server = slow_loader(&[]).await;
    let target = target(&server);
    tokio::select! {
        _ = stage.restore(&target, &backup, json!({})) => panic!("it was too fast"),
        () = is_loading(&server) => {}
    }
    wait_for("it is let go", LIMIT, async || role(&server).await == "master").await;
}

#[tokio::test]
async fn whoever_takes_the_target_away_keeps_it() {
    let stage = Stage::new();
    let (backup, _) = backup(&stage).await;
    let (server, other) = tokio::join!(RedisServer::start(&[]), RedisServer::start(&[]));
    let nowhere = Address::new("127.0.0.1", free_port());
    let target = RedisTarget::new(Settings { advertise: Some(nowhere.clone()), ..settings(&server) });
    let port = other.port.to_string();
    let taking = async {
        let follows_us = async || info(&server, "master_port").await == nowhere.port.to_string();
        wait_for("it follows us", LIMIT, follows_us).await;
        let _: () = command(&server, &["REPLICAOF", "127.0.0.1", &port]).await;
    };
    let (restored, ()) = tokio::join!(stage.restore(&target, &backup, json!({})), taking);
    let error = restored.expect_err("it was taken away");
    assert_eq!(error.kind(), Kind::Conflict, "{error:?}");
    assert!(error.why().contains(&format!("to follow 127.0.0.1:{port}")), "{error}");
    assert_eq!(info(&server, "master_port").await, port, "it is left with whom it follows");
}

#[tokio::test]
async fn a_manifest_that_counts_otherwise_is_damage_before_the_target_is_touched() {
    let stage = Stage::new();
    let (backup, _) = backup(&stage).await;
    let server = RedisServer::start(&[]).await;
    let _: () = command(&server, &["SET", "old", "data"]).await;
    let changes: [fn(&mut Contents); 3] = [
        |contents| contents.items += 1,
        |contents| contents.facts["expires"] = json!(0),
        |contents| contents.namespaces.get_mut("db0").expect("it has keys").items -= 1,
    ];
    for change in changes {
        let mut manifest = backup.manifest.clone();
        change(&mut manifest.contents);
        let changed = BackupReader::resolve(&stage.vault, manifest).await.expect("it is there");
        let error = stage.restore(&target(&server), &changed, json!({})).await.expect_err("it is refused");
        assert_eq!(error.kind(), Kind::Damaged, "{error:?}");
        assert!(error.why().starts_with("its manifest says "), "{error:?}");
    }
    assert_eq!(command::<String>(&server, &["GET", "old"]).await, "data");
}

/// What an operator sees of a restore whose process was killed, and what brings the target back.
#[tokio::test]
async fn what_a_killed_restore_leaves_is_explained_by_the_next_plan() {
    let stage = Stage::new();
    let (backup, digest) = backup(&stage).await;
    let server = RedisServer::start(&[]).await;
    let _: () = command(&server, &["SET", "old", "data"]).await;
    let gone = free_port().to_string();
    let _: () = command(&server, &["REPLICAOF", "127.0.0.1", &gone]).await;
    let plan = stage.plan(&target(&server), &backup, json!({})).await.expect("a plan that says no");
    let blocker = plan.blockers().next().expect("it is a replica");
    assert!(blocker.advice.starts_with("is a restore into it running (`tidekeeper runs"), "{blocker:?}");
    assert!(blocker.advice.contains("an earlier restore that was interrupted"), "{blocker:?}");
    assert!(blocker.advice.contains("`REPLICAOF NO ONE`"), "{blocker:?}");
    let _: () = command(&server, &["REPLICAOF", "NO", "ONE"]).await;
    assert_eq!(command::<String>(&server, &["GET", "old"]).await, "data");
    stage.restore(&target(&server), &backup, json!({})).await.expect("it restores");
    assert_eq!(server.digest().await, digest);
}

#[tokio::test]
async fn replication_over_tls_needs_a_certificate_of_ours() {
    let stage = Stage::new();
    let (backup, digest) = backup(&stage).await;
    let folder = tempfile::tempdir().expect("a temporary folder");
    let (server, tls, port) = tls_server(folder.path(), &["--tls-replication", "yes"]).await;

    let without = stage.plan(&target(&server), &backup, json!({})).await.expect("a plan");
    assert_eq!(without.spec["way"], "restore-commands");
    assert!(without.actions[0].reason.contains("over TLS only"), "{:?}", without.actions);

    let mut settings = settings(&server);
    settings.place = tidekeeper::source::redis::config::Place::Fixed(Address::new("127.0.0.1", port));
    settings.access.tls = Some(tls);
    let target = RedisTarget::new(settings);
    let plan = stage.plan(&target, &backup, json!({})).await.expect("a plan");
    assert_eq!(plan.spec["way"], "replication", "{:?}", plan.actions);
    target.restore(&backup, &plan, &stage.task).await.expect("it restores");
    assert_eq!(server.digest().await, digest);
}

#[tokio::test]
async fn a_moment_that_the_backup_is_not_of_is_refused() {
    let stage = Stage::new();
    let (backup, _) = backup(&stage).await;
    let server = RedisServer::start(&[]).await;
    let at = Some(stage.clock.now());
    let plan =
        target(&server).plan_restore(&backup, at, &wished(json!({})), &stage.task).await.expect("a plan");
    assert!(plan.blockers().any(|finding| finding.advice.contains("only to its own moment")));
}
