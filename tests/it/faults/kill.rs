//! `kill -9` of the daemon at each commit point: the next one lists what is true, goes on, and leaves nothing behind.

mod bucket;
mod directory;
mod mongodb;

use tidekeeper::vault::store::SharedStore;

use super::{backed_up_of, is_sound, keys, listed};
use crate::harness::cli::Cli;
use crate::harness::clock::hurried;
use crate::harness::daemon::{Daemon, LONG};
use crate::harness::s3::gate::{Fate, Gate};
use crate::harness::within;

/// A daemon looks for requests every five seconds, and its next attempt waits ten: by these clocks, a fifth of it.
const FASTER: u32 = 5;

/// Where in a backup the daemon dies: at which request, and whether the backup exists by then.
struct Point {
    method: &'static str,
    part: &'static str,
    fate: Fate,
    committed: bool,
}

/// A vault, and what is in it before the daemon dies.
struct Stage {
    cli: Cli,
    store: SharedStore,
    before: Vec<String>,
}

impl Stage {
    /// A vault with so many backups, oldest first.
    async fn with(cli: Cli, store: SharedStore, backups: usize) -> Self {
        Stage::of("redis-main", cli, store, backups).await
    }

    /// The same of another source.
    async fn of(source: &str, cli: Cli, store: SharedStore, backups: usize) -> Self {
        cli.run(&["init"]).await.exits(0);
        let mut before = Vec::new();
        for _ in 0..backups {
            before.push(backed_up_of(&cli, source).await);
        }
        Stage { cli, store, before }
    }

    /// The daemon dies at this point of a backup of `source`, and all goes on.
    async fn is_killed_at(&self, point: &Point, gate: &Gate, source: &str) {
        let mut daemon = Daemon::start(&self.cli).await;
        let rule = gate.on(point.method, point.part, 1, point.fate);
        let run = daemon.back_up_of(source).await;
        within(point.part, LONG, rule.met()).await;
        daemon.kill().await;
        // What the dead process had sent arrives when everything is over: it changes nothing any more.
        let late = async {
            if point.fate != Fate::AnswerHeld {
                rule.arrive_late().await;
            }
        };
        self.goes_on_after_a_backup(&run, point.committed, late).await;
    }

    /// What must come of a backup in whose run the daemon died: if it was `committed` by then it counts, and nothing is
    /// done twice; else it is given up and the next attempt makes another. `late` is what may still arrive.
    async fn goes_on_after_a_backup(&self, run: &str, committed: bool, late: impl Future) {
        let (good, other) = listed(&self.cli).await;
        assert_eq!((good.len(), other.len()), (1 + usize::from(committed), 0), "while nobody runs");
        assert_eq!(good.last(), self.before.last());

        let mut next = Daemon::start_with(&self.cli, &hurried(FASTER)).await;
        let ended = next.run_is(run, "succeeded").await;
        assert_eq!(ended["attempts"], if committed { 1 } else { 2 }, "{ended}");
        within("what was late arrives", LONG, late).await;
        assert_eq!(next.end().await, Some(0));

        let (good, other) = listed(&self.cli).await;
        assert_eq!((good.len(), other), (2, vec!["abandoned".to_owned(); usize::from(!committed)]));
        assert!(good[0].ends_with(ended["backup"]["id"].as_str().expect("an id")), "{ended}");
        is_sound(&self.cli, &self.store).await;
    }

    /// What must come of a deletion in which the daemon died: the other backup is as good as ever, and the next pass leaves
    /// nothing of the one that goes.
    async fn goes_on_after_a_deletion(&self, late: impl Future) {
        let [old, new] = self.before.as_slice() else { panic!("two backups") };
        assert_eq!(listed(&self.cli).await.0.first(), Some(new));
        self.cli.run(&["verify", new]).await.exits(0);

        let mut next = Daemon::start_with(&self.cli, &hurried(FASTER)).await;
        let interrupted = "/v1/runs?action=retention&state=interrupted";
        next.wait("the dead daemon's run is closed", async || {
            next.get(interrupted).await["runs"][0].is_object()
        })
        .await;
        within("what was late arrives", LONG, late).await;
        // By its clock five minutes are over soon, and then it deletes nothing any more: the next pass is not its.
        assert_eq!(next.end().await, Some(0));
        self.cli.run(&["retention", "--apply"]).await.exits(0);

        assert_eq!(listed(&self.cli).await, (vec![new.clone()], Vec::new()));
        let left = keys(&self.store, "").await;
        let left: Vec<_> = left.iter().filter(|key| key.contains(old.as_str())).collect();
        assert!(left.is_empty(), "{left:?}");
        is_sound(&self.cli, &self.store).await;
    }
}
