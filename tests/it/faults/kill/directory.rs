//! The vault is a directory: the daemon dies while the call to the kernel that is the commit point begins late.

use std::path::PathBuf;

use super::{FASTER, Stage};
use crate::faults::{EAGER, an_hour_later, deleted_until, directory, filled, keys};
use crate::harness::cli::Cli;
use crate::harness::clock::hurried;
use crate::harness::daemon::{Daemon, LONG};
use crate::harness::proxy::{Proxy, Then, Weather};
use crate::harness::redis::RedisServer;
use crate::harness::slow::Slow;
use crate::harness::wait_for;

async fn stage(server: &RedisServer, backups: usize) -> (Proxy, Stage) {
    let proxy = Proxy::start(server.port).await;
    let cli = Cli::of_redis(&format!("redis://127.0.0.1:{}", proxy.port));
    if backups == 2 {
        cli.write("schedules/redis.yaml", EAGER);
    }
    let store = directory(&cli);
    (proxy, Stage::with(cli, store, backups).await)
}

/// What is staged in the vault, and not published: keys, and where their bytes are.
fn staged(cli: &Cli) -> Vec<(String, PathBuf)> {
    let names = std::fs::read_dir(cli.path("vault/.tmp")).into_iter().flatten().flatten();
    let links = names.map(|name| name.path()).filter(|path| path.extension().is_some_and(|end| end == "key"));
    let keys = links.filter_map(|link| {
        let key = std::fs::read_link(&link).ok()?;
        Some((key.to_str()?.to_owned(), link.with_extension("object")))
    });
    keys.collect()
}

fn is_staged(cli: &Cli, begin: &str, end: &str) -> bool {
    staged(cli).iter().any(|(key, _)| key.starts_with(begin) && key.ends_with(end))
}

/// The daemon dies when a part is in the vault and the rest has not come.
async fn killed_in_the_data(server: &RedisServer) {
    let (proxy, stage) = stage(server, 1).await;
    let mut daemon = Daemon::start(&stage.cli).await;
    proxy.set(Weather { after: Some(11 << 20), then: Then::Silence, ..Weather::default() });
    let run = daemon.back_up().await;
    daemon
        .wait("the first part is in the vault", async || {
            let data = staged(&stage.cli).into_iter().find(|(key, _)| key.starts_with("data/"));
            data.is_some_and(|(_, file)| file.metadata().is_ok_and(|file| file.len() == 8 << 20))
        })
        .await;
    daemon.kill().await;
    proxy.set(Weather::default());
    goes_on(&stage, &run, false).await;
}

/// The daemon dies while a name is about to be given to the staged manifest, or just after.
async fn killed_at_the_manifest(server: &RedisServer, committed: bool) {
    let (proxy, stage) = stage(server, 1).await;
    let mut daemon = Daemon::start(&stage.cli).await;
    proxy.set(Weather { rate: 2 << 20, ..Weather::default() });
    let run = daemon.back_up().await;
    daemon.wait("the transfer is under way", async || proxy.passed() > 100 << 10).await;
    let slow = Slow::down(daemon.pid(), "linkat").await;
    proxy.set(Weather::default());
    daemon
        .wait("the manifest is about to be there", async || match committed {
            true => keys(&stage.store, "manifests/").await.len() == 2,
            false => is_staged(&stage.cli, "manifests/", ".json"),
        })
        .await;
    daemon.kill().await;
    drop(slow);
    proxy.set(Weather::default());
    goes_on(&stage, &run, committed).await;
}

/// Nobody can be writing what is an hour old.
async fn goes_on(stage: &Stage, run: &str, committed: bool) {
    stage.goes_on_after_a_backup(run, committed, async { an_hour_later(&stage.cli) }).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_backup_is_whole_or_not_there() {
    let server = filled(12 << 20).await;
    tokio::join!(
        killed_in_the_data(&server),
        killed_at_the_manifest(&server, false),
        killed_at_the_manifest(&server, true),
    );
}

/// Between tombstone and verdict, or between the verdict and the first deletion.
async fn killed_in_a_deletion(server: &RedisServer, decided: bool) {
    let (_proxy, stage) = stage(server, 2).await;
    stage.cli.run(&["retention", "--apply"]).await.exits(0);
    let mut daemon = Daemon::start_with(&stage.cli, &hurried(FASTER)).await;
    let slow = Slow::down(daemon.pid(), if decided { "unlink" } else { "linkat" }).await;
    let verdict = "/1.verdict.json";
    let point = wait_for("the verdict is about to be there", LONG, async || match decided {
        true => keys(&stage.store, "tombstones/").await.iter().any(|key| key.ends_with(verdict)),
        false => is_staged(&stage.cli, "tombstones/", verdict),
    });
    deleted_until(&stage.cli, point).await;
    daemon.kill().await;
    drop(slow);
    assert_eq!(keys(&stage.store, "manifests/").await.len(), 2);
    stage.goes_on_after_a_deletion(async { an_hour_later(&stage.cli) }).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_deletion_goes_on_where_it_was_left() {
    let server = filled(1 << 10).await;
    tokio::join!(killed_in_a_deletion(&server, false), killed_in_a_deletion(&server, true));
}
