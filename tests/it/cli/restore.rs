//! `restore`: what is not empty needs a confirmation.

use crate::harness::cli::{Cli, Ran, finish};
use crate::harness::redis::RedisServer;

async fn set(server: &RedisServer, key: &str, value: &str) {
    let mut connection = server.connect().await;
    let () = redis::cmd("SET").arg(key).arg(value).query_async(&mut connection).await.expect("it answers");
}

/// A server with a backup of one key in the vault, and another value since.
async fn changed() -> (RedisServer, Cli, String) {
    let server = RedisServer::start(&[]).await;
    set(&server, "greeting", "hello").await;
    let digest = server.digest().await;
    let cli = Cli::of_redis(&server.url());
    cli.run(&["init"]).await.exits(0);
    cli.run(&["backup", "redis-main"]).await.exits(0);
    set(&server, "greeting", "goodbye").await;
    (server, cli, digest)
}

#[tokio::test]
async fn what_holds_data_needs_the_hash() {
    let (server, cli, wanted) = changed().await;
    let before = server.digest().await;
    let refused = cli.run(&["restore", "redis-main/latest", "--json"]).await.exits(3);
    let document = refused.json();
    assert_eq!(document["code"], "refused", "{document}");

    let plan = cli.run(&["restore", "redis-main/latest", "--dry-run", "--json"]).await.exits(0).json();
    let hash = plan["hash"].as_str().expect("a hash").to_owned();
    assert!(document["hint"].as_str().is_some_and(|hint| hint.contains(&hash)), "{document}");
    assert_eq!(plan["destructive"], true, "{plan}");
    let wrong = cli.run(&["restore", "redis-main/latest", "--confirm", "0123456789abcdef"]).await.exits(3);
    let newest = format!("it is now of redis-main/{}", plan["backup"]["id"].as_str().expect("an id"));
    assert!(wrong.stderr.contains(&newest) && wrong.stderr.contains("anew with --dry-run"), "{wrong:?}");
    assert!(!wrong.stderr.contains(&hash), "a hash that nobody has looked at is not handed over: {wrong:?}");
    assert_eq!(server.digest().await, before, "a refused restore touched the target");

    let done = cli.run(&["restore", "redis-main", "--confirm", &hash, "--json"]).await.exits(0).json();
    assert_eq!(done["hash"], hash.as_str(), "{done}");
    assert_eq!(server.digest().await, wanted);
}

#[tokio::test]
async fn an_empty_target_needs_none() {
    let (server, cli, wanted) = changed().await;
    let mut connection = server.connect().await;
    let () = redis::cmd("FLUSHALL").query_async(&mut connection).await.expect("it answers");
    let ran = cli.run(&["restore", "redis-main"]).await.exits(0);
    assert!(ran.stdout.contains(": 1 item; ") && ran.stdout.contains(", as of 20"), "{ran:?}");
    assert_eq!(server.digest().await, wanted);
}

#[tokio::test]
async fn keys_that_nothing_matches_are_less_than_was_asked_for() {
    let (server, cli, _) = changed().await;
    let before = server.digest().await;
    let none = cli.run(&["restore", "redis-main", "--keys", "nobody:*"]).await.exits(4).stdout;
    assert!(none.contains("did not come back: keys that match nobody:*: the backup has none"), "{none}");
    assert!(none.contains("so nothing was compared") && !none.contains("checks passed"), "{none}");
    assert_eq!(server.digest().await, before);
}

#[tokio::test]
async fn contradictions_are_wrong_usage() {
    let (_server, cli, _) = changed().await;
    for args in [
        &["restore", "redis-main/latest", "--at", "2026-11-21T06:00:00Z"][..],
        &["restore", "redis-main", "--at", "yesterday"],
        &["restore", "redis-main", "--at", "2999-01-01T00:00:00Z"],
        &["restore", "redis-main", "--dry-run", "--confirm", "0"],
        &["restore", "redis-main", "--option", "=x"],
    ] {
        cli.run(args).await.exits(2);
    }
    let ran = cli.run(&["restore", "redis-main", "--at", "13:39"]).await.exits(2);
    assert!(ran.stderr.contains("2026-11-21T13:39:00Z"), "{ran:?}");
    for to in ["--to", "--target"] {
        let ran = cli.run(&["restore", "redis-main", to, "redis-mian"]).await.exits(1);
        assert!(ran.stderr.contains("redis-main"), "{ran:?}");
    }
}

/// Runs the command on a terminal of its own, and types `answer`.
async fn on_a_terminal(cli: &Cli, args: &[&str], answer: &str) -> Ran {
    let typed = format!("echo {answer} | script --quiet --return --flush --command '{}' /dev/null", {
        let binary = env!("CARGO_BIN_EXE_tidekeeper");
        format!("{binary} {}", args.join(" "))
    });
    let mut command = tokio::process::Command::new("sh");
    command.args(["-c", &typed]).current_dir(cli.folder.path()).kill_on_drop(true);
    finish(command, args).await
}

#[tokio::test]
async fn a_person_sees_the_plan_and_types_the_targets_name() {
    let (server, cli, wanted) = changed().await;
    let before = server.digest().await;
    let refused = on_a_terminal(&cli, &["restore", "redis-main"], "yes").await.exits(3);
    for words in ["ACTION", "What it holds now will be lost", "Type the target's name (redis-main)"] {
        assert!(refused.stdout.contains(words), "{words} is not in {refused:?}");
    }
    assert_eq!(server.digest().await, before);
    on_a_terminal(&cli, &["restore", "redis-main"], "redis-main").await.exits(0);
    assert_eq!(server.digest().await, wanted);
}
