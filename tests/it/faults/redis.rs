//! What goes wrong at the source: it is named with what to do about it, and no half of a backup counts.

use super::{backed_up, directory, filled, filled_with, is_sound, keys, listed, say, says};
use crate::harness::cli::{Cli, Ran};
use crate::harness::clock::hurried;
use crate::harness::daemon::LONG;
use crate::harness::disk::Disk;
use crate::harness::proxy::{Proxy, Then, Weather};
use crate::harness::redis::RedisServer;
use crate::harness::wait_for;

/// A vault for this server, its source with `more` in the configuration.
async fn cli_with(server: &RedisServer, more: &str) -> Cli {
    let cli = Cli::of_redis(&server.url());
    cli.edit("\" }\n", &format!("\"{more} }}\n"));
    cli.run(&["init"]).await.exits(0);
    cli
}

/// One attempt: the next would come after the deadline.
async fn once(cli: &Cli) -> Ran {
    cli.run(&["backup", "redis-main", "--deadline", "9s"]).await
}

/// A backup fails with these words, its run says so, and nothing is left of it.
async fn fails(cli: &Cli, words: &[&str]) {
    says(once(cli).await, 1, words);
    let runs = cli.run(&["runs", "--json"]).await.exits(0).json();
    let run = &runs["runs"][0];
    assert_eq!(run["state"], "failed", "{run}");
    for word in words {
        let said = format!("{} {}", run["error"]["message"], run["error"]["hint"]);
        assert!(said.replace('\\', "").contains(word), "{word:?} is not in {said}");
    }
    assert_eq!(listed(cli).await.0, [""; 0]);
    is_sound(cli, &directory(cli)).await;
}

#[tokio::test]
async fn one_that_is_down_is_named() {
    let mut server = RedisServer::start(&[]).await;
    let cli = cli_with(&server, "").await;
    server.stop();
    let address = format!("127.0.0.1:{}", server.port);
    fails(&cli, &["connecting to Redis at", &address, "refused", "is the address right, the server up"])
        .await;
}

#[tokio::test]
async fn a_wrong_password_is_named_and_never_shown() {
    let server = RedisServer::start(&[]).await;
    say(&server, &["ACL", "SETUSER", "backup", "on", ">right", "-@all", "+psync", "+replconf", "+ping"])
        .await;
    let cli = cli_with(&server, ", username: backup, password_file: password").await;
    cli.write("password", "not-the-right-one\n");
    let words = ["AUTH at Redis", "WRONGPASS", "check username and password_file"];
    fails(&cli, &words).await;
    let ran = cli.run(&["--log", "trace", "backup", "redis-main", "--deadline", "1s"]).await;
    assert!(!format!("{ran:?}").contains("not-the-right-one"), "{ran:?}");

    cli.write("password", "right\n");
    once(&cli).await.exits(0);
}

#[tokio::test]
async fn a_missing_right_is_named_with_the_line_that_grants_it() {
    let server = RedisServer::start(&[]).await;
    say(&server, &["ACL", "SETUSER", "backup", "on", ">right", "-@all", "+replconf", "+ping"]).await;
    let cli = cli_with(&server, ", username: backup, password: right").await;
    fails(&cli, &["PSYNC", "NOPERM", "run `ACL SETUSER backup +psync` on it"]).await;
    say(&server, &["ACL", "SETUSER", "backup", "+psync"]).await;
    once(&cli).await.exits(0);
}

#[tokio::test]
async fn one_that_loads_is_asked_again_later() {
    let server = filled(10).await;
    say(&server, &["DEBUG", "POPULATE", "8000"]).await;
    say(&server, &["SAVE"]).await;
    let folder = tempfile::tempdir().expect("a temporary folder");
    std::fs::copy(server.folder.path().join("dump.rdb"), folder.path().join("dump.rdb"))
        .expect("it is copied");
    let mut cli = cli_with(&server, "").await;
    let slow = ["--key-load-delay", "600", "--loading-process-events-interval-bytes", "1024"];
    let loading = RedisServer::start_in(folder, &slow).await;
    cli.edit(&server.url(), &loading.url());
    fails(&cli, &["LOADING", "try again when it has"]).await;

    // By a clock that is in a hurry it is asked again and again, until it has loaded.
    cli.env.extend(hurried(10));
    let ran = cli.run(&["backup", "redis-main", "--deadline", "10m", "--json"]).await.exits(0).json();
    assert_eq!(ran["contents"]["items"], 8_001, "{ran}");
}

#[tokio::test]
async fn one_that_is_killed_in_mid_transfer_leaves_no_backup() {
    let mut server = filled(32 << 20).await;
    let proxy = Proxy::start(server.port).await;
    let cli = Cli::of_redis(&format!("redis://127.0.0.1:{}", proxy.port));
    cli.run(&["init"]).await.exits(0);
    proxy.set(Weather { rate: 10 << 20, ..Weather::default() });
    let failing =
        fails(&cli, &["reading the RDB", "the transfer was cut after", "look into the server's log"]);
    let killing = async {
        wait_for("a part of it came", LONG, async || proxy.passed() > 9 << 20).await;
        server.stop();
        proxy.set(Weather::default());
    };
    tokio::join!(failing, killing);
}

#[tokio::test]
async fn one_that_stalls_in_mid_transfer_is_blamed_for_it_and_not_the_deadline() {
    let server = filled(8 << 20).await;
    let proxy = Proxy::start(server.port).await;
    let mut cli = Cli::of_redis(&format!("redis://127.0.0.1:{}", proxy.port));
    cli.run(&["init"]).await.exits(0);
    cli.env.extend(hurried(16));
    proxy.set(Weather { after: Some(4 << 20), then: Then::Silence, ..Weather::default() });
    let ran = cli.run(&["backup", "redis-main", "--deadline", "40s"]).await;
    says(ran, 1, &["reading the RDB", "and nothing came for ", "is the server stuck"]);
}

#[tokio::test]
async fn a_full_disk_of_the_master_is_named() {
    let disk = Disk::of(4);
    let place = disk.path().display().to_string();
    let server = filled_with(&["--dir", &place, "--repl-diskless-sync", "no"], 6 << 20).await;
    let before = server.digest().await;
    let cli = cli_with(&server, "").await;
    fails(&cli, &["BGSAVE failed", "look into the server's log"]).await;
    say(&server, &["CONFIG", "SET", "repl-diskless-sync", "yes"]).await;
    once(&cli).await.exits(0);
    assert_eq!(server.digest().await, before);
}

/// Whether somebody takes the server's data at this moment.
async fn is_copied(server: &RedisServer) -> bool {
    let info: String = ::redis::cmd("INFO")
        .arg("replication")
        .query_async(&mut server.connect().await)
        .await
        .expect("it says");
    !info.contains("connected_slaves:0")
}

#[tokio::test]
async fn a_vault_slower_than_the_server_does_not_hold_the_server() {
    let server = filled(24 << 20).await;
    let cli = cli_with(&server, "").await;
    cli.edit("spool_dir: spool", "spool_dir: spool, upload_rate: 3MiB");
    let store = directory(&cli);
    let freed = async {
        wait_for("the server gives its data", LONG, async || is_copied(&server).await).await;
        wait_for("the server is let go", LONG, async || !is_copied(&server).await).await;
        keys(&store, "manifests/").await
    };
    let (_, committed) = tokio::join!(backed_up(&cli), freed);
    assert!(committed.is_empty(), "the server waited for the vault");
    is_sound(&cli, &store).await;
}

#[tokio::test]
async fn a_spool_that_stays_full_is_named_before_the_server_hangs_up() {
    let server = filled(32 << 20).await;
    let mut cli = cli_with(&server, "").await;
    cli.edit("spool_dir: spool", "spool_dir: spool, spool_max: 16MiB, upload_rate: 8KiB");
    cli.env.extend(hurried(16));
    let ran = cli.run(&["backup", "redis-main", "--deadline", "10m"]).await;
    says(ran, 1, &["spool_max", "slower than they come", "raise `limits.spool_max`"]);
    assert_eq!(listed(&cli).await.0, [""; 0]);
    assert!(!is_copied(&server).await);
}

#[tokio::test]
async fn an_empty_one_is_suspect_until_somebody_accepts_it() {
    let server = filled(1 << 10).await;
    say(&server, &["DEBUG", "POPULATE", "100000"]).await;
    let cli = cli_with(&server, "").await;
    let full = backed_up(&cli).await;
    say(&server, &["FLUSHALL"]).await;
    let ran = once(&cli).await.exits(4);
    assert!(ran.stdout.contains("suspect: it is empty, and the one before had 100001 items"), "{ran:?}");
    assert_eq!(listed(&cli).await, (vec![full.clone()], vec!["suspect".to_owned()]));
    let latest = cli.run(&["show", "redis-main/latest", "--json"]).await.exits(0).json();
    assert_eq!(latest["backup"]["backup"], full.as_str());
    let plan = cli.run(&["retention", "--json"]).await.exits(0).json();
    let lines = plan["sources"][0]["plan"]["lines"].as_array().expect("lines");
    assert!(
        lines
            .iter()
            .any(|line| full.ends_with(line["id"].as_str().expect("an id")) && line["action"] == "keep"),
        "{plan}"
    );

    let list = cli.run(&["backups", "--json"]).await.exits(0).json();
    let empty = list["backups"][0]["backup"].as_str().expect("a name").to_owned();
    cli.run(&["accept", &empty]).await.exits(0);
    assert_eq!(listed(&cli).await, (vec![empty, full], Vec::new()));
    once(&cli).await.exits(0);
}
