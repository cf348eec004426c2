//! The whole protocol, simulated: two daemons and operators at terminals on one store, each with the works that are shipped,
//! through crashes, pauses, lost replies and clock jumps at every store call. A seed is a history: what people do, what
//! befalls whom and when. The oracle is a naive model (`truth`) that sees every effect on the store as it happens.
//!
//! `TIDEKEEPER_SIM_SEED=<n>` lives through that one history and prints it; `TIDEKEEPER_SIM_SEEDS=<n>` through as many.

mod asks;
mod gate;
mod history;
mod saboteur;
mod system;
mod truth;
mod watched;
mod weather;
mod world;

use std::collections::BTreeMap;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::Mutex;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::thread;

use tidekeeper::vault::layout::seed_random;

use self::history::{Story, live};
use self::saboteur::Plant;
use self::weather::Tally;

const FIRST_SEED: u64 = 20_261_121;
const SEEDS: u64 = 10_000;

/// A planted bug is found within so many seeds, or the oracle is blind to it.
const ENOUGH: u64 = 2_000;

/// What must have happened in ten thousand histories, and how often at least: else the dice are loaded.
const LEAST: [(&str, u64); 18] = [
    ("runs", 80_000),
    ("attempts after the first", 1_000),
    ("backups complete", 30_000),
    ("backups abandoned", 3_000),
    ("backups deleted", 3_000),
    ("proposals and verdicts", 3_000),
    ("holds", 3_000),
    ("restores that read all", 1_000),
    ("requests accepted", 3_000),
    ("requests made again", 1_000),
    ("requests made again past midnight", 100),
    ("leader changes", 10_000),
    ("clock jumps", 1_000),
    ("pauses", 3_000),
    ("crashes before a call acted", 5_000),
    ("crashes after a call acted", 3_000),
    ("failed calls", 10_000),
    ("lost replies", 10_000),
];

fn story(seed: u64, plant: Option<Plant>) -> Story {
    // Two seeds share no nonce.
    seed_random(seed << 32);
    let lived = catch_unwind(AssertUnwindSafe(|| {
        let runtime = tokio::runtime::Builder::new_current_thread().enable_time().start_paused(true).build();
        runtime.expect("a runtime").block_on(live(seed, plant))
    }));
    lived.unwrap_or_else(|_| Story {
        wrong: Some("it panicked".to_owned()),
        tally: Tally::new(),
        trace: Vec::new(),
    })
}

fn number(name: &str) -> Option<u64> {
    std::env::var(name).ok().map(|text| text.parse().unwrap_or_else(|_| panic!("{name} is a number")))
}

/// Lives through histories on all cores until one is wrong; the sum of what happened, or the first that was wrong.
fn histories(seeds: u64, plant: Option<Plant>) -> Result<Tally, (u64, Story)> {
    let (next, stop) = (AtomicU64::new(0), AtomicBool::new(false));
    let (sum, wrong) = (Mutex::new(Tally::new()), Mutex::new(BTreeMap::new()));
    let work = || {
        while !stop.load(Ordering::SeqCst) {
            let n = next.fetch_add(1, Ordering::SeqCst);
            if n >= seeds {
                return;
            }
            let story = story(FIRST_SEED + n, plant);
            let mut sum = sum.lock().unwrap();
            story.tally.iter().for_each(|(what, n)| *sum.entry(what).or_default() += n);
            if story.wrong.is_some() {
                stop.store(true, Ordering::SeqCst);
                wrong.lock().unwrap().insert(n, story);
            }
        }
    };
    let cores = thread::available_parallelism().map_or(2, usize::from);
    thread::scope(|scope| (0..cores).for_each(|_| drop(scope.spawn(work))));
    match wrong.into_inner().unwrap().pop_first() {
        Some(found) => Err(found),
        None => Ok(sum.into_inner().unwrap()),
    }
}

/// A story as people read it: its last `lines` effects, and what was wrong.
fn tell(seed: u64, story: &Story, lines: usize) -> String {
    let wrong = story.wrong.as_deref().unwrap_or("nothing was wrong");
    let last = story.trace[story.trace.len().saturating_sub(lines)..].join("\n");
    format!("{last}\nseed {seed}: {wrong}\nTIDEKEEPER_SIM_SEED={seed} lives through it again")
}

fn in_words(tally: &Tally) -> String {
    tally.iter().map(|(what, n)| format!("{n} {what}")).collect::<Vec<_>>().join(", ")
}

#[test]
fn a_seed_is_a_history() {
    for seed in FIRST_SEED..FIRST_SEED + 5 {
        let (once, twice) = (story(seed, None), story(seed, None));
        assert_eq!(once.tally, twice.tally, "seed {seed}");
        assert_eq!(once.trace, twice.trace, "seed {seed}");
    }
}

#[test]
fn no_history_breaks_a_promise() {
    if let Some(seed) = number("TIDEKEEPER_SIM_SEED") {
        let story = story(seed, None);
        println!("{}\n{}", tell(seed, &story, usize::MAX), in_words(&story.tally));
        assert!(story.wrong.is_none(), "seed {seed}: {:?}", story.wrong);
        return;
    }
    let seeds = number("TIDEKEEPER_SIM_SEEDS").unwrap_or(SEEDS);
    match histories(seeds, None) {
        Ok(tally) => {
            println!("{seeds} histories from seed {FIRST_SEED}: {}", in_words(&tally));
            for (what, least) in LEAST {
                let found = tally.get(what).copied().unwrap_or_default();
                assert!(found * SEEDS >= least * seeds, "too few to say anything: {found} {what}");
            }
        }
        Err((n, story)) => panic!("{}", tell(FIRST_SEED + n, &story, 60)),
    }
}

fn is_found(plant: Plant, name: &str) {
    let (n, story) = histories(ENOUGH, Some(plant)).err().unwrap_or_else(|| panic!("{name} was not found"));
    let said = story.wrong.unwrap_or_default();
    println!("planted: {name} found after {} seeds (seed {}: {said})", n + 1, FIRST_SEED + n);
}

macro_rules! planted {
    ($($test:ident: $plant:ident, $name:literal;)*) => {
        $(#[test]
        fn $test() {
            is_found(Plant::$plant, $name);
        })*
    };
}

planted! {
    a_manifest_written_first_is_found: ManifestFirst, "manifest first";
    an_overwriting_abandon_is_found: AbandonOverwrites, "abandon without conditional create";
    a_shared_data_key_is_found: OneDataKey, "one data key for two attempts";
    an_own_object_taken_for_anothers_is_found: OwnIsForeign, "own 412 taken for a lost race";
    a_deletion_without_verdict_is_found: NoVerdict, "deletion without verdict";
    a_deletion_by_an_old_plan_is_found: OldPlan, "deletion by a plan that is not made anew";
    a_cleaning_under_a_living_writer_is_found: WritersAreDead, "cleaning under a live writer";
    a_finished_run_started_again_is_found: RunsStartAgain, "a finished run started again";
}
