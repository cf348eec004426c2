//! Chains against a model that tries every position.

use jiff::Timestamp;
use tidekeeper::vault::layout::log::Position;
use tidekeeper::vault::layout::{BackupId, BackupRef};
use tidekeeper::vault::timeline::chain::{Base, Broken, base_for, chain, gaps, stretches, windows};
use tidekeeper::vault::timeline::{End, Timeline};

use super::{Dice, imagined, segment, source};

const CASES: u64 = 20_000;
const LAST: u64 = 40;

fn time(seconds: u64) -> Timestamp {
    Timestamp::from_second(1_790_000_000 + seconds as i64).expect("a time")
}

fn random(dice: &mut Dice, n: u32) -> Timeline {
    let count = dice.below(8);
    let segments = (0..count).map(|_| {
        let from = dice.below(LAST);
        let mut segment = segment(from, from + 1 + dice.below(LAST - from), time(0));
        if dice.chance(5) {
            segment.stored_bytes = 0;
        }
        segment
    });
    let segments: Vec<_> = segments.collect();
    let from = segments.iter().map(|segment| segment.name.from.0).min().unwrap_or(dice.below(LAST));
    let identity = *dice.pick(&["a", "a", "b"]);
    let mut timeline = imagined(n, identity, from, segments);
    match dice.below(10) {
        0 => timeline.origin = Err("rotten".to_owned()),
        1 => timeline.end = Err("rotten".to_owned()),
        2..4 => timeline.end = Ok(Some(End::new(Position(dice.below(LAST)), "closed", time(0)))),
        _ => {}
    }
    timeline
}

pub fn random_bases(dice: &mut Dice) -> Vec<Base> {
    let base = |n| {
        let id = BackupId::new(time(n), None, n as u32);
        let identity = dice.pick(&["a", "a", "b"]).to_string();
        let backup = BackupRef { source: source(), id };
        Base { backup, identity, position: Position(dice.below(LAST + 1)), good: dice.chance(70) }
    };
    (0..4).map(base).collect()
}

/// Whether a segment leads away from `at`, and how far.
fn reach(timeline: &Timeline, at: u64) -> Option<u64> {
    let (Ok(_), Ok(end)) = (&timeline.origin, &timeline.end) else { return None };
    let last = end.as_ref().map_or(u64::MAX, |end| end.position.0);
    // One that is empty holds nothing of what its name says.
    let whole = timeline.segments.iter().filter(|segment| segment.stored_bytes > 0);
    let names = whole.map(|segment| (segment.name.from.0, segment.name.to.0));
    names.filter(|(from, to)| *from <= at && at < *to && *to <= last).map(|(_, to)| to).max()
}

/// The spans of positions from each of which one leads away.
fn spans(timeline: &Timeline) -> Vec<(u64, u64)> {
    let mut spans: Vec<(u64, u64)> = Vec::new();
    for at in 0..LAST {
        if reach(timeline, at).is_none() {
            continue;
        }
        match spans.last_mut() {
            Some(span) if span.1 == at => span.1 = at + 1,
            _ => spans.push((at, at + 1)),
        }
    }
    let origin = timeline.origin.as_ref().map(|origin| origin.from.0);
    if let (true, Ok(origin), Ok(_)) = (spans.is_empty(), origin, &timeline.end) {
        spans.push((origin, origin));
    }
    spans
}

fn walk(timeline: &Timeline, from: u64, to: u64) -> Result<Vec<(u64, u64)>, u64> {
    let (mut at, mut steps) = (from, Vec::new());
    while at < to {
        let next = reach(timeline, at).ok_or(at)?;
        steps.push((at, next));
        at = next;
    }
    Ok(steps)
}

#[test]
fn chains_are_what_a_walk_over_every_position_finds() {
    for seed in 0..CASES {
        let mut dice = Dice(seed);
        let timeline = random(&mut dice, 0);
        let found: Vec<_> =
            stretches(&timeline).iter().map(|stretch| (stretch.from.0, stretch.to.0)).collect();
        assert_eq!(found, spans(&timeline), "seed {seed}: {timeline:?}");
        let from = dice.below(LAST);
        let to = from + dice.below(LAST - from + 1);
        let expected = walk(&timeline, from, to);
        match (chain(&timeline, Position(from), Position(to)), expected) {
            (Ok(chain), Ok(steps)) => {
                let tos: Vec<u64> = chain.segments.iter().map(|segment| segment.name.to.0).collect();
                assert_eq!(tos, steps.iter().map(|(_, to)| *to).collect::<Vec<_>>(), "seed {seed}");
                let mut at = from;
                for segment in &chain.segments {
                    assert!(segment.name.from.0 <= at && at < segment.name.to.0, "seed {seed}");
                    at = segment.name.to.0;
                }
            }
            (Err(Broken { at, next }), Err(expected)) => {
                assert_eq!(at.0, expected, "seed {seed}: {timeline:?}");
                let later = spans(&timeline).into_iter().find(|(from, to)| expected < *from && from < to);
                assert_eq!(next.map(|next| next.0), later.map(|(from, _)| from), "seed {seed}: {timeline:?}");
            }
            (found, expected) if timeline.problem().is_some() && expected.is_ok() => {
                assert!(found.is_err(), "seed {seed}: nothing is restored along what cannot be read");
            }
            (found, expected) => panic!("seed {seed}: {found:?}, expected {expected:?}: {timeline:?}"),
        }
    }
}

#[test]
fn windows_and_bases_are_what_trying_every_base_finds() {
    for seed in 0..CASES {
        let mut dice = Dice(seed);
        let timelines: Vec<_> = (0..1 + dice.below(3)).map(|n| random(&mut dice, n as u32)).collect();
        let bases = random_bases(&mut dice);
        let holds = |base: &Base, timeline: &Timeline, (from, to): (u64, u64)| {
            let identity = timeline.origin.as_ref().map(|origin| &origin.identity);
            base.good && identity == Ok(&base.identity) && (from..=to).contains(&base.position.0)
        };
        let mut expected = Vec::new();
        for timeline in &timelines {
            for span in spans(timeline) {
                let held = bases.iter().filter(|base| holds(base, timeline, span));
                if let Some(first) = held.min_by_key(|base| (base.position, &base.backup)) {
                    expected.push((first.backup.clone(), first.position.0, span.1));
                }
            }
        }
        let found: Vec<_> = windows(&timelines, &bases)
            .into_iter()
            .map(|window| (window.base, window.from.0, window.to.0))
            .collect();
        assert_eq!(found, expected, "seed {seed}");
        let wanted = dice.below(LAST + 1);
        let reaches = |base: &&Base| {
            let reaching =
                |(timeline, span): (&Timeline, (u64, u64))| holds(base, timeline, span) && span.1 >= wanted;
            let spans = timelines
                .iter()
                .flat_map(|timeline| spans(timeline).into_iter().map(move |span| (timeline, span)));
            base.position.0 <= wanted && spans.into_iter().any(reaching)
        };
        let expected = bases.iter().filter(reaches).max_by_key(|base| (base.position, &base.backup));
        let found = base_for(&timelines, &bases, Position(wanted));
        assert_eq!(found.as_ref().map(|(base, _)| *base), expected, "seed {seed}");
        if let Some((base, stretch)) = found {
            let timeline = timelines.iter().find(|timeline| timeline.id == stretch.timeline).expect("known");
            assert!(chain(timeline, base.position, Position(wanted)).is_ok(), "seed {seed}");
        }
    }
}

#[test]
fn a_gap_says_why() {
    let first = imagined(1, "a", 0, vec![segment(0, 5, time(0)), segment(8, 10, time(0))]);
    let second = imagined(2, "a", 15, vec![segment(15, 20, time(0))]);
    let third = imagined(3, "a", 18, vec![segment(18, 30, time(0))]);
    let shown = |timelines: &[Timeline]| -> Vec<String> {
        let gaps = gaps(timelines).into_iter();
        gaps.map(|gap| format!("{}-{}: {}", gap.after.0, gap.before.0, gap.why)).collect()
    };
    let missing = format!("5-8: segments of timeline {} are missing", first.id);
    let all = [first.clone(), second.clone(), third];
    assert_eq!(shown(&all), [missing.clone(), "10-15: reason 2".to_owned()], "overlaps are no gaps");
    let fourth = imagined(4, "a", 40, vec![]);
    let rotten = Timeline { end: Err("it is not JSON".to_owned()), ..second.clone() };
    let unreadable = format!("10-40: timeline {} cannot be read: it is not JSON", rotten.id);
    assert_eq!(shown(&[first, rotten, fourth]), [missing, unreadable]);
}
