//! Objects that cannot be read: each is left alone, and stops nothing else.

use tidekeeper::engine::guards::OpenAttempts;
use tidekeeper::engine::run::RunId;
use tidekeeper::engine::views::Filter;
use tidekeeper::engine::work::Action;
use tidekeeper::vault::layout::{self, BackupRef};
use tidekeeper::vault::scrub::{Liveness, Writers};
use tidekeeper::vault::store::{Key, Store};

use super::world::{World, ask, every, instant, source};

/// A request, a run and a switch that nobody can read.
async fn spoil(world: &World) -> [Key; 3] {
    let run = RunId::new(instant("2026-11-21T05:59:59Z"), "000000000002");
    let switch = layout::switch("schedule-b", instant("2026-11-21T05:00:00Z"));
    let keys = [layout::request("000000000001"), layout::started(&run, 1), switch];
    for key in &keys {
        let _ = world.store.create(key, "{ \"half\": ".into()).await.unwrap();
    }
    keys
}

#[tokio::test(start_paused = true)]
async fn what_cannot_be_read_stops_nothing_else() {
    let world = World::new();
    let spoiled = spoil(&world).await;
    let process = world.process("d", vec![every("a", 60), every("b", 60)]);
    let mut daemon = process.daemon();
    let asked = process.engine.request(&ask(Action::Verify, "a", None)).await.unwrap();
    world.pass([&mut daemon], 70).await;
    assert_eq!(process.engine.health().vault, None);
    for work in ["verify a#1", "backup a#1", "backup b#1"] {
        assert!(world.begun().iter().any(|begun| begun == work), "{work}: {:?}", world.begun());
    }
    let runs = process.engine.runs(&Filter { limit: 10, ..Filter::default() }).await.unwrap();
    assert!(runs.iter().any(|run| run.run == asked.run));
    let status = process.engine.status().await.unwrap();
    assert_eq!(status.sources.len(), 2);
    for key in spoiled {
        let named = |what: &str| what.contains(key.as_str());
        assert!(status.problems.iter().any(|problem| named(&problem.what)), "{key}: {:?}", status.problems);
    }
}

#[tokio::test(start_paused = true)]
async fn a_run_whose_record_cannot_be_read_is_not_started_again() {
    let world = World::new();
    let process = world.process("d", vec![]);
    let mut daemon = process.daemon();
    let asked = process.engine.request(&ask(Action::Backup, "a", None)).await.unwrap();
    let started = layout::started(&asked.run, 1);
    let _ = world.store.create(&started, "{}".into()).await.unwrap();
    world.pass([&mut daemon], 100).await;
    assert!(world.begun().is_empty(), "{:?}", world.begun());
    assert_eq!(process.engine.health().vault, None);
}

#[tokio::test(start_paused = true)]
async fn words_of_a_newer_build_are_no_damage() {
    let world = World::new();
    let process = world.process("d", vec![every("a", 60)]);
    let (run, _) = process.run(&ask(Action::Backup, "a", None)).await.unwrap();
    for (key, was, is) in [
        (layout::started(&run, 1), "\"request\"", "\"runbook\""),
        (layout::finished(&run, 1), "\"succeeded\"", "\"improved\""),
    ] {
        let text = String::from_utf8(world.store.get(&key).await.unwrap().unwrap().to_vec()).unwrap();
        assert!(text.contains(was), "{text}");
        world.store.delete(&key).await.unwrap();
        let _ = world.store.create(&key, text.replace(was, is).into()).await.unwrap();
    }
    let at = instant("2026-11-21T06:00:01Z");
    let text =
        format!(r#"{{"nonce": "n", "position": "halved", "principal": "ada", "reason": "", "at": "{at}"}}"#);
    let switch = layout::switch(&tidekeeper::engine::switches::of_schedule(&source("a")), at);
    let _ = world.store.create(&switch, text.into()).await.unwrap();
    let next = world.process("e", vec![every("a", 60)]);
    let view = next.engine.run(&run).await.unwrap();
    assert_eq!(serde_json::to_value(view.why).unwrap()["by"], "other");
    let problems = next.engine.status().await.unwrap().problems;
    assert!(problems.iter().all(|problem| problem.what.starts_with("no daemon leads")), "{problems:?}");
}

#[tokio::test(start_paused = true)]
async fn who_wrote_a_backup_is_unknown_while_a_claim_cannot_be_read() {
    let world = World::new();
    let backup = BackupRef { source: source("a"), id: "20261120T060000Z-000000".parse().unwrap() };
    let alone = OpenAttempts::new(&world.vault()).liveness(&backup).await.unwrap();
    assert!(matches!(alone, Liveness::Dead(_)), "{alone:?}");
    spoil(&world).await;
    let beside = OpenAttempts::new(&world.vault()).liveness(&backup).await.unwrap();
    assert_eq!(beside, Liveness::Unknown);
}
