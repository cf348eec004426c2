//! One history: from its seed to its end, and what was wrong on the way.

use std::time::Duration;

use jiff::SignedDuration;
use tidekeeper::clock::Clock;
use tidekeeper::engine::perform::Stop;
use tidekeeper::engine::work::Order;
use tidekeeper::task::Progress;
use tidekeeper::vault::layout::BackupRef;
use tidekeeper::vault::store::Store;

use super::asks;
use super::saboteur::Plant;
use super::weather::Tally;
use super::world::{Asked, INTERVAL, World};
use crate::vault::estate::Dice;

/// How a history went.
pub struct Story {
    /// The first thing that was wrong.
    pub wrong: Option<String>,
    /// What happened in it, and how often.
    pub tally: Tally,
    /// Every effect on the store, in order.
    pub trace: Vec<String>,
}

const FAST: Duration = Duration::from_secs(10);
const SLOW: Duration = Duration::from_secs(900);

/// What somebody may do in a step.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Deed {
    Wait,
    WaitForMidnight,
    AskAgain,
    Backup,
    Restore,
    Verify,
    Hold,
    Unhold,
    Accept,
    Retention,
    Scrub,
    Cancel,
    Kill,
    Doom,
    Pause,
    Jump,
    Spoil,
    Prove,
}

/// What is done everywhere, and how often each beside the others.
const DEEDS: [(Deed, u64); 17] = [
    (Deed::Wait, 6),
    (Deed::WaitForMidnight, 2),
    (Deed::AskAgain, 2),
    (Deed::Backup, 3),
    (Deed::Restore, 4),
    (Deed::Verify, 2),
    (Deed::Hold, 2),
    (Deed::Unhold, 1),
    (Deed::Accept, 1),
    (Deed::Retention, 3),
    (Deed::Scrub, 3),
    (Deed::Cancel, 1),
    (Deed::Kill, 2),
    (Deed::Doom, 3),
    (Deed::Pause, 2),
    (Deed::Jump, 1),
    (Deed::Spoil, 3),
];

/// What a planted bug has to do with: it is looked for where there is much of that.
fn focus(plant: Option<Plant>) -> &'static [Deed] {
    match plant {
        Some(Plant::OldPlan) => &[Deed::Prove, Deed::Retention],
        Some(Plant::WritersAreDead) => &[Deed::Scrub, Deed::Backup],
        _ => &[],
    }
}

/// Lives through the history of `seed`.
pub async fn live(seed: u64, plant: Option<Plant>) -> Story {
    let mut dice = Dice(seed ^ 0x5eed);
    let mut world = World::new(seed, plant);
    // No history has everything: what is left out makes room for more of the rest.
    let deeds: Vec<(Deed, u64)> = DEEDS.into_iter().filter(|_| dice.chance(70)).collect();
    world.pass(Duration::from_secs(20), FAST).await;
    for _ in 0..length(plant, &mut dice) {
        world.weather.set_calm(false);
        step(&mut world, &deeds, focus(plant), &mut dice).await;
        if world.truth.wrong().is_some() {
            break;
        }
    }
    if world.truth.wrong().is_none() {
        settle(&mut world).await;
    }
    if world.truth.wrong().is_some() {
        for daemon in &world.daemons {
            let health = format!("{:?}", daemon.engine.health());
            world.truth.remark(&daemon.gate.id, health);
        }
    }
    let mut tally = world.weather.tally();
    world.truth.count().into_iter().for_each(|(what, n)| *tally.entry(what).or_default() += n);
    Story { wrong: world.truth.wrong(), tally, trace: world.truth.trace() }
}

/// Most histories are short, and so many; what takes many hours to go wrong (a deletion has its grace) needs long ones.
fn length(plant: Option<Plant>, dice: &mut Dice) -> u64 {
    if plant.is_some() || dice.chance(25) { 5 + dice.below(8) } else { 1 + dice.below(4) }
}

/// One step: the dead come back, somebody does something, time passes.
async fn step(world: &mut World, deeds: &[(Deed, u64)], focus: &[Deed], dice: &mut Dice) {
    for n in 0..world.daemons.len() {
        if world.daemons[n].gate.is_dead() && dice.chance(70) {
            world.restart(n);
        }
    }
    let some = 1 + dice.below(2);
    for _ in 0..some {
        let focused = !focus.is_empty() && dice.chance(50);
        let deed = if focused { *dice.pick(focus) } else { pick(deeds, dice) };
        perform(world, deed, dice).await;
    }
    world.pass(Duration::from_secs(20 + dice.below(60)), FAST).await;
    if dice.chance(70) {
        // Nobody waits at a terminal for ever.
        world.operators.drain(..).for_each(|operator| operator.gate.die());
        world.pass(Duration::from_secs(900 + dice.below(4_500)), SLOW).await;
    }
}

fn pick(deeds: &[(Deed, u64)], dice: &mut Dice) -> Deed {
    let mut n = dice.below(1 + deeds.iter().map(|(_, weight)| weight).sum::<u64>());
    for (deed, weight) in deeds {
        match n.checked_sub(*weight) {
            Some(left) => n = left,
            None => return *deed,
        }
    }
    Deed::Wait
}

async fn perform(world: &mut World, deed: Deed, dice: &mut Dice) {
    let daemon = dice.below(2) as usize;
    match deed {
        Deed::Wait => {}
        Deed::WaitForMidnight => {
            let day = 86_400;
            let left = day - world.clocks.time.now().as_second().rem_euclid(day);
            if left < 8 * 3_600 {
                world.pass(Duration::from_secs(left as u64 + 5), 2 * SLOW).await;
                // Whoever got no answer yesterday asks again.
                ask_again(world, daemon, dice);
            }
        }
        Deed::AskAgain => ask_again(world, daemon, dice),
        Deed::Cancel => {
            let open = world.truth.open_runs();
            if let Some(run) = open.last().cloned() {
                let engine = world.daemons[daemon].engine.clone();
                world.weather.count("cancels");
                let task = tokio::spawn(async move { drop(engine.cancel(&run, "ada").await) });
                world.daemons[daemon].gate.adopt(task.abort_handle());
            }
        }
        Deed::Kill => {
            world.weather.count("kills");
            world.daemons[daemon].gate.die();
        }
        Deed::Doom => world.daemons[daemon].gate.doom(dice.below(60)),
        Deed::Pause => {
            let pause = world.weather.seconds(60, 2_400);
            world.daemons[daemon].gate.pause(pause);
        }
        Deed::Jump => {
            let by = SignedDuration::from_mins(*dice.pick(&[-60, -10, 10, 60]));
            world.jump(daemon, dice.chance(40), by);
        }
        Deed::Spoil => spoil(world, dice).await,
        Deed::Prove => prove(world, dice),
        _ => order(world, deed, daemon, dice),
    }
}

/// Somebody orders something: of a daemon, or at a terminal.
fn order(world: &mut World, deed: Deed, daemon: usize, dice: &mut Dice) {
    let backups = world.truth.backups();
    let picked = || (!backups.is_empty()).then(|| backups.last().unwrap().clone());
    let backup = match dice.below(3) {
        0 => picked(),
        _ if backups.is_empty() => None,
        _ => Some(dice.pick(&backups).clone()),
    };
    let suspect = world.truth.suspects().pop();
    let until = dice.chance(60).then(|| world.clocks.store.now() + SignedDuration::from_hours(3));
    let order = match (deed, backup) {
        (Deed::Backup, _) => asks::backup(),
        (Deed::Retention, _) => asks::retention(),
        (Deed::Scrub, _) => asks::scrub(),
        (Deed::Accept, _) => match suspect {
            Some(backup) => asks::accept(backup),
            None => return,
        },
        (Deed::Restore, Some(backup)) => asks::restore(backup),
        (Deed::Verify, Some(backup)) => asks::verify(backup),
        (Deed::Hold, Some(backup)) => asks::hold(backup, until),
        (Deed::Unhold, Some(backup)) => asks::unhold(backup),
        _ => return,
    };
    let at_terminal = !matches!(deed, Deed::Backup | Deed::Restore | Deed::Verify) || dice.chance(50);
    ask(world, order, at_terminal, daemon, dice);
}

/// Somebody asks for something for the first time.
fn ask(world: &mut World, order: Order, local: bool, daemon: usize, dice: &mut Dice) {
    let n = {
        let mut asked = world.asked.lock().unwrap();
        let n = asked.len();
        asked.push(Asked { ask: asks::ask(order, &format!("key {n}")), local, run: None });
        n
    };
    submit(world, n, daemon, dice);
}

/// Somebody asks for the same once more, with the same key.
fn ask_again(world: &mut World, daemon: usize, dice: &mut Dice) {
    let all: Vec<usize> = {
        let asked = world.asked.lock().unwrap();
        // What was asked of a daemon is the more interesting: another one may answer.
        let of_daemons: Vec<usize> = (0..asked.len()).filter(|n| !asked[*n].local).collect();
        if of_daemons.is_empty() || dice.chance(30) { (0..asked.len()).collect() } else { of_daemons }
    };
    if !all.is_empty() {
        world.weather.count("requests made again");
        submit(world, *dice.pick(&all), daemon, dice);
    }
}

fn submit(world: &mut World, n: usize, daemon: usize, dice: &mut Dice) {
    let Asked { ask, local, .. } = world.asked.lock().unwrap()[n].clone();
    let (weather, truth) = (world.weather.clone(), world.truth.clone());
    if local {
        let operator = world.process("operator", dice.below(2) as usize);
        let engine = operator.engine.clone();
        weather.count("commands");
        let gate = operator.gate.clone();
        let task = tokio::spawn(async move {
            let ended = engine.run_once(&ask, &Stop::default(), &Progress::default()).await;
            weather.count(if ended.is_ok() { "commands that ended" } else { "commands refused" });
            // The process is through.
            gate.die();
        });
        operator.gate.adopt(task.abort_handle());
        world.operators.push(operator);
        return;
    }
    let process = &world.daemons[daemon];
    let (engine, all, time) = (process.engine.clone(), world.asked.clone(), world.clocks.time.clone());
    let task = tokio::spawn(async move {
        let Ok(request) = engine.request(&ask).await else { return };
        weather.count("requests accepted");
        truth.promised_run(&request.run);
        let now = time.now();
        let (run, first) = all.lock().unwrap()[n].run.get_or_insert((request.run.clone(), now)).clone();
        if run != request.run {
            truth.complain(format!("one idempotency key, two runs: {run} and {}", request.run));
        }
        if now.as_second().div_euclid(86_400) != first.as_second().div_euclid(86_400) {
            weather.count("requests made again past midnight");
        }
    });
    process.gate.adopt(task.abort_handle());
}

/// A bit flips in one of the newer backups, and somebody looks.
async fn spoil(world: &mut World, dice: &mut Dice) {
    let mut newer: Vec<BackupRef> = world.truth.backups().into_iter().rev().take(3).collect();
    newer.retain(|backup| world.truth.data_of(backup).is_some());
    if newer.is_empty() {
        return;
    }
    let backup = dice.pick(&newer).clone();
    let key = world.truth.data_of(&backup).expect("it has data");
    let Ok(Some(body)) = world.memory.get(&key).await else { return };
    let mut body = body.to_vec();
    let at = dice.below(body.len() as u64) as usize;
    body[at] ^= 1;
    world.truth.spoils(&backup);
    world.weather.count("flipped bits");
    world.memory.delete(&key).await.expect("memory deletes");
    let _ = world.memory.create(&key, body.into()).await.expect("memory creates");
    ask(world, asks::verify(backup), true, 0, dice);
}

/// Somebody reads a backup that is to go, and finds it whole: it may be the newest that is proven now, and stay.
fn prove(world: &mut World, dice: &mut Dice) {
    if let Some(backup) = world.truth.proposed().pop() {
        ask(world, asks::verify(backup), true, 0, dice);
    }
}

/// Nothing befalls anybody any more; time passes until everything that was begun has ended. Then scrub repairs.
async fn settle(world: &mut World) {
    world.weather.set_calm(true);
    world.truth.calms();
    world.set_clocks();
    for n in 0..world.daemons.len() {
        world.daemons[n].gate.resume();
    }
    let jumped = world.weather.tally().contains_key("clock jumps");
    for n in 0..world.daemons.len() {
        // New processes have seen no clock jump.
        if jumped || world.daemons[n].gate.is_dead() {
            world.restart(n);
        }
    }
    world.pass(Duration::from_secs(30), FAST).await;
    world.operators.drain(..).for_each(|operator| operator.gate.die());
    let interval = INTERVAL.as_secs() as i64;
    // Past every deadline and margin, past what a clock that was ahead has written, and past a due time.
    let now = world.clocks.store.now();
    let ahead = world.truth.newest().duration_since(now).as_secs().max(0);
    let open = world.truth.open_until().duration_since(now).as_secs();
    let rest = (50 * 60 + ahead).max(5 * 60 + open);
    let then = world.clocks.time.now().as_second() + rest;
    let late = 25 * 60 - then.rem_euclid(interval);
    let rest = rest + if late < 0 { late + interval } else { late };
    world.pass(Duration::from_secs(rest as u64), SLOW).await;
    if world.truth.wrong().is_some() {
        return;
    }
    world.pass(Duration::from_secs(50), FAST).await;
    repair(world).await;
    world.truth.judge_rest();
    if !world.memory.open_uploads("").await.expect("memory lists").is_empty() {
        world.truth.complain("an upload is open after a repair");
    }
}

/// An operator repairs the vault, and it is in order then.
async fn repair(world: &mut World) {
    let operator = world.process("operator", 0);
    let ask = asks::ask(asks::scrub(), "the last repair");
    let engine = operator.engine.clone();
    let repaired =
        tokio::spawn(async move { engine.run_once(&ask, &Stop::default(), &Progress::default()).await });
    world.pass(Duration::from_secs(180), FAST).await;
    if !repaired.is_finished() {
        return world.truth.complain("nobody repairs the vault");
    }
    match repaired.await.expect("no panic") {
        Ok((_, record)) if record.finished().is_some_and(|finished| finished.error.is_none()) => {}
        Ok((run, record)) => {
            return world.truth.complain(format!("repair {run} failed: {:?}", record.finished()));
        }
        Err(error) => return world.truth.complain(format!("the repair failed: {error}")),
    }
    let task = operator.app.task("look", Duration::from_secs(60));
    let lines = operator.app.scrub(false, &task).await.expect("memory answers");
    let left = lines.into_iter().find(|line| !line.is_damage());
    if let Some(line) = left {
        world.truth.complain(format!("scrub leaves {:?}", line.finding));
    }
}
