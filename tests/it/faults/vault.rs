//! What goes wrong with the vault: named with what to do about it, and what was in it stays.

use std::path::Path;
use std::process::Stdio;

use tidekeeper::clock::SystemClock;
use tidekeeper::vault::store::SharedStore;
use tokio::io::{AsyncBufReadExt, BufReader, Lines};
use tokio::process::{Child, ChildStderr};

use super::{EAGER, an_hour_later, backed_up, directory, filled, is_sound, keys, listed, noise, say, says};
use crate::harness::cli::Cli;
use crate::harness::clock::hurried;
use crate::harness::daemon::{Daemon, LONG};
use crate::harness::disk::Disk;
use crate::harness::redis::RedisServer;
use crate::harness::s3::gate::{Fate, Gate, SLOW_DOWN};
use crate::harness::s3::{S3Server, versitygw};
use crate::harness::{free_port, within};

/// A vault in a bucket behind a gate.
async fn bucket(server: &RedisServer) -> (Gate, Cli, SharedStore) {
    let gate = Gate::before(versitygw().await).await;
    let place = gate.server.place();
    let cli = Cli::of_redis_in(&server.url(), &gate.server, &place);
    cli.run(&["init"]).await.exits(0);
    let store = gate.server.store_at(&place, SystemClock::shared());
    (gate, cli, store)
}

/// A command that waits, and what it says meanwhile.
struct Waiting {
    child: Child,
    lines: Lines<BufReader<ChildStderr>>,
}

impl Waiting {
    fn start(cli: &Cli, args: &[&str]) -> Self {
        let mut command = cli.command(args);
        let mut child = command.stderr(Stdio::piped()).spawn().expect("the binary is built");
        let lines = BufReader::new(child.stderr.take().expect("piped")).lines();
        Waiting { child, lines }
    }

    async fn says(&mut self, words: &str) {
        let told = async {
            while !self.lines.next_line().await.expect("readable").expect("it says so").contains(words) {}
        };
        within(words, LONG, told).await;
    }

    /// What else it says until it ends, which it does well.
    async fn rest(mut self) -> String {
        let mut rest = String::new();
        while let Some(line) = self.lines.next_line().await.expect("readable") {
            rest += &line;
        }
        assert_eq!(self.child.wait().await.expect("it is our child").code(), Some(0), "{rest}");
        rest
    }
}

/// A vault on a small disk.
async fn small(server: &RedisServer, disk: &Disk) -> Cli {
    let path = disk.path().join("vault");
    let cli = Cli::of_redis_into(&server.url(), &format!("{{ fs: {{ path: \"{}\" }} }}", path.display()));
    cli.write("schedules/redis.yaml", EAGER);
    cli.run(&["init"]).await.exits(0);
    cli
}

#[tokio::test]
async fn a_bucket_that_nobody_reaches_is_named() {
    let nowhere = S3Server { endpoint: format!("http://127.0.0.1:{}", free_port()), ..versitygw().await };
    let mut cli = Cli::of_redis_in("redis://127.0.0.1:1", &nowhere, &nowhere.place());
    cli.env.extend(hurried(8));
    let words = ["s3://vaults/test-", "refused", "is the endpoint right, and reachable from here?"];
    let (backup, list, serve) = tokio::join!(
        cli.run(&["backup", "redis-main"]),
        cli.run(&["backups", "--json"]),
        cli.run(&["serve"])
    );
    says(backup, 1, &words);
    let list = says(list, 1, &words).json();
    assert_eq!((&list["code"], &list["retryable"]), (&"unreachable".into(), &true.into()), "{list}");
    says(serve, 1, &words);
}

#[tokio::test]
async fn a_directory_that_goes_away_makes_the_daemon_unready_until_it_is_back() {
    let server = filled(1 << 10).await;
    let cli = Cli::of_redis(&server.url());
    cli.run(&["init"]).await.exits(0);
    let mut daemon = Daemon::start_with(&cli, &hurried(8)).await;
    std::fs::rename(cli.path("vault"), cli.path("away")).expect("it is renamed");
    daemon
        .wait("it says what is down", async || {
            let problem = daemon.get("/health/ready").await;
            let detail = problem["detail"].as_str().unwrap_or_default().to_owned();
            detail.contains("the vault is down: ") && detail.contains("the directory is gone")
        })
        .await;
    assert!(daemon.ready().await.is_none());
    let problem = daemon.get("/health/ready").await;
    assert!(problem["hint"].as_str().is_some_and(|hint| hint.contains("mounted?")), "{problem}");
    let ran = cli.run(&["backup", "redis-main"]).await;
    says(ran, 1, &["opening the vault at", "vault", "is", "typed right, and mounted?"]);
    assert!(!cli.path("vault").exists(), "nobody makes a vault but `init`");

    std::fs::rename(cli.path("away"), cli.path("vault")).expect("it is renamed");
    daemon.wait("it is ready again", async || daemon.ready().await.is_some()).await;
    let run = daemon.back_up().await;
    daemon.run_is(&run, "succeeded").await;
    assert_eq!(daemon.end().await, Some(0));
    // What was being created when it went away.
    an_hour_later(&cli);
    is_sound(&cli, &directory(&cli)).await;
}

#[tokio::test]
async fn a_read_only_directory_can_be_restored_from_and_not_written_to() {
    let (server, mut disk) = (filled(1 << 10).await, Disk::of(24));
    let cli = small(&server, &disk).await;
    let backup = backed_up(&cli).await;
    let digest = server.digest().await;
    disk.read_only();
    for args in
        [&["backup", "redis-main"][..], &["retention", "--apply"], &["hold", &backup, "--reason", "x"]]
    {
        says(cli.run(args).await, 1, &["Read-only file system", "is mounted read-only"]);
    }
    assert_eq!(listed(&cli).await.0, [backup.as_str()]);
    cli.run(&["scrub", "--deep"]).await.exits(0);
    cli.run(&["extract", &backup, "--output", "out"]).await.exits(0);
    let plan = cli.run(&["restore", &backup, "--dry-run", "--json"]).await.exits(0).json();
    assert!(plan["hash"].is_string(), "{plan}");
    assert_eq!(server.digest().await, digest);
}

/// Fills a disk to its last byte.
fn fill(path: &Path) {
    let mut file = std::fs::File::create(path).expect("it is made");
    while std::io::Write::write_all(&mut file, &noise(64 << 10)).is_ok() {}
}

#[tokio::test]
async fn a_full_directory_keeps_what_it_has_and_can_be_emptied() {
    let (server, disk) = (filled(1 << 10).await, Disk::of(40));
    let cli = small(&server, &disk).await;
    let (old, new) = (backed_up(&cli).await, backed_up(&cli).await);
    let large = filled(30 << 20).await;
    cli.edit(&server.url(), &large.url());
    let words = ["No space left on device", "make room on the disk of", "`tidekeeper retention --apply`"];
    let too_large = cli.run(&["backup", "redis-main", "--deadline", "60s"]).await;
    says(too_large, 1, &[&words[..], &["uploading part"]].concat());
    assert_eq!(listed(&cli).await.0, [new.as_str(), old.as_str()]);

    fill(&disk.path().join("other"));
    says(cli.run(&["backup", "redis-main", "--deadline", "60s"]).await, 1, &words);
    assert_eq!(listed(&cli).await.0, [new.as_str(), old.as_str()]);
    let emptied = async {
        while listed(&cli).await.0.len() == 2 {
            cli.run(&["retention", "--apply"]).await.exits(0);
        }
    };
    within("what is old goes from a full disk", LONG, emptied).await;
    assert_eq!(listed(&cli).await.0, [new.as_str()]);
    cli.run(&["verify", &new]).await.exits(0);
}

#[tokio::test]
async fn wrong_credentials_are_named() {
    let server = filled(1 << 10).await;
    let (_gate, mut cli, _) = bucket(&server).await;
    let backup = backed_up(&cli).await;
    let secret = cli.env.len() - 1;
    cli.env[secret].1 = "wrong".to_owned();
    let words = ["s3://vaults/test-", "SignatureDoesNotMatch", "check the access key and its secret"];
    for args in [&["backup", "redis-main"][..], &["backups"], &["restore", &backup], &["serve"]] {
        let ran = says(cli.run(args).await, 1, &words);
        assert!(!ran.stderr.contains("wrong\n"), "{ran:?}");
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn one_that_asks_for_patience_gets_it() {
    let server = filled(9 << 20).await;
    let (gate, mut cli, store) = bucket(&server).await;
    let slow = Fate::Refused(SLOW_DOWN);
    let rules = [("PUT", "partNumber=1&"), ("PUT", "/manifests/"), ("GET", "list-type=2"), ("PUT", "/runs/")]
        .map(|(method, part)| gate.on(method, part, 2, slow));
    backed_up(&cli).await;
    for rule in rules {
        within("each was throttled twice", LONG, async { (rule.met().await, rule.met().await) }).await;
    }
    is_sound(&cli, &store).await;
    gate.on("", "", 1_000, slow);
    cli.env.extend(hurried(8));
    let ran =
        says(cli.run(&["backups", "--json"]).await, 1, &["SlowDown: Reduce your request rate", "later"]);
    let document = ran.json();
    assert_eq!((&document["code"], &document["retryable"]), (&"throttled".into(), &true.into()));
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn one_that_does_not_answer_is_named_once_by_whoever_waits() {
    let server = filled(1 << 10).await;
    let (gate, mut cli, _) = bucket(&server).await;
    cli.env.extend(hurried(8));
    let held = ["manifests", "proofs", "holds"].map(|room| gate.on("GET", room, 1, Fate::Held(0)));
    let mut waiting = Waiting::start(&cli, &["backups"]);
    waiting.says("the vault has not answered yet").await;
    held.iter().for_each(|rule| rule.let_go());
    let rest = waiting.rest().await;
    assert!(!rest.contains("not answered"), "once: {rest}");
}

#[tokio::test]
async fn a_daemon_that_does_not_answer_is_named_by_whoever_waits() {
    let silent = std::net::TcpListener::bind("127.0.0.1:0").expect("loopback has ports");
    let url = format!("http://{}", silent.local_addr().expect("it listens"));
    let mut cli = Cli::new(&[]);
    cli.env.extend(hurried(8));
    let mut waiting = Waiting::start(&cli, &["status", "--server", &url]);
    waiting.says(&url).await;
}

/// Each of the requests that decide something is acted on, and its answer never comes.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_reply_that_is_lost_after_success_is_found_out() {
    let server = filled(9 << 20).await;
    let (gate, cli, store) = bucket(&server).await;
    let decisive = [
        ("POST", "?uploads"),
        ("PUT", "partNumber=2&"),
        ("POST", "?uploadId="),
        ("PUT", "/manifests/"),
        ("PUT", "/requests/"),
        ("PUT", "/1.started.json"),
        ("PUT", "/1.finished.json"),
    ];
    for (method, part) in decisive {
        let rule = gate.on(method, part, 1, Fate::AnswerLost);
        backed_up(&cli).await;
        within(part, LONG, rule.met()).await;
    }
    let (good, other) = listed(&cli).await;
    assert_eq!((good.len(), other.len()), (decisive.len(), 0));
    let runs = cli.run(&["runs", "--json"]).await.exits(0).json();
    let runs = runs["runs"].as_array().expect("a list");
    assert_eq!(runs.len(), decisive.len());
    assert!(runs.iter().all(|run| run["state"] == "succeeded" && run["attempts"] == 1), "{runs:?}");
    is_sound(&cli, &store).await;
}

/// A backup in a directory, and the path of its one artifact of data.
async fn stored(server: &RedisServer) -> (Cli, String, std::path::PathBuf) {
    let cli = Cli::of_redis(&server.url());
    cli.run(&["init"]).await.exits(0);
    let backup = backed_up(&cli).await;
    let all = keys(&directory(&cli), "data/").await;
    let data = all.iter().find(|key| key.ends_with("dump.rdb.zst")).expect("the data");
    let path = cli.path("vault").join(data);
    (cli, backup, path)
}

/// Every command that reads a backup refuses it as damaged, the target stays as it is, and no other backup suffers.
async fn is_refused(server: &RedisServer, cli: &Cli, backup: &str, words: &[&str]) {
    say(server, &["SET", "since", "then"]).await;
    let digest = server.digest().await;
    for confirm in [&["--dry-run"][..], &["--confirm", "0123456789abcdef"], &[]] {
        says(cli.run(&[&["restore", backup], confirm].concat()).await, 5, words);
    }
    assert_eq!(server.digest().await, digest, "a target was touched");
    cli.run(&["extract", backup, "--output", "out"]).await.exits(5);
    says(cli.run(&["verify", backup]).await, 5, words);
    assert_eq!(listed(cli).await, (Vec::new(), vec!["damaged".to_owned()]));
    cli.run(&["scrub", "--deep"]).await.exits(5);
    let next = backed_up(cli).await;
    assert_eq!(listed(cli).await.0, [next.as_str()]);
    assert_eq!(server.digest().await, digest);
}

#[tokio::test]
async fn an_object_that_was_deleted_is_found_and_refused() {
    let server = filled(1 << 20).await;
    let (cli, backup, data) = stored(&server).await;
    std::fs::remove_file(&data).expect("it was there");
    cli.run(&["scrub"]).await.exits(5);
    is_refused(&server, &cli, &backup, &["dump.rdb.zst", "not there"]).await;
}

#[tokio::test]
async fn one_flipped_bit_is_found_and_refused() {
    let server = filled(1 << 20).await;
    let (cli, backup, data) = stored(&server).await;
    let mut bytes = std::fs::read(&data).expect("it is there");
    let middle = bytes.len() / 2;
    bytes[middle] ^= 1;
    std::fs::remove_file(&data).and_then(|()| std::fs::write(&data, bytes)).expect("writable");
    is_refused(&server, &cli, &backup, &["dump.rdb"]).await;
}

#[tokio::test]
async fn a_manifest_that_cannot_be_read_is_shown_and_kept() {
    let server = filled(1 << 10).await;
    let (cli, backup, data) = stored(&server).await;
    let manifest = cli.path(format!("vault/manifests/{backup}.json"));
    let text = std::fs::read_to_string(&manifest).expect("it is there").replacen('{', "[", 1);
    std::fs::remove_file(&manifest).and_then(|()| std::fs::write(&manifest, text)).expect("writable");
    assert_eq!(listed(&cli).await, (Vec::new(), vec!["unreadable".to_owned()]));
    for command in ["verify", "restore"] {
        says(cli.run(&[command, &backup]).await, 5, &["manifest"]);
    }
    let next = backed_up(&cli).await;
    cli.run(&["scrub", "--repair"]).await.exits(5);
    assert_eq!(listed(&cli).await.0, [next.as_str()]);
    assert!(data.exists() && manifest.exists(), "nobody repairs what a person must look at");
}
