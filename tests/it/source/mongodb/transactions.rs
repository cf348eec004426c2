use std::time::Duration;

use bytes::Bytes;
use mongodb::bson::spec::BinarySubtype;
use mongodb::bson::{Binary, Bson, Document, Timestamp, doc};
use proptest::prelude::*;
use tempfile::TempDir;
use tidekeeper::clock::SystemClock;
use tidekeeper::error::{Kind, Result};
use tidekeeper::source::mongodb::oplog::entry::{Entry, Op};
use tidekeeper::source::mongodb::oplog::transactions::{Assembler, MEMORY, Unit};
use tidekeeper::source::mongodb::optime::OpTime;
use tidekeeper::task::spool::SPOOL_MIN;
use tidekeeper::task::{Limits, Spool};

use super::ground::{assembler, at, block_on, entry, units};

fn lsid(session: u8) -> Document {
    doc! { "id": Bson::Binary(Binary { subtype: BinarySubtype::Uuid, bytes: vec![session; 16] }) }
}

/// Inserts of these ids, as they stand inside an applyOps.
fn inner(ids: &[i32]) -> Vec<Document> {
    ids.iter().map(|id| doc! { "op": "i", "ns": "shop.carts", "o": { "_id": *id } }).collect()
}

/// A command of a session's transaction; `previous`: the increment of the entry before it.
fn command(increment: u32, session: u8, number: i64, previous: u32, o: Document) -> Bytes {
    let previous = match previous {
        0 => doc! { "ts": Timestamp { time: 0, increment: 0 }, "t": -1_i64 },
        increment => doc! { "ts": Timestamp { time: 100, increment }, "t": 1_i64 },
    };
    entry(
        increment,
        doc! { "op": "c", "ns": "admin.$cmd", "o": o, "lsid": lsid(session), "txnNumber": number, "prevOpTime": previous },
    )
}

fn take(assembler: &mut Assembler, raw: Bytes) -> Result<Vec<Unit>> {
    block_on(units(assembler, raw))
}

/// Where, whether whole, and which ids.
type Brief = Vec<(u32, bool, Vec<i32>)>;

fn brief(units: Vec<Unit>) -> Brief {
    let ids = |unit: &Unit| {
        assert!(unit.ops.iter().all(|op| op.at == unit.at), "each operation has the unit's place");
        let id = |op: &Entry| {
            tidekeeper::source::mongodb::raw::document(&op.o).expect("a document").get_i32("_id")
        };
        unit.ops.iter().map(|op| id(op).expect("an id")).collect()
    };
    units.iter().map(|unit| (unit.at.increment, unit.is_transaction, ids(unit))).collect()
}

#[test]
fn plain_entries_pass_and_noops_do_not() {
    let mut assembler = assembler(OpTime::ZERO);
    let insert = take(&mut assembler, entry(1, doc! { "op": "i", "o": { "_id": 1 } })).expect("a unit");
    assert_eq!(brief(insert), [(1, false, vec![1])]);
    assert!(
        take(&mut assembler, entry(2, doc! { "op": "n", "o": { "msg": "x" } })).expect("nothing").is_empty()
    );
    let drop = take(&mut assembler, entry(3, doc! { "op": "c", "ns": "shop.$cmd", "o": { "drop": "x" } }));
    let drop = drop.expect("a unit");
    assert_eq!((drop.len(), drop[0].ops[0].op), (1, Op::Command));
}

#[test]
fn a_retryable_write_is_no_transaction() {
    let mut assembler = assembler(OpTime::ZERO);
    for increment in [1, 2] {
        let write = doc! { "op": "i", "o": { "_id": 5 }, "lsid": lsid(1), "txnNumber": 4_i64, "stmtId": 0 };
        let units = take(&mut assembler, entry(increment, write)).expect("a unit");
        assert_eq!(brief(units), [(increment, false, vec![5])]);
    }
}

#[test]
fn one_that_is_written_down_entry_by_entry_is_one_unit() {
    let by = |session: u8, more: Document| {
        let mut whole = doc! { "lsid": lsid(session), "txnNumber": 3_i64 };
        whole.extend(more);
        entry(1, whole)
    };
    let write = |session, id: i32| by(session, doc! { "op": "i", "o": { "_id": id } });
    let record = [
        entry(1, doc! { "op": "i", "o": { "_id": 1 } }),
        write(1, 2),
        write(1, 3),
        by(1, doc! { "op": "n", "o": {} }),
        write(1, 4),
        by(1, doc! { "op": "c", "ns": "shop.$cmd", "o": { "create": "x", "_id": 5 } }),
        write(1, 6),
        write(1, 7),
        write(2, 8),
        write(2, 9),
        entry(1, doc! { "op": "i", "o": { "_id": 10 } }),
    ];
    let units = take(&mut assembler(OpTime::ZERO), record.concat().into()).expect("units");
    let expected =
        [(1, false, vec![1]), (1, true, vec![2, 3, 4, 5, 6, 7]), (1, true, vec![8, 9]), (1, false, vec![10])];
    assert_eq!(brief(units), expected);
}

#[test]
fn a_small_transaction_is_one_entry() {
    let mut assembler = assembler(OpTime::ZERO);
    let units = take(&mut assembler, command(1, 1, 1, 0, doc! { "applyOps": inner(&[1, 2, 3]) }));
    assert_eq!(brief(units.expect("a unit")), [(1, true, vec![1, 2, 3])]);
    assert!(assembler.open().is_empty());
}

#[test]
fn a_large_one_takes_effect_with_its_last_part() {
    let mut assembler = assembler(OpTime::ZERO);
    let first = command(1, 1, 1, 0, doc! { "applyOps": inner(&[1, 2]), "partialTxn": true });
    let second = command(2, 1, 1, 1, doc! { "applyOps": inner(&[3]), "partialTxn": true });
    let last = command(4, 1, 1, 2, doc! { "applyOps": inner(&[4]), "count": 4_i64 });
    assert!(take(&mut assembler, first).expect("a part").is_empty());
    assert!(take(&mut assembler, second).expect("a part").is_empty());
    assert_eq!(assembler.open()[0].since, at(100, 1));
    assert_eq!(brief(take(&mut assembler, last).expect("all")), [(4, true, vec![1, 2, 3, 4])]);
    assert!(assembler.open().is_empty());
}

#[test]
fn a_prepared_one_takes_effect_at_its_commit_once() {
    let mut assembler = assembler(OpTime::ZERO);
    let prepared = command(1, 1, 7, 0, doc! { "applyOps": inner(&[1]), "prepare": true });
    assert!(take(&mut assembler, prepared).expect("nothing yet").is_empty());
    assert!(assembler.open()[0].is_prepared);
    let commit = || doc! { "commitTransaction": 1, "commitTimestamp": Timestamp { time: 100, increment: 5 } };
    assert_eq!(
        brief(take(&mut assembler, command(5, 1, 7, 1, commit())).expect("all")),
        [(5, true, vec![1])]
    );
    assert!(take(&mut assembler, command(6, 1, 7, 1, commit())).expect("nothing more").is_empty());
}

#[test]
fn an_aborted_one_leaves_nothing() {
    let mut assembler = assembler(OpTime::ZERO);
    let part = command(1, 1, 7, 0, doc! { "applyOps": inner(&[1]), "partialTxn": true });
    let prepared = command(2, 1, 7, 1, doc! { "applyOps": inner(&[2]), "prepare": true });
    let abort = command(3, 1, 7, 2, doc! { "abortTransaction": 1 });
    for entry in [part, prepared, abort] {
        assert!(take(&mut assembler, entry).expect("nothing").is_empty());
    }
    assert!(assembler.open().is_empty());
}

#[test]
fn a_vectored_insert_and_a_plain_apply_ops_are_opened() {
    let mut assembler = assembler(OpTime::ZERO);
    let vector = doc! {
        "op": "c", "ns": "admin.$cmd", "multiOpType": 1, "o": { "applyOps": inner(&[1, 2]) },
        "lsid": lsid(1), "txnNumber": 3_i64,
    };
    assert_eq!(brief(take(&mut assembler, entry(1, vector)).expect("a unit")), [(1, false, vec![1, 2])]);
    let within = doc! { "op": "c", "ns": "admin.$cmd", "o": { "applyOps": inner(&[4]) } };
    let mut ops = inner(&[3]);
    ops.push(within);
    ops.push(doc! { "op": "n", "ns": "", "o": {} });
    let plain = doc! { "op": "c", "ns": "admin.$cmd", "o": { "applyOps": ops } };
    assert_eq!(brief(take(&mut assembler, entry(2, plain)).expect("a unit")), [(2, true, vec![3, 4])]);
}

#[test]
fn entries_of_one_place_and_session_are_one_transaction() {
    let mut assembler = assembler(OpTime::ZERO);
    let write = |id: i32, session: u8| {
        let write = doc! { "op": "i", "o": { "_id": id }, "lsid": lsid(session), "txnNumber": 4_i64 };
        entry(9, write)
    };
    let record = Bytes::from([write(1, 1), write(2, 1), write(1, 1)].concat());
    assert_eq!(brief(take(&mut assembler, record).expect("a unit")), [(9, true, vec![1, 2, 1])]);
    let apart = Bytes::from([write(1, 1), write(2, 2)].concat());
    assert_eq!(brief(take(&mut assembler, apart).expect("two")), [(9, false, vec![1]), (9, false, vec![2])]);
}

#[test]
fn a_commit_without_its_beginning_is_named_unless_it_is_in_the_data() {
    let commit = || command(5, 1, 7, 3, doc! { "commitTransaction": 1 });
    let last = || command(5, 2, 8, 4, doc! { "applyOps": inner(&[4]) });
    for entry in [commit(), last()] {
        let error = take(&mut assembler(at(100, 4)), entry.clone()).expect_err("its beginning is missing");
        assert_eq!(error.kind(), Kind::NotFound);
        assert!(error.to_string().contains("100:5"), "{error}");
        assert!(take(&mut assembler(at(100, 5)), entry).expect("in the data").is_empty());
    }
}

#[test]
fn a_missing_middle_part_is_named_too() {
    let mut assembler = assembler(OpTime::ZERO);
    let first = command(1, 1, 1, 0, doc! { "applyOps": inner(&[1]), "partialTxn": true });
    assert!(take(&mut assembler, first).expect("a part").is_empty());
    let last = command(4, 1, 1, 2, doc! { "applyOps": inner(&[4]) });
    assert_eq!(take(&mut assembler, last).expect_err("100:2 is missing").kind(), Kind::NotFound);
}

fn spool(folder: &TempDir) -> Spool {
    let limits = Limits { spool_dir: folder.path().to_owned(), spool_max: SPOOL_MIN, ..Limits::default() };
    Spool::with_stall_limit(&limits, SystemClock::shared(), Duration::ZERO).expect("a spool")
}

/// The `n`th part of a transaction of one session, with 1,000 inserts of about 3,000 bytes.
fn large(n: u32, session: u8, is_partial: bool) -> Bytes {
    let text = "x".repeat(3_000);
    let id = |k: u32| doc! { "_id": (n * 1_000 + k) as i32, "text": &text };
    let inserts: Vec<_> = (0..1_000).map(|k| doc! { "op": "i", "ns": "shop.carts", "o": id(k) }).collect();
    let place = |n: u32| n * 2 + u32::from(session);
    let previous = if n == 1 { 0 } else { place(n - 1) };
    command(place(n), session, 1, previous, doc! { "applyOps": inserts, "partialTxn": is_partial })
}

#[test]
fn what_is_too_much_for_memory_waits_in_the_spool() {
    let folder = tempfile::tempdir().expect("a folder");
    let limits = Limits { spool_dir: folder.path().to_owned(), ..Limits::default() };
    let spool = Spool::new(&limits, SystemClock::shared()).expect("a spool");
    let mut assembler = Assembler::new(OpTime::ZERO, &spool);
    let (mut read, parts) = (0, 12);
    for n in 1..=parts {
        for session in [0, 1] {
            let raw = large(n, session, n < parts);
            read += raw.len();
            let units = take(&mut assembler, raw).expect("it is put together");
            if n < parts {
                assert!(units.is_empty());
                let held = read.saturating_sub(spool.used() as usize);
                assert!(held <= MEMORY + 4096 * 2, "{held} of {read} bytes are in memory");
                continue;
            }
            // What is handed out is small at any size.
            assert!(units.iter().all(|unit| unit.ops.len() <= 1_000 && unit.is_transaction));
            let ends: Vec<bool> = units.iter().map(|unit| unit.ends).collect();
            assert!(ends.split_last().is_some_and(|(last, rest)| *last && !rest.contains(&true)), "{ends:?}");
            let ids: Vec<i32> = brief(units).into_iter().flat_map(|(_, _, ids)| ids).collect();
            assert!(ids.into_iter().eq(1_000..(parts as i32 + 1) * 1_000), "all of it, in order");
        }
    }
    assert_eq!(spool.used(), 0, "the room goes back");
}

#[test]
fn a_spool_without_room_is_named() {
    let folder = tempfile::tempdir().expect("a folder");
    let spool = spool(&folder);
    let mut assembler = Assembler::new(OpTime::ZERO, &spool);
    let mut parts = (1..20).map(|n| take(&mut assembler, large(n, 0, true)));
    let error = parts.find_map(Result::err).expect("there is no room for so much");
    assert_eq!(error.kind(), Kind::Full);
    assert!(error.to_string().contains("keeping what is not committed at 100:"), "{error}");
    let hint = error.hint_text().expect("it says what to do");
    assert!(hint.contains("waits in the spool") && hint.contains("raise `limits.spool_max`"), "{hint}");
}

/// One step of a session.
#[derive(Clone, Debug)]
enum Step {
    Plain,
    Part { first: bool, ids: usize },
    Last { first: bool, ids: usize },
    Prepare { first: bool, ids: usize },
    Commit,
    Abort,
}

/// A transaction, or a write alone.
fn life() -> impl Strategy<Value = Vec<Step>> {
    (0..5u8, prop::collection::vec(0..4usize, 0..4), 0..4usize).prop_map(|(kind, parts, ids)| {
        if kind == 0 {
            return vec![Step::Plain];
        }
        let mut steps: Vec<Step> =
            parts.iter().enumerate().map(|(n, ids)| Step::Part { first: n == 0, ids: *ids }).collect();
        let first = steps.is_empty();
        match kind {
            1 | 2 => steps.push(Step::Last { first, ids }),
            3 => steps.extend([Step::Prepare { first, ids }, Step::Commit]),
            _ => steps.extend([Step::Prepare { first, ids }, Step::Abort]),
        }
        steps
    })
}

/// A session's steps, each with the number of its transaction, the last first.
fn reversed(lives: Vec<Vec<Step>>) -> Vec<(i64, Step)> {
    let numbered = (0..).zip(lives);
    let mut steps: Vec<_> =
        numbered.flat_map(|(n, life)| life.into_iter().map(move |step| (n, step))).collect();
    steps.reverse();
    steps
}

/// One that keeps all in memory, and one that has to put more or less all of it into the spool.
struct Both {
    spool: Spool,
    _folder: TempDir,
    pair: [(Assembler, Brief); 2],
}

impl Both {
    fn new(memory: usize) -> Self {
        let folder = tempfile::tempdir().expect("a folder");
        let spool = spool(&folder);
        let of = |memory| (Assembler::with_memory(OpTime::ZERO, &spool, memory), Vec::new());
        let pair = [usize::MAX, memory].map(of);
        Both { spool, _folder: folder, pair }
    }

    fn take(&mut self, raw: &Bytes) {
        for (assembler, found) in &mut self.pair {
            found.extend(brief(take(assembler, raw.clone()).expect("it is put together")));
        }
    }

    /// What took effect, and how many have begun and not ended.
    fn end(self) -> [(Brief, usize); 2] {
        let ended = self.pair.map(|(assembler, found)| (found, assembler.open().len()));
        assert_eq!(self.spool.used(), 0, "the room goes back");
        ended
    }
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 2_000, failure_persistence: None, ..ProptestConfig::default() })]

    /// However transactions interleave, and wherever the log is cut: each takes effect at its commit, whole, or not at all.
    #[test]
    fn any_interleaving_applies_at_commit(
        lives in prop::collection::vec(prop::collection::vec(life(), 0..4), 1..4),
        picks in prop::collection::vec(any::<prop::sample::Index>(), 60),
        cut in 0..61usize,
        memory in 0..1_500usize,
    ) {
        let mut queues: Vec<_> = lives.into_iter().map(reversed).collect();
        let mut buffered: Vec<(Vec<i32>, u32)> = vec![(Vec::new(), 0); queues.len()];
        let (mut expected, mut next_id) = (Vec::new(), 0);
        let mut both = Both::new(memory);
        for (n, pick) in picks.iter().take(cut).enumerate() {
            let alive: Vec<usize> = (0..queues.len()).filter(|session| !queues[*session].is_empty()).collect();
            if alive.is_empty() {
                break;
            }
            let session = alive[pick.index(alive.len())];
            let (number, step) = queues[session].pop().expect("it is alive");
            let increment = n as u32 + 1;
            let mut ids = |count: usize| -> Vec<i32> {
                next_id += count as i32;
                (next_id - count as i32..next_id).collect()
            };
            let (buffer, last) = &mut buffered[session];
            let mut part = |first: bool, ids: Vec<i32>, more: Document| {
                let mut o = doc! { "applyOps": inner(&ids) };
                o.extend(more);
                buffer.extend(ids);
                let previous = if first { 0 } else { *last };
                *last = increment;
                command(increment, session as u8, number, previous, o)
            };
            let mut commits = false;
            let raw = match step {
                Step::Plain => {
                    let id = ids(1)[0];
                    expected.push((increment, false, vec![id]));
                    entry(increment, doc! { "op": "i", "o": { "_id": id } })
                }
                Step::Part { first, ids: count } => part(first, ids(count), doc! { "partialTxn": true }),
                Step::Prepare { first, ids: count } => part(first, ids(count), doc! { "prepare": true }),
                Step::Last { first, ids: count } => {
                    commits = true;
                    part(first, ids(count), doc! {})
                }
                Step::Commit => {
                    commits = true;
                    command(increment, session as u8, number, *last, doc! { "commitTransaction": 1 })
                }
                Step::Abort => {
                    buffer.clear();
                    *last = 0;
                    command(increment, session as u8, number, 1, doc! { "abortTransaction": 1 })
                }
            };
            if commits {
                let (buffer, last) = &mut buffered[session];
                expected.push((increment, true, std::mem::take(buffer)));
                *last = 0;
            }
            both.take(&raw);
        }
        let open = buffered.iter().filter(|(_, last)| *last != 0).count();
        for (found, still_open) in both.end() {
            prop_assert_eq!(found, expected.clone());
            prop_assert_eq!(still_open, open);
        }
    }
}
