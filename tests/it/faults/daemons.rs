//! Two daemons on one vault: one leads, the other follows, and succeeds it when it is dead or silent.

use std::collections::BTreeSet;

use tidekeeper::clock::SystemClock;
use tidekeeper::vault::store::SharedStore;

use super::{EAGER, backed_up, deleted_until, directory, documents, filled, is_sound, listed};
use crate::harness::cli::Cli;
use crate::harness::clock::hurried;
use crate::harness::daemon::Daemon;
use crate::harness::proxy::{Proxy, Weather};
use crate::harness::s3::gate::{Fate, Gate};
use crate::harness::s3::versitygw;

/// A follower looks at its leader every ten seconds, and waits for an answer for 45: by these clocks, an eighth of it.
const FASTER: u32 = 8;

/// The runs whose backups are there, one for each.
async fn committed(store: &SharedStore) -> Vec<String> {
    let manifests = documents(store, "manifests/").await;
    let committed = manifests.iter().filter(|manifest| manifest["status"] != "abandoned");
    committed.filter_map(|manifest| manifest["run"].as_str().map(str::to_owned)).collect()
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn the_killed_leaders_work_is_done_by_the_other_and_nothing_twice() {
    let server = filled(12 << 20).await;
    let proxy = Proxy::start(server.port).await;
    let cli = Cli::of_redis(&format!("redis://127.0.0.1:{}", proxy.port));
    let often = "source: redis-main\nbackup: [{ name: often, every: 20s }]\n";
    cli.write("schedules/redis.yaml", often);
    cli.run(&["init"]).await.exits(0);
    let mut first = Daemon::start_with(&cli, &hurried(FASTER)).await;
    first.wait("it leads", async || first.leads().await).await;
    let mut second = Daemon::start_with(&cli, &hurried(FASTER)).await;
    assert!(!second.leads().await, "one leads");
    let store = directory(&cli);
    first.wait("a scheduled backup", async || !committed(&store).await.is_empty()).await;

    // Whoever is asked, the leader does it; and dies while it does.
    proxy.set(Weather { rate: 2 << 20, ..Weather::default() });
    let run = second.back_up().await;
    second.run_is(&run, "running").await;
    first.kill().await;
    proxy.set(Weather::default());
    second.wait("the other leads", async || second.leads().await).await;
    let ended = second.run_is(&run, "succeeded").await;
    assert_eq!(ended["attempts"], 2, "{ended}");
    let done = committed(&store).await.len();
    second.wait("the schedule goes on", async || committed(&store).await.len() >= done + 2).await;
    assert_eq!(second.end().await, Some(0));

    let runs = committed(&store).await;
    assert_eq!(runs.iter().collect::<BTreeSet<_>>().len(), runs.len(), "a run was done twice: {runs:?}");
    let (good, other) = listed(&cli).await;
    assert_eq!(good.len(), runs.len());
    assert!(!other.is_empty() && other.iter().all(|status| status == "abandoned"), "{other:?}");
    is_sound(&cli, &store).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_paused_leader_that_wakes_up_deletes_nothing_and_follows() {
    let server = filled(1 << 10).await;
    let gate = Gate::before(versitygw().await).await;
    let place = gate.server.place();
    let mut cli = Cli::of_redis_in(&server.url(), &gate.server, &place);
    cli.write("schedules/redis.yaml", EAGER);
    cli.run(&["init"]).await.exits(0);
    let (old, new) = (backed_up(&cli).await, backed_up(&cli).await);
    cli.run(&["retention", "--apply"]).await.exits(0);

    let sleeper = Daemon::start_with(&cli, &hurried(FASTER)).await;
    sleeper.wait("it leads", async || sleeper.leads().await).await;
    let verdict = gate.on("PUT", "/1.verdict.json", 1, Fate::Held(0));
    deleted_until(&cli, verdict.met()).await;
    sleeper.pause();
    let status = cli.run(&["status", "--json"]).await.exits(0).json();
    assert_eq!(status["leader"]["alive"], false, "{status}");
    assert!(status["problems"].to_string().contains("is stopped"), "{status}");

    // In a container of its own nobody sees whether the other lives, so it asks, and gets no answer.
    cli.under = vec!["unshare", "--map-root-user", "--pid", "--fork", "--kill-child", "--mount-proc"];
    let next = Daemon::start_with(&cli, &hurried(FASTER)).await;
    cli.under.clear();
    assert!(!next.leads().await, "it has to ask first");
    next.wait("it leads", async || next.leads().await).await;
    cli.run(&["hold", &old, "--reason", "audit"]).await.exits(0);

    verdict.let_go();
    sleeper.resume();
    sleeper
        .wait("it follows", async || sleeper.ready().await.is_some_and(|ready| ready["leads"] == false))
        .await;
    assert!(next.leads().await);
    assert_eq!(listed(&cli).await.0, [new.as_str(), old.as_str()]);
    let store = gate.server.store_at(&place, SystemClock::shared());
    let marks = documents(&store, "tombstones/").await;
    let decrees: Vec<_> = marks.iter().filter_map(|mark| mark["decree"].as_str()).collect();
    assert_eq!(decrees, ["keep"]);
    for backup in [&old, &new] {
        cli.run(&["verify", backup]).await.exits(0);
    }
}
