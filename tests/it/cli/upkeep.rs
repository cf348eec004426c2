//! Holds, retention, scrub, runs and status.

use std::process::Stdio;

use tokio::io::{AsyncBufReadExt, BufReader};

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
    // What is kept for ever says what went, and how many stayed: not each of them.
    let report = &applied["sources"][0]["report"];
    assert!(report["kept"] == 1 && report["plan"].is_null(), "{report}");
    assert!(backups[0].ends_with(report["removals"][0]["id"].as_str().expect("an id")), "{report}");
    assert!(proposed(&cli.run(&["backups", "--json"]).await.exits(0).json()));
}

#[tokio::test]
async fn one_source_whose_retention_fails_hides_no_other() {
    let (server, cli, _) = with_backups(2).await;
    let source = |name: &str| format!("  - name: {name}\n    redis: {{ url: \"{}\" }}\n", server.url());
    let main = format!(
        "vault: {{ fs: {{ path: vault }} }}\nlimits: {{ spool_dir: spool }}\n\
         sources:\n{}{}schedules: schedules/\n",
        source("redis-main"),
        source("other")
    );
    cli.write("tidekeeper.yaml", &main);
    let schedule = "source: other\nbackup: [{ name: yearly, cron: \"0 0 1 1 *\" }]\n\
                    retention: { keep_within: 0s, keep_last: 1 }\n";
    cli.write("schedules/other.yaml", schedule);
    for _ in 0..2 {
        cli.run(&["backup", "other"]).await.exits(0);
    }
    // Nothing can be written where this source's tombstones should go.
    cli.write("vault/tombstones/other", "in the way");
    let applied = cli.run(&["retention", "--apply", "--json"]).await.exits(4).json();
    let of = |name: &str| {
        let sources = applied["sources"].as_array().expect("a list");
        sources.iter().find(|one| one["source"] == name).expect("both are told").clone()
    };
    assert_eq!(of("redis-main")["report"]["proposed"].as_array().map(Vec::len), Some(1), "{applied}");
    assert!(of("other")["error"]["message"].is_string(), "{applied}");
}

#[tokio::test]
async fn scrub_finds_and_repairs_leftovers() {
    let (_server, cli, backups) = with_backups(1).await;
    let clean = cli.run(&["scrub"]).await.exits(0).stdout;
    let by_name =
        "nothing is damaged, and nothing is left over, by names and sizes; `--deep` reads the bytes\n";
    assert_eq!(clean, by_name);
    let mark = format!("vault/proofs/{}/20260101T000000Z-000000000000.json", backups[0].replace("Z-", "Z-0"));
    cli.write(&mark.replace("Z-0", "Z-"), "{}");
    let found = cli.run(&["scrub", "--json"]).await.exits(0).json();
    assert_eq!(found["findings"][0]["finding"], "unreadable_mark", "{found}");
}

#[tokio::test]
async fn a_deep_scrub_is_two_steps_however_many_backups_there_are() {
    let (_server, cli, _) = with_backups(2).await;
    cli.run(&["scrub", "--deep", "--repair"]).await.exits(0);
    let list = cli.run(&["runs", "--action", "scrub", "--json"]).await.exits(0).json();
    let steps = list["runs"][0]["steps"].as_array().expect("steps");
    let names: Vec<_> = steps.iter().filter_map(|step| step["name"].as_str()).collect();
    assert_eq!(names, ["inspect", "repair"], "{list}");
}

#[tokio::test]
async fn an_attempt_that_is_tried_again_is_told_on_stderr() {
    let cli = Cli::of_redis("redis://127.0.0.1:1");
    cli.run(&["init"]).await.exits(0);
    let mut command = cli.command(&["backup", "redis-main", "--deadline", "1m"]);
    let mut running = command.stderr(Stdio::piped()).spawn().expect("the binary is built");
    let mut lines = BufReader::new(running.stderr.take().expect("piped")).lines();
    let mut told = String::new();
    while !told.contains("tried again") {
        told = lines.next_line().await.expect("readable").expect("it says so before it ends");
    }
    for word in ["redis-main", "refused", "\"at\"", "\"hint\""] {
        assert!(told.contains(word), "{word}: {told}");
    }
}

#[tokio::test]
async fn what_cannot_be_read_is_named_and_hides_nothing() {
    let (_server, cli, _) = with_backups(1).await;
    cli.write("vault/requests/000000000001.json", "{");
    let status = cli.run(&["status"]).await.exits(0).stdout;
    assert!(status.contains("vault: reading requests/000000000001.json"), "{status}");
    let runs = cli.run(&["runs", "--json"]).await.exits(0).json();
    assert_eq!(runs["runs"].as_array().map(Vec::len), Some(1), "{runs}");
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
    assert!(
        empty.contains("redis-main: there is no good backup\n  `tidekeeper backup redis-main`"),
        "{empty}"
    );
    assert!(
        empty.contains("vault: no daemon leads, so nothing runs by itself: nobody ever led this vault"),
        "{empty}"
    );
    cli.run(&["backup", "redis-main"]).await.exits(0);
    let status = cli.run(&["status", "--json"]).await.exits(0).json();
    assert_eq!(status["problems"][0]["advice"], "start `tidekeeper serve`", "{status}");
    let source = &status["sources"][0];
    assert_eq!(
        (&source["source"], &source["last_backup"]["status"]),
        (&"redis-main".into(), &"complete".into())
    );
    assert!(source["next_due"].is_string() && source["rpo_s"].is_number(), "{source}");
}

#[tokio::test]
async fn a_source_without_a_schedule_is_told() {
    let cli = Cli::of_redis("redis://127.0.0.1:1");
    cli.run(&["init"]).await.exits(0);
    let words = "redis-main: it has no schedule: it is never backed up by itself\n  add a `backup` series";
    let with = cli.run(&["status"]).await.exits(0).stdout;
    assert!(!with.contains(words), "{with}");
    std::fs::remove_file(cli.path("schedules/redis.yaml")).expect("it is there");
    let without = cli.run(&["status"]).await.exits(0).stdout;
    assert!(without.contains(words), "{without}");
    assert!(!without.contains("no daemon leads"), "nothing waits for one: {without}");
}

#[tokio::test]
async fn a_backup_whose_data_is_gone_is_told_and_counts_no_more() {
    let (_server, cli, backups) = with_backups(2).await;
    let shown = cli.run(&["show", &backups[1], "--json"]).await.exits(0).json();
    assert_eq!(shown["missing"].as_array().map(Vec::len), Some(0), "{shown}");
    let key = shown["manifest"]["artifacts"][0]["key"].as_str().expect("a key");
    std::fs::remove_file(cli.path("vault").join(key)).expect("it is there");
    let status = cli.run(&["status", "--json"]).await.exits(0).json();
    let source = &status["sources"][0];
    let problem = &source["problems"][0];
    assert_eq!(problem["what"], format!("backup {} cannot be restored: {key} is not there", backups[1]));
    let advice = problem["advice"].as_str().expect("text");
    assert!(advice.starts_with(&format!("`tidekeeper verify {}`", backups[1])), "{advice}");
    let id = |backup: &str| backup.split_once('/').expect("SOURCE/ID").1.to_owned();
    let named = |field: &str| source[field]["backup"]["id"].as_str().expect("an id").to_owned();
    assert_eq!((named("last_backup"), named("last_good")), (id(&backups[1]), id(&backups[0])));
    let shown = cli.run(&["show", &backups[1]]).await.exits(0).stdout;
    assert!(shown.contains(&format!("missing: {key} is not there\n")), "{shown}");
}

#[tokio::test]
async fn a_typo_beside_the_vault_stops_only_what_needs_it() {
    let (_server, cli, backups) = with_backups(1).await;
    cli.write("schedules/redis.yaml", "sorce: redis-main\n");
    cli.edit("redis: {", "redis: { password: \"${NOBODY_SET_THIS}\",");
    let words = ["schedules/redis.yaml:1:1: sorce: unknown key", "NOBODY_SET_THIS", "with the vault alone"];
    let backup = backups[0].as_str();
    for args in [
        &["backups"][..],
        &["show", backup],
        &["verify", backup],
        &["extract", backup, "--output", "out"],
        &["scrub"],
        &["runs"],
        &["hold", backup, "--reason", "look at it"],
    ] {
        let ran = cli.run(&[args, &["--json"]].concat()).await.exits(0);
        assert!(ran.stderr.starts_with("warning: reading the configuration: "), "{args:?}: {ran:?}");
        assert!(words.iter().all(|word| ran.stderr.contains(word)), "{args:?}: {ran:?}");
        ran.json();
    }
    for args in [&["backup", "redis-main"][..], &["serve"], &["restore", backup], &["retention"], &["check"]]
    {
        let ran = cli.run(args).await.exits(2);
        assert!(ran.stderr.starts_with("error: reading the configuration: "), "{args:?}: {ran:?}");
    }
    cli.configure("encryption: { recipients: [], unknown: 1 }\n");
    let vital = cli.run(&["backups"]).await.exits(2).stderr;
    assert!(
        vital.contains("encryption.unknown") && vital.contains("hint: ") && vital.contains("--vault"),
        "{vital}"
    );
}
