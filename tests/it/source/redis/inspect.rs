//! What `check` tells of a Redis, and that looking changes nothing.

use tidekeeper::config::secret::{Password, Secret};
use tidekeeper::error::Kind;
use tidekeeper::source::redis::config::{Access, Settings};
use tidekeeper::source::redis::permissions::permissions;
use tidekeeper::source::redis::source::RedisSource;
use tidekeeper::source::{Finding, Inspection, Role, Severity, Source};

use super::stage::{Stage, command, fill, info, settings};
use crate::harness::redis::RedisServer;
use crate::harness::wait_for;

async fn look(stage: &Stage, settings: &Settings) -> Inspection {
    RedisSource::new(settings.clone()).inspect(&stage.task).await.expect("it is looked at")
}

fn of(inspection: &Inspection, severity: Severity) -> Vec<&Finding> {
    inspection.findings.iter().filter(|finding| finding.severity == severity).collect()
}

#[tokio::test]
async fn a_healthy_server_has_no_more_than_good_findings_and_is_left_as_it_was() {
    let (stage, server) = (Stage::new(), RedisServer::start(&[]).await);
    fill(&server).await;
    let replid = info(&server, "master_replid").await;
    let inspection = look(&stage, &settings(&server)).await;
    assert_eq!(of(&inspection, Severity::Warning), Vec::<&Finding>::new());
    assert_eq!(of(&inspection, Severity::Error), Vec::<&Finding>::new());
    assert_eq!(inspection.server, format!("redis {}", info(&server, "redis_version").await));
    assert_eq!(inspection.endpoint, format!("127.0.0.1:{}", server.port));
    assert!(inspection.bytes > Some(100_000), "{:?}", inspection.bytes);
    assert!(inspection.omits.iter().any(|omission| omission.what == "ACL users"));
    let whats: Vec<&str> = inspection.findings.iter().map(|finding| finding.what.as_str()).collect();
    assert!(whats.contains(&"the user may replicate"), "{whats:?}");
    assert!(whats.contains(&"a backup is taken from the master, which pays the fork"), "{whats:?}");

    assert_eq!(info(&server, "sync_full").await, "0", "trying PSYNC must not start one");
    assert_eq!(info(&server, "master_replid").await, replid);
    assert_eq!(info(&server, "total_forks").await, "0");
}

async fn with_rights(server: &RedisServer, rights: &str) -> Settings {
    let mut settings = settings(server);
    settings.access = Access {
        username: Some("backup".to_owned()),
        password: Some(Password::Given(Secret::new("secret"))),
        tls: None,
    };
    let line = format!("ACL SETUSER backup reset on >secret -@all {rights}");
    let words: Vec<&str> = line.split(' ').collect();
    let _: () = command(server, &words).await;
    settings
}

#[tokio::test]
async fn each_missing_right_is_named_with_what_it_costs() {
    let (stage, server) = (Stage::new(), RedisServer::start(&[]).await);
    let all = ["+psync", "+replconf", "+ping", "+info", "+config|get", "+pubsub|numsub"];
    let cases = [
        ("+psync", Severity::Error, "no backup is possible"),
        ("+replconf", Severity::Error, "no backup is possible"),
        ("+ping", Severity::Error, "no backup is possible"),
        ("+info", Severity::Warning, "no replica is found"),
        ("+config|get", Severity::Warning, "its replication settings are not looked at"),
    ];
    for (right, severity, cost) in cases {
        let others: Vec<&str> = all.into_iter().filter(|other| *other != right).collect();
        let inspection = look(&stage, &with_rights(&server, &others.join(" ")).await).await;
        let [finding] = of(&inspection, severity)[..] else { panic!("{right}: {:?}", inspection.findings) };
        assert!(finding.what.contains(&format!("lacks {right}")), "{finding:?}");
        assert!(finding.advice.contains(cost) && finding.advice.contains(right), "{finding:?}");
    }
    let printed = permissions(&settings(&server), Role::Source).remove(1).text;
    let rights = printed.split_once("-@all ").expect("a line of rights").1;
    let inspection = look(&stage, &with_rights(&server, rights).await).await;
    assert!(of(&inspection, Severity::Warning).is_empty(), "{:?}", inspection.findings);
}

#[tokio::test]
async fn settings_that_cost_are_told() {
    let args = ["--repl-diskless-sync-delay", "45", "--rdbchecksum", "no"];
    let (stage, server) = (Stage::new(), RedisServer::start(&args).await);
    let inspection = look(&stage, &settings(&server)).await;
    let whats: Vec<&str> =
        of(&inspection, Severity::Warning).iter().map(|finding| finding.what.as_str()).collect();
    assert_eq!(whats.len(), 2, "{whats:?}");
    assert!(
        whats[0].starts_with("repl-diskless-sync-delay is 45") && whats[1] == "rdbchecksum is no",
        "{whats:?}"
    );

    let server = RedisServer::start(&["--repl-diskless-sync", "no"]).await;
    let inspection = look(&stage, &settings(&server)).await;
    let warnings = of(&inspection, Severity::Warning);
    assert_eq!(warnings[0].what, "repl-diskless-sync is no");
    assert!(warnings[0].advice.contains("replaces its dump.rdb"), "{warnings:?}");
}

#[tokio::test]
async fn a_master_that_sentinels_watch_has_a_warning_until_it_has_a_replica() {
    let (stage, master) = (Stage::new(), RedisServer::start(&[]).await);
    let _sentinel = RedisServer::start_sentinel(master.port).await;
    let limit = std::time::Duration::from_secs(20);
    wait_for("the Sentinel watches", limit, async || {
        let (_, count): (String, u64) = command(&master, &["PUBSUB", "NUMSUB", "__sentinel__:hello"]).await;
        count > 0
    })
    .await;
    let inspection = look(&stage, &settings(&master)).await;
    let warnings = of(&inspection, Severity::Warning);
    assert_eq!(warnings[0].what, "Sentinels watch this master");
    assert!(warnings[0].advice.contains("SENTINEL RESET"), "{warnings:?}");

    let replica = RedisServer::start(&["--replicaof", "127.0.0.1", &master.port.to_string()]).await;
    wait_for("the replica is in sync", limit, async || {
        info(&master, "slave0").await.contains("state=online")
    })
    .await;
    let inspection = look(&stage, &settings(&master)).await;
    assert!(of(&inspection, Severity::Warning).is_empty(), "{:?}", inspection.findings);
    let from = format!("a backup is taken from the replica 127.0.0.1:{}", replica.port);
    assert!(inspection.findings.iter().any(|finding| finding.what == from), "{:?}", inspection.findings);
}

#[tokio::test]
async fn a_replica_whose_master_never_comes_says_what_ends_that() {
    let (stage, server) = (Stage::new(), RedisServer::start(&["--replicaof", "127.0.0.1", "1"]).await);
    let inspection = look(&stage, &settings(&server)).await;
    let errors = of(&inspection, Severity::Error);
    let lost = errors.iter().find(|error| error.what.starts_with("NOMASTERLINK")).expect("it is found");
    assert!(
        lost.advice.contains("`tidekeeper runs`") && lost.advice.contains("`REPLICAOF NO ONE`"),
        "{lost:?}"
    );
}

#[tokio::test]
async fn nobody_there_is_an_error_and_not_an_inspection() {
    let (stage, mut server) = (Stage::new(), RedisServer::start(&[]).await);
    server.stop();
    let error = RedisSource::new(settings(&server)).inspect(&stage.task).await.expect_err("nobody is there");
    assert_eq!(error.kind(), Kind::Unreachable, "{error:?}");
}
