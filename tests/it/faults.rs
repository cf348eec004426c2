//! Faults on the real binary: whatever breaks, the error is clear and nothing is lost.
//!
//! Processes are killed and paused for real, disks are full, clocks are set back. What is left is then looked at twice: by
//! the commands that people have, and object by object.

mod clock;
mod daemons;
mod kill;
mod redis;
mod restore;
mod vault;

use std::collections::BTreeSet;
use std::process::Command;
use std::sync::Arc;

use serde_json::Value;
use tidekeeper::vault::store::fs::FsStore;
use tidekeeper::vault::store::{Key, SharedStore, list_all};

use crate::harness::cli::{Cli, Ran};
use crate::harness::daemon::LONG;
use crate::harness::redis::RedisServer;
use crate::harness::within;

/// The schedule of tests that delete: what is old goes two seconds after it was proposed.
const EAGER: &str = "source: redis-main\n\
                     backup: [{ name: yearly, cron: \"0 0 1 1 *\", deadline: 1s }]\n\
                     retention: { keep_within: 0s, keep_last: 1, grace: 2s }\n";

/// A server with this much that nothing compresses, and a few keys more.
async fn filled(bytes: usize) -> RedisServer {
    filled_with(&[], bytes).await
}

async fn filled_with(args: &[&str], bytes: usize) -> RedisServer {
    let server = RedisServer::start(&[&["--rdbcompression", "no"], args].concat()).await;
    let mut connection = server.connect().await;
    let () = redis_cmd(&["DEBUG", "POPULATE", "100"]).query_async(&mut connection).await.expect("allowed");
    let set = redis_cmd(&["SET", "noise"]).arg(noise(bytes)).to_owned();
    let () = set.query_async(&mut connection).await.expect("it is taken");
    server
}

fn redis_cmd(words: &[&str]) -> ::redis::Cmd {
    let mut command = ::redis::cmd(words[0]);
    for word in &words[1..] {
        command.arg(*word);
    }
    command
}

/// Says one command to a server, which obeys.
async fn say(server: &RedisServer, words: &[&str]) {
    let _: ::redis::Value =
        redis_cmd(words).query_async(&mut server.connect().await).await.expect("it obeys");
}

/// Bytes without any pattern, the same in each run.
fn noise(len: usize) -> Vec<u8> {
    let (mut bytes, mut state) = (Vec::with_capacity(len + 8), 0x9e37_79b9_7f4a_7c15_u64);
    while bytes.len() < len {
        state ^= state << 13;
        state ^= state >> 7;
        state ^= state << 17;
        bytes.extend_from_slice(&state.to_le_bytes());
    }
    bytes.truncate(len);
    bytes
}

/// Makes a backup and expects it to be complete: its name.
async fn backed_up(cli: &Cli) -> String {
    backed_up_of(cli, "redis-main").await
}

async fn backed_up_of(cli: &Cli, source: &str) -> String {
    let manifest = cli.run(&["backup", source, "--deadline", "60s", "--json"]).await.exits(0).json();
    format!("{source}/{}", manifest["id"].as_str().expect("an id"))
}

/// The backups that are listed as complete, newest first, and the others by their status.
async fn listed(cli: &Cli) -> (Vec<String>, Vec<String>) {
    let list = cli.run(&["backups", "--all", "--json"]).await.exits(0).json();
    let rows = list["backups"].as_array().expect("a list").clone();
    let (good, other): (Vec<Value>, Vec<Value>) = rows.into_iter().partition(|row| row["good"] == true);
    let texts = |rows: Vec<Value>, field: &str| {
        rows.iter().map(|row| row[field].as_str().expect("text").to_owned()).collect()
    };
    (texts(good, "backup"), texts(other, "status"))
}

/// Lets whoever leads delete what is old, again and again until `point`: the grace has to pass first.
async fn deleted_until(cli: &Cli, point: impl Future) {
    let mut point = std::pin::pin!(point);
    let passes = async {
        loop {
            tokio::select! {
                biased;
                _ = &mut point => return,
                _ = cli.run(&["retention", "--apply"]) => {}
            }
        }
    };
    within("the point of a deletion", LONG, passes).await;
}

/// What must hold in the end, whatever happened: all that is listed as good is whole, and once scrub has repaired, there is
/// not one object that no manifest names.
async fn is_sound(cli: &Cli, store: &SharedStore) {
    for backup in listed(cli).await.0 {
        cli.run(&["verify", &backup]).await.exits(0);
    }
    let repaired = cli.run(&["scrub", "--repair", "--json"]).await.exits(0).json();
    for repair in repaired["repairs"].as_array().expect("a list") {
        // An upload ends with the data that it is of, if that is removed first.
        let has_ended = repair["repaired"]["left"] == "it has ended meanwhile";
        assert!(has_ended || repair["repaired"] == "done", "{repaired}");
    }
    let clean = cli.run(&["scrub", "--deep"]).await.exits(0).stdout;
    assert_eq!(clean, "nothing is damaged, and nothing is left over\n");
    let mut named = BTreeSet::new();
    for manifest in documents(store, "manifests/").await {
        let artifacts = manifest["artifacts"].as_array().expect("a list").iter();
        named.extend(artifacts.map(|artifact| artifact["key"].as_str().expect("a key").to_owned()));
    }
    assert_eq!(keys(store, "data/").await, named, "data and manifests");
    let open = store.open_uploads("").await.expect("they are listed");
    assert!(open.is_empty(), "{open:?}");
}

async fn keys(store: &SharedStore, prefix: &str) -> BTreeSet<String> {
    let entries = list_all(&**store, prefix).await.expect("it is listed");
    entries.into_iter().map(|entry| entry.key.to_string()).collect()
}

async fn documents(store: &SharedStore, prefix: &str) -> Vec<Value> {
    let mut documents = Vec::new();
    for key in keys(store, prefix).await {
        let bytes = store.get(&Key::new(key)).await.expect("it is read").expect("it is there");
        documents.push(serde_json::from_slice(&bytes).expect("JSON"));
    }
    documents
}

/// The vault of [`Cli::of_redis`], object by object.
fn directory(cli: &Cli) -> SharedStore {
    Arc::new(FsStore::connect(&cli.path("vault"), false).expect("a local directory"))
}

/// Lets an hour pass, for what was left behind: then nobody can be writing it any more.
fn an_hour_later(cli: &Cli) {
    let folder = std::fs::read_dir(cli.path("vault/.tmp")).into_iter().flatten().flatten();
    let left: Vec<_> = folder.map(|name| name.path()).collect();
    if !left.is_empty() {
        let touched = Command::new("touch").args(["-h", "-d", "2 hours ago"]).args(left).status();
        assert!(touched.expect("touch is there").success());
    }
}

/// Asserts that a command failed with this exit code, and said all of these words.
#[track_caller]
fn says(ran: Ran, code: i32, words: &[&str]) -> Ran {
    let ran = ran.exits(code);
    for word in words {
        assert!(ran.stderr.contains(word), "{word:?} is not in {}", ran.stderr);
    }
    assert!(ran.stderr.contains("hint: "), "it does not say what to do: {}", ran.stderr);
    ran
}
