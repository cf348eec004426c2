//! Holds, retention, scrub, runs and status.

use crate::harness::cli::Cli;
use crate::harness::redis::RedisServer;

async fn with_backups(count: usize) -> (RedisServer, Cli, Vec<String>) {
    let server = RedisServer::start(&[]).await;
    let mut connection = server.connect().await;
    let () = redis::cmd("DEBUG").arg("POPULATE").arg(10).query_async(&mut connection).await.expect("allowed");
    let cli = Cli::of_redis(&server.url());
    cli.run(&["init"]).await.exits(0);
    let mut backups = Vec::new();
    for _ in 0..count {
        let manifest = cli.run(&["backup", "redis-main", "--json"]).await.exits(0).json();
        backups.push(format!("redis-main/{}", manifest["id"].as_str().expect("an id")));
    }
    (server, cli, backups)
}

#[tokio::test]
async fn a_held_backup_is_kept_until_it_is_held_no_more() {
    let (_server, cli, backups) = with_backups(2).await;
    let old = backups[0].as_str();
    let verdict = async || {
        let plan = cli.run(&["retention", "--json"]).await.exits(0).json();
        let lines = plan["sources"][0]["plan"]["lines"].as_array().expect("lines").clone();
        let line = lines.into_iter().find(|line| old.ends_with(line["id"].as_str().expect("an id")));
        line.expect("a line for each backup")["action"].as_str().expect("an action").to_owned()
    };
    assert_eq!(verdict().await, "remove");
    cli.run(&["hold", old, "--reason", "audit", "--until", "30d"]).await.exits(0);
    assert_eq!(verdict().await, "keep");
    let list = cli.run(&["backups"]).await.exits(0).stdout;
    assert!(list.contains("audit"), "{list}");
    cli.run(&["unhold", old]).await.exits(0);
    assert_eq!(verdict().await, "remove");
    for until in ["yesterday", "2020-01-01T00:00:00Z"] {
        cli.run(&["hold", old, "--reason", "audit", "--until", until]).await.exits(2);
    }
}

#[tokio::test]
async fn retention_is_a_dry_run_until_it_is_applied() {
    let (_server, cli, backups) = with_backups(2).await;
    let dry = cli.run(&["retention"]).await.exits(0).stdout;
    assert!(dry.contains(&backups[0]) && dry.contains("--apply does it"), "{dry}");
    let proposed = |list: &serde_json::Value| list["backups"][1]["deletion_proposed"].is_string();
    assert!(!proposed(&cli.run(&["backups", "--json"]).await.exits(0).json()));
    let applied = cli.run(&["retention", "--apply", "--json"]).await.exits(0).json();
    assert_eq!(applied["applied"], true);
    assert!(proposed(&cli.run(&["backups", "--json"]).await.exits(0).json()));
}

#[tokio::test]
async fn scrub_finds_and_repairs_leftovers() {
    let (_server, cli, backups) = with_backups(1).await;
    let clean = cli.run(&["scrub"]).await.exits(0).stdout;
    assert_eq!(clean, "nothing is damaged, and nothing is left over\n");
    let mark = format!("vault/proofs/{}/20260101T000000Z-000000000000.json", backups[0].replace("Z-", "Z-0"));
    cli.write(&mark.replace("Z-0", "Z-"), "{}");
    let found = cli.run(&["scrub", "--json"]).await.exits(0).json();
    assert_eq!(found["findings"][0]["finding"], "unreadable_mark", "{found}");
}

#[tokio::test]
async fn runs_are_listed_shown_and_watched() {
    let (_server, cli, backups) = with_backups(1).await;
    let list = cli.run(&["runs", "--action", "backup", "--json"]).await.exits(0).json();
    let run = list["runs"][0]["run"].as_str().expect("a run").to_owned();
    assert!(list["runs"][0]["principal"].as_str().is_some_and(|who| who.contains('@')), "{list}");
    let shown = cli.run(&["runs", "show", &run]).await.exits(0).stdout;
    assert!(shown.contains(&backups[0]) && shown.contains("STEP"), "{shown}");
    assert_eq!(cli.run(&["runs", "watch", &run]).await.exits(0).stdout, shown);
    let over = cli.run(&["runs", "cancel", &run, "--json"]).await.exits(1).json();
    assert_eq!(over["code"], "conflict", "{over}");
    cli.run(&["runs", "show", "nonsense"]).await.exits(2);
    cli.run(&["runs", "show", "20260101T000000Z-000000000000"]).await.exits(1);
    assert_eq!(cli.run(&["runs", "--state", "failed"]).await.exits(0).stdout, "nothing has run\n");
}

#[tokio::test]
async fn asking_twice_with_one_key_is_asking_once() {
    let (_server, cli, _) = with_backups(0).await;
    let args = ["backup", "redis-main", "--idempotency-key", "monday", "--json"];
    let first = cli.run(&args).await.exits(0).json();
    assert_eq!(cli.run(&args).await.exits(0).json(), first);
    let list = cli.run(&["backups", "--json"]).await.exits(0).json();
    assert_eq!(list["backups"].as_array().map(Vec::len), Some(1), "{list}");
}

#[tokio::test]
async fn status_says_what_is_wrong_and_what_to_do() {
    let (_server, cli, _) = with_backups(0).await;
    let empty = cli.run(&["status"]).await.exits(0).stdout;
    assert!(empty.contains("redis-main: there is no good backup\n  tidekeeper backup redis-main"), "{empty}");
    cli.run(&["backup", "redis-main"]).await.exits(0);
    let status = cli.run(&["status", "--json"]).await.exits(0).json();
    let source = &status["sources"][0];
    assert_eq!(
        (&source["source"], &source["last_backup"]["status"]),
        (&"redis-main".into(), &"complete".into())
    );
    assert!(source["next_due"].is_string() && source["rpo_s"].is_number(), "{source}");
}
