//! A process that ends at each store call in turn, before or after the call acted; another one then makes it good.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use async_trait::async_trait;
use tidekeeper::engine::run::{End, Record};
use tidekeeper::engine::work::Action;
use tidekeeper::error::Kind;
use tidekeeper::vault::store::SharedStore;
use tidekeeper::vault::store::faults::{Before, Call, Faults, Hook};
use tokio_util::sync::CancellationToken;

use super::world::{Act, World, ask, cron};

/// Stops the process for ever at its n-th call.
#[derive(Debug)]
struct Crash {
    at: u64,
    after: bool,
    calls: AtomicU64,
    crashed: CancellationToken,
}

impl Crash {
    fn at(at: u64, after: bool) -> Arc<Self> {
        Arc::new(Crash { at, after, calls: AtomicU64::new(0), crashed: CancellationToken::new() })
    }

    async fn stop(&self) {
        self.crashed.cancel();
        std::future::pending().await
    }
}

#[async_trait]
impl Hook for Crash {
    async fn before(&self, _call: &Call) -> Before {
        let n = self.calls.fetch_add(1, Ordering::SeqCst) + 1;
        if n > self.at || (n == self.at && !self.after) {
            self.stop().await;
        }
        Before::Pass
    }

    async fn after(&self, _call: &Call, _ok: bool) -> Option<Kind> {
        if self.after && self.calls.load(Ordering::SeqCst) >= self.at {
            self.stop().await;
        }
        None
    }
}

/// What must be true of any history of backups: each attempt has one end, each that did not succeed is given up for
/// ever, and exactly the last of a run may have a backup.
async fn check(world: &World, record: &Record, place: &str) {
    let (last, before) = record.tries.split_last().unwrap();
    for given_up in before {
        let finished = given_up.finished.as_ref().unwrap_or_else(|| panic!("{place}: an attempt has no end"));
        assert_ne!(finished.outcome, End::Succeeded, "{place}: a run went on after its success");
        let manifest = world.manifest(&given_up.started.backup().unwrap()).await;
        assert_eq!(manifest.expect(place).status.as_str(), "abandoned", "{place}");
    }
    let finished = last.finished.as_ref().unwrap_or_else(|| panic!("{place}: the run has no end"));
    assert_eq!(finished.outcome, End::Succeeded, "{place}: {:?}", finished.error);
    let manifest = world.manifest(&last.started.backup().unwrap()).await;
    assert_eq!(manifest.expect(place).status.as_str(), "complete", "{place}");
}

#[tokio::test(start_paused = true)]
async fn a_daemon_that_dies_at_any_call_is_succeeded_by_a_true_history() {
    for after in [false, true] {
        for at in 1.. {
            let place = format!("crash {} call {at}", if after { "after" } else { "before" });
            let world = World::at("2026-11-21T06:00:50Z");
            let schedules = vec![cron("a", "1 6 * * *", "UTC")];
            let crash = Crash::at(at, after);
            let store: SharedStore = Arc::new(Faults::around(Arc::new(world.store.clone()), crash.clone()));
            let first = world.process_on("m", "first", store, schedules.clone());
            let mut daemon = first.daemon();
            tokio::select! {
                () = crash.crashed.cancelled() => {}
                () = world.pass([&mut daemon], 25) => {}
            }
            let survived = !crash.crashed.is_cancelled();
            drop(daemon);
            first.kill();
            let second = world.process("second", schedules);
            let mut daemon = second.daemon();
            world.pass([&mut daemon], 100).await;
            let backups = world.records_of(Action::Backup).await;
            assert_eq!(backups.len(), 1, "{place}");
            assert!(backups[0].tries.len() <= 2, "{place}");
            check(&world, &backups[0], &place).await;
            if survived {
                assert!(at > 20, "only {at} calls: the test has lost its subject");
                break;
            }
        }
    }
}

#[tokio::test(start_paused = true)]
async fn a_request_survives_whoever_accepted_it() {
    for after in [false, true] {
        for at in 1.. {
            let place = format!("crash {} call {at}", if after { "after" } else { "before" });
            let world = World::new();
            let crash = Crash::at(at, after);
            let store: SharedStore = Arc::new(Faults::around(Arc::new(world.store.clone()), crash.clone()));
            let first = world.process_on("m", "first", store, vec![]);
            let mut daemon = first.daemon();
            let order = ask(Action::Backup, "a", Some("k"));
            let accepted = async {
                let _ = first.engine.request(&order).await;
                world.pass([&mut daemon], 15).await;
            };
            tokio::select! {
                () = crash.crashed.cancelled() => {}
                () = accepted => {}
            }
            let survived = !crash.crashed.is_cancelled();
            drop(daemon);
            first.kill();
            let second = world.process("second", vec![]);
            // Whoever got no answer asks again, with the same key.
            let again = second.engine.request(&order).await.unwrap();
            let mut daemon = second.daemon();
            world.pass([&mut daemon], 60).await;
            let records = world.records().await;
            assert_eq!(records.len(), 1, "{place}");
            assert_eq!(records[0].0, again.run, "{place}");
            check(&world, &records[0].1, &place).await;
            if survived {
                break;
            }
        }
    }
}

#[tokio::test(start_paused = true)]
async fn a_restore_that_died_is_never_started_again() {
    for after in [false, true] {
        for at in 1.. {
            let place = format!("crash {} call {at}", if after { "after" } else { "before" });
            let world = World::new();
            world.act("a", Act::Claim("target", Duration::from_secs(3)));
            let crash = Crash::at(at, after);
            let store: SharedStore = Arc::new(Faults::around(Arc::new(world.store.clone()), crash.clone()));
            let first = world.process_on("m", "first", store, vec![]);
            let order = ask(Action::Restore, "a", Some("k"));
            let survived = tokio::select! {
                () = crash.crashed.cancelled() => false,
                done = first.run(&order) => done.is_ok(),
            };
            first.kill();
            let second = world.process("second", vec![]);
            let done = second.run(&order).await;
            let (_, record) = done.unwrap_or_else(|error| panic!("{place}: {error:?}"));
            assert_eq!(record.tries.len(), 1, "{place}");
            assert!(world.begun().len() <= 1, "{place}: {:?}", world.begun());
            let outcome = record.finished().unwrap().outcome;
            // Begun once, it was either ended before the crash or is interrupted; never begun, the second did it.
            assert!(matches!(outcome, End::Succeeded | End::Interrupted), "{place}: {outcome:?}");
            // And its target is free for another.
            let other = ask(Action::Restore, "a", None);
            let (_, record) = second.run(&other).await.unwrap();
            assert_eq!(record.finished().unwrap().outcome, End::Succeeded, "{place}");
            if survived {
                break;
            }
        }
    }
}
