//! Clocks that are wrong, and local times that do not exist or come twice: the daemon as a process with another time.

use serde_json::Value;

use super::{EAGER, backed_up, filled, keys, listed};
use crate::faults::directory;
use crate::harness::cli::Cli;
use crate::harness::daemon::Daemon;
use crate::harness::redis::RedisServer;

/// A vault with this schedule, made at this time.
async fn at(server: &RedisServer, time: &str, schedule: &str) -> Cli {
    let mut cli = Cli::of_redis(&server.url()).with_time(time);
    cli.env.push(("TZ", "UTC".to_owned()));
    cli.write("schedules/redis.yaml", schedule);
    cli.run(&["init"]).await.exits(0);
    cli
}

/// Starts a daemon; returns when it knows since when it watches its `series`.
async fn watching(cli: &Cli, series: usize) -> Daemon {
    let daemon = Daemon::start(cli).await;
    let store = directory(cli);
    daemon.wait("it watches", async || keys(&store, "switches/").await.len() == series).await;
    daemon
}

/// The scheduled runs of the last month that succeeded, by series and due time, oldest first.
async fn scheduled(daemon: &Daemon) -> Vec<(String, String)> {
    let runs = daemon.get("/v1/runs?action=backup").await;
    let runs = runs["runs"].as_array().expect("a list").iter().rev();
    let done = runs.filter(|run| run["principal"] == "schedule" && run["state"] == "succeeded");
    let due = done.map(|run| {
        let text = |value: &Value| value.as_str().expect("text").to_owned();
        (text(&run["why"]["series"]), text(&run["why"]["due"]))
    });
    due.collect()
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn set_back_an_hour_backups_go_on_and_nothing_is_deleted() {
    let server = filled(1 << 10).await;
    let cli = at(&server, "+0", EAGER).await;
    let (old, new) = (backed_up(&cli).await, backed_up(&cli).await);
    cli.run(&["retention", "--apply"]).await.exits(0);
    let mut daemon = watching(&cli, 1).await;
    cli.time("-3600");
    let later = backed_up(&cli).await;
    assert!(later > new, "an id does not go back");
    let pass = cli.run(&["retention", "--apply"]).await.exits(0).stdout;
    assert!(pass.contains("nothing is removed now: "), "{pass}");
    assert_eq!(listed(&cli).await.0, [later.as_str(), &new, &old]);
    assert_eq!(daemon.end().await, Some(0));
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_was_due_while_the_daemon_was_down_runs_once_or_is_skipped() {
    let server = filled(1 << 10).await;
    let schedule = "source: redis-main\nbackup:\n  \
                    - { name: kept, cron: \"0 */6 * * *\", missed: run_once }\n  \
                    - { name: skipped, cron: \"0 */6 * * *\", missed: skip }\n";
    let cli = at(&server, "@2027-01-10 05:00:00", schedule).await;
    watching(&cli, 2).await.kill().await;

    cli.time("@2027-01-11 01:30:00");
    let mut daemon = Daemon::start(&cli).await;
    let of = |series: &str, due: &str| (series.to_owned(), due.to_owned());
    let missed = of("kept", "2027-01-11T00:00:00Z");
    daemon.wait("what was missed has run", async || scheduled(&daemon).await.contains(&missed)).await;
    cli.time("@2027-01-11 06:00:01");
    daemon.wait("both are on time again", async || scheduled(&daemon).await.len() == 3).await;
    let mut ran = scheduled(&daemon).await;
    ran.sort();
    let on_time = "2027-01-11T06:00:00Z";
    assert_eq!(ran, [missed, of("kept", on_time), of("skipped", on_time)]);
    daemon.kill().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_local_time_that_is_skipped_or_repeated_is_due_once() {
    let server = filled(1 << 10).await;
    let schedule = "source: redis-main\ntime_zone: Europe/Berlin\n\
                    backup: [{ name: nightly, cron: \"30 2 * * *\", missed: skip }]\n";
    let cli = at(&server, "@2027-03-28 00:59:57", schedule).await;
    let mut daemon = watching(&cli, 1).await;
    let is_due = async |time: &str| scheduled(&daemon).await.iter().any(|(_, due)| due == time);
    daemon
        .wait("what the spring skips is due when it ends", async || is_due("2027-03-28T01:00:00Z").await)
        .await;
    cli.time("@2027-10-31 00:29:58");
    daemon.wait("half past two", async || is_due("2027-10-31T00:30:00Z").await).await;
    cli.time("@2027-10-31 01:30:02");
    // A request is served by a tick that also sees the second half past two.
    let run = daemon.back_up().await;
    daemon.run_is(&run, "succeeded").await;
    cli.time("@2027-11-01 01:30:02");
    daemon.wait("the next day", async || is_due("2027-11-01T01:30:00Z").await).await;
    assert!(!is_due("2027-10-31T01:30:00Z").await, "half past two came twice");
    daemon.kill().await;
}
