use std::sync::Arc;

use async_trait::async_trait;
use tidekeeper::clock::Clock;
use tidekeeper::error::{Error, Kind, Result};
use tidekeeper::task::{Limits, Spool};
use tidekeeper::vault::Vault;
use tidekeeper::vault::deletion::Fence;
use tidekeeper::vault::layout::log::{self, Position, SegmentName};
use tidekeeper::vault::place::init;
use tidekeeper::vault::store::faults::{Fault, Method, Plan};
use tidekeeper::vault::store::fs::FsStore;
use tidekeeper::vault::store::{Key, SMALL_OBJECT_MAX, Store};
use tidekeeper::vault::timeline::writer::{Bounds, TimelineWriter};
use tidekeeper::vault::timeline::{End, close};

use super::super::estate::{DAY, Deposed, Estate, SOURCE};
use super::{
    MINUTE, applied, base, beginning, encrypted, framing, keys, noise, push, read, record, source, timelines,
    writer, writer_with,
};

#[tokio::test(start_paused = true)]
async fn what_is_pushed_is_read_back_from_any_base_in_plain_and_encrypted() {
    let dir = tempfile::tempdir().expect("a directory");
    for is_encrypted in [false, true] {
        let estate = Estate::new();
        let vault = if is_encrypted { encrypted(&estate, &dir).0 } else { estate.vault.clone() };
        let (mut writer, _sealer) = writer(&vault);
        writer.begin(beginning(5)).await.expect("begun");
        for at in 6..40 {
            push(&mut writer, at).await;
            if at % 10 == 0 {
                let name = writer.seal().await.expect("sealed").expect("a segment");
                assert_eq!((name.to.0, name.generation), (at, 1));
            }
        }
        assert_eq!(keys(&estate).await.len(), 3);
        assert_eq!(keys(&estate).await[0].ends_with(".age"), is_encrypted);
        for from in [5, 7, 10, 29] {
            let backup = base(&estate, from).await;
            let found = read(&estate, &vault, &backup, 30).await.expect("read");
            assert_eq!(applied(&found, from), (from + 1..=30).collect::<Vec<_>>());
            for (at, bytes) in found.iter().flatten() {
                assert_eq!(*bytes, record(*at, 20));
            }
            let firsts: Vec<u64> = found.iter().map(|segment| segment[0].0).collect();
            assert_eq!(firsts, [5, 10, 20][3 - firsts.len()..], "each begins with the record before it");
        }
        let at_its_end = base(&estate, 30).await;
        assert!(read(&estate, &vault, &at_its_end, 30).await.expect("nothing to read").is_empty());
    }
}

#[tokio::test]
async fn a_directory_keeps_a_timeline_too() {
    let dir = tempfile::tempdir().expect("a directory");
    let clock = tidekeeper::clock::SystemClock::shared();
    let store = FsStore::connect(&dir.path().join("vault"), false).expect("a local disk");
    init(&store, &*clock).await.expect("a vault");
    let vault = Vault::new(Arc::new(store), clock, None);
    let (mut first, _) = writer(&vault);
    let id = first.begin(beginning(0)).await.expect("begun");
    first.push(noise(1, 9 << 20), Position(1)).await.expect("taken");
    first.seal().await.expect("sealed").expect("a segment");
    let (mut second, _) = writer(&vault);
    let reach = second.resume().await.expect("looked").expect("a timeline");
    assert_eq!((reach.origin.timeline, reach.to), (id, Position(1)));
    assert_eq!(reach.record, Some(noise(1, 9 << 20)), "a segment of 9 MiB went up in parts");
}

#[tokio::test(start_paused = true)]
async fn positions_grow() {
    let estate = Estate::new();
    let (mut writer, _) = writer(&estate.vault);
    let error = writer.push(record(1, 1), Position(1)).await.expect_err("nothing was begun");
    assert_eq!(error.kind(), Kind::Internal);
    writer.begin(beginning(5)).await.expect("begun");
    push(&mut writer, 6).await;
    for at in [4, 5, 6] {
        let error = writer.push(record(at, 1), Position(at)).await.expect_err("it does not grow");
        assert_eq!(error.kind(), Kind::Internal, "{error}");
    }
    push(&mut writer, 7).await;
    writer.seal().await.expect("sealed");
    assert!(writer.push(record(7, 1), Position(7)).await.is_err(), "it is durable");
    assert_eq!(writer.seal().await.expect("nothing to seal"), None);
}

#[tokio::test(start_paused = true)]
async fn a_segment_is_due_a_minute_after_its_first_record() {
    let estate = Estate::new();
    let (mut writer, _sealer) = writer(&estate.vault);
    writer.begin(beginning(5)).await.expect("begun");
    let began = estate.clock.monotonic();
    tokio::select! {
        () = writer.due() => panic!("it holds no record"),
        () = estate.pass(DAY) => {}
    }
    push(&mut writer, 6).await;
    estate.pass(MINUTE / 2).await;
    push(&mut writer, 7).await;
    writer.due().await;
    assert_eq!(estate.clock.monotonic() - began, DAY + MINUTE);
    writer.due().await;
    assert_eq!(estate.clock.monotonic() - began, DAY + MINUTE, "it is due until it is sealed");
    writer.seal().await.expect("sealed");
}

#[tokio::test(start_paused = true)]
async fn segments_keep_the_pace_and_no_seal_waits_for_a_backup() {
    let estate = Estate::new();
    let folder = tempfile::tempdir().expect("a folder");
    let limits = Limits { spool_dir: folder.path().to_owned(), upload_rate: 1 << 20, ..Limits::default() };
    let spool = Spool::new(&limits, estate.clock.clone()).expect("a spool");
    let (mut writer, _sealer) = writer(&estate.vault);
    writer.keep_pace(&spool);
    writer.begin(beginning(0)).await.expect("begun");
    // What a backup has booked would take ten minutes.
    spool.pace().book(600 << 20).await;
    let began = estate.clock.monotonic();
    for n in 0..3 {
        writer.push(noise(n * 2 + 1, 4 << 20), Position(n * 2 + 1)).await.expect("taken");
        push(&mut writer, n * 2 + 2).await;
        writer.seal().await.expect("sealed").expect("a segment");
        let (took, before) = ((estate.clock.monotonic() - began).as_secs_f64(), n as f64 * 4.0);
        assert!((before..before + 1.0).contains(&took), "segment {n} of 4 MiB went after {took} s");
    }
}

#[tokio::test(start_paused = true)]
async fn who_asks_for_a_seal_is_told_how_far_is_durable() {
    let estate = Estate::new();
    let (mut writer, sealer) = writer(&estate.vault);
    let serve = async {
        writer.due().await;
        writer.seal().await.expect("nothing to seal");
        writer.begin(beginning(5)).await.expect("begun");
        for records in [&[][..], &[6, 7]] {
            writer.due().await;
            for at in records {
                push(&mut writer, *at).await;
            }
            writer.seal().await.expect("sealed");
        }
    };
    let ask = async {
        assert_eq!(sealer.seal().await.expect_err("there is no timeline yet").kind(), Kind::Unready);
        assert_eq!(sealer.seal().await.expect("sealed"), Position(5));
        assert_eq!(sealer.seal().await.expect("sealed"), Position(7));
    };
    tokio::join!(serve, ask);
    drop(writer);
    assert_eq!(sealer.seal().await.expect_err("nobody follows").kind(), Kind::Unready);
}

#[tokio::test(start_paused = true)]
async fn segments_are_bounded_in_plain_and_stored_bytes() {
    let estate = Estate::new();
    let bounds = Bounds { plain_bytes: 1 << 20, ..Bounds::default() };
    let (mut small, _) = writer_with(&estate.vault, bounds);
    small.begin(beginning(0)).await.expect("begun");
    for at in 1..=100 {
        small.push(record(at, 50_000), Position(at)).await.expect("taken");
    }
    small.seal().await.expect("sealed");
    assert_eq!(keys(&estate).await.len(), 6, "20 records of 50 kB each, the proof among them");
    let backup = base(&estate, 0).await;
    let found = read(&estate, &estate.vault, &backup, 100).await.expect("read");
    assert_eq!(applied(&found, 0), (1..=100).collect::<Vec<_>>());

    let estate = Estate::new();
    let (mut writer, _) = writer(&estate.vault);
    writer.begin(beginning(0)).await.expect("begun");
    for at in 1..=30 {
        writer.push(noise(at, 1 << 20), Position(at)).await.expect("taken");
    }
    writer.seal().await.expect("sealed");
    let segments = &timelines(&estate).await[0].segments;
    assert!((4..=6).contains(&segments.len()), "{segments:?}");
    assert!(segments.iter().all(|segment| segment.stored_bytes <= SMALL_OBJECT_MAX), "{segments:?}");
}

/// Blows to the creation of a segment, small and large.
#[tokio::test(start_paused = true)]
async fn a_lost_or_failed_create_leaves_one_object_of_its_name() {
    let blows =
        [Fault::After(Kind::Undecided), Fault::Before(Kind::Unreachable), Fault::After(Kind::Timeout)];
    // The origin is the first create.
    let calls = [(Method::Create, 2, 10), (Method::BeginUpload, 1, 9 << 20)];
    let calls = calls.into_iter().chain([(Method::PutPart, 2, 9 << 20), (Method::Finish, 1, 9 << 20)]);
    for (method, nth, len) in calls {
        for blow in blows {
            let estate = Estate::new();
            let plan = Plan::new(estate.clock.clone());
            plan.on(method, nth, blow);
            let (vault, faults) = estate.through(plan);
            let (mut writer, _) = writer(&vault);
            writer.begin(beginning(0)).await.expect("begun");
            writer.push(noise(1, len), Position(1)).await.expect("taken");
            let name = writer.seal().await.expect("sealed").expect("a segment");
            assert!(faults.count(method) > nth || len > 10, "{method:?} {blow:?} was repeated");
            assert_eq!(keys(&estate).await.len(), 1, "{method:?} {blow:?}");
            assert!(keys(&estate).await[0].ends_with(&name.to_string()));
            push(&mut writer, 2).await;
            writer.seal().await.expect("sealed");
            let backup = base(&estate, 0).await;
            let found = read(&estate, &estate.vault, &backup, 2).await.expect("read");
            assert_eq!(applied(&found, 0), [1, 2], "{method:?} {blow:?}");
        }
    }
}

#[tokio::test(start_paused = true)]
async fn a_failed_seal_leaves_all_as_it_was() {
    let estate = Estate::new();
    let plan = Plan::new(estate.clock.clone());
    plan.on(Method::Create, 2, Fault::Before(Kind::Denied));
    plan.on(Method::Create, 3, Fault::After(Kind::Denied));
    let (vault, faults) = estate.through(plan);
    let (mut writer, sealer) = writer(&vault);
    writer.begin(beginning(0)).await.expect("begun");
    push(&mut writer, 1).await;
    let (asked, failed) = tokio::join!(sealer.seal(), async {
        writer.due().await;
        writer.seal().await
    });
    assert_eq!(failed.expect_err("denied").kind(), Kind::Denied);
    assert_eq!(asked.expect_err("denied").kind(), Kind::Denied, "who asked is told why");
    assert!(writer.push(record(2, 1), Position(2)).await.is_err(), "denied again, though it acted");
    writer.push(record(2, 1), Position(2)).await.expect("the one before is found there");
    let creates: Vec<_> = faults.calls().into_iter().filter(|call| call.method == Method::Create).collect();
    assert_eq!(creates[1].of, creates[3].of, "each try creates the same");
    writer.seal().await.expect("sealed");
    let segments: Vec<_> =
        timelines(&estate).await[0].segments.iter().map(|one| (one.name.from.0, one.name.to.0)).collect();
    assert_eq!(segments, [(0, 1), (1, 2)]);
}

#[tokio::test(start_paused = true)]
async fn a_deposed_leader_creates_nothing() {
    let estate = Estate::new();
    let (mut writer, _) =
        TimelineWriter::new(&estate.vault, &source(), "log", &Deposed, Bounds::default(), framing);
    assert_eq!(writer.begin(beginning(0)).await.expect_err("deposed").kind(), Kind::Conflict);
    assert!(estate.keys("").await.is_empty());
}

/// Leads until it has written so much.
struct Until(std::sync::atomic::AtomicU32);

#[async_trait]
impl Fence for Until {
    fn generation(&self) -> Option<u64> {
        Some(7)
    }

    async fn still_leading(&self) -> Result<()> {
        let left = |left: u32| left.checked_sub(1);
        let order = std::sync::atomic::Ordering::SeqCst;
        let asked = self.0.fetch_update(order, order, left);
        asked.map(drop).map_err(|_| Error::new(Kind::Conflict, "leading", "another generation leads"))
    }
}

#[tokio::test(start_paused = true)]
async fn writers_that_overlap_agree() {
    let estate = Estate::new();
    let fence = Until(2.into());
    let (mut old, _) =
        TimelineWriter::new(&estate.vault, &source(), "log", &fence, Bounds::default(), framing);
    let id = old.begin(beginning(0)).await.expect("begun");
    let (mut new, _) = writer(&estate.vault);
    assert_eq!(new.resume().await.expect("looked").expect("a timeline").to, Position(0));
    new.push(record(0, 20), Position(0)).await.expect("the record at its beginning, of which no segment is");
    for at in 1..=9 {
        push(&mut new, at).await;
        push(&mut old, at).await;
        if at == 4 {
            old.seal().await.expect("the last that it may");
        }
    }
    assert_eq!(old.seal().await.expect_err("deposed").kind(), Kind::Conflict);
    new.seal().await.expect("sealed");
    let all = timelines(&estate).await;
    let [timeline] = &all[..] else { panic!("{all:?}") };
    assert_eq!((&timeline.id, timeline.segments.len()), (&id, 2));
    let backup = base(&estate, 2).await;
    let found = read(&estate, &estate.vault, &backup, 9).await.expect("read");
    assert_eq!(applied(&found, 2), (3..=9).collect::<Vec<_>>());
}

#[tokio::test(start_paused = true)]
async fn the_next_writer_goes_on_where_the_timeline_ends() {
    let estate = Estate::new();
    let (mut first, _) = writer(&estate.vault);
    assert_eq!(first.resume().await.expect("looked"), None);
    let id = first.begin(beginning(0)).await.expect("begun");
    for at in 1..=3 {
        first.push(noise(at, 3 << 19), Position(at)).await.expect("taken");
    }
    first.seal().await.expect("sealed");
    push(&mut first, 4).await;

    let (mut second, _) = writer(&estate.vault);
    let reach = second.resume().await.expect("looked").expect("a timeline");
    assert_eq!((reach.origin.timeline, reach.to), (id.clone(), Position(3)), "4 was not durable");
    assert_eq!(reach.record, Some(noise(3, 3 << 19)));
    push(&mut second, 4).await;
    let name = second.seal().await.expect("sealed").expect("a segment");
    assert_eq!((name.from, name.to), (Position(3), Position(4)));

    let end = close(&estate.vault, &source(), &id, End::new(Position(4), "a restore", estate.now())).await;
    assert_eq!(end.expect("closed").position, Position(4));
    let late = close(&estate.vault, &source(), &id, End::new(Position(9), "another", estate.now())).await;
    assert_eq!(late.expect("it is closed").why, "a restore", "the first one counts");
    assert_eq!(second.closed().await.expect("looked").expect("closed").position, Position(4));
    let (mut third, _) = writer(&estate.vault);
    assert_eq!(third.resume().await.expect("looked"), None);
    let next = third.begin(beginning(8)).await.expect("begun");
    let origin = timelines(&estate).await.pop().expect("two").origin.expect("readable");
    assert!(next > id);
    assert_eq!((origin.previous, origin.leader_generation, origin.from.0), (Some(id), Some(1), 8));
}

#[tokio::test(start_paused = true)]
async fn without_a_private_key_the_log_itself_gives_the_record_to_go_on_from() {
    let dir = tempfile::tempdir().expect("a directory");
    let estate = Estate::new();
    let (with_key, without) = encrypted(&estate, &dir);
    let (mut first, _) = writer(&without);
    first.begin(beginning(0)).await.expect("begun");
    push(&mut first, 1).await;
    first.seal().await.expect("sealed");
    let (mut second, _) = writer(&without);
    let reach = second.resume().await.expect("looked").expect("a timeline");
    assert_eq!((reach.to, reach.record), (Position(1), None));
    assert_eq!(
        second.push(record(2, 20), Position(2)).await.expect_err("1 comes first").kind(),
        Kind::Internal
    );
    push(&mut second, 1).await;
    assert_eq!(second.seal().await.expect("nothing new"), None);
    push(&mut second, 2).await;
    second.seal().await.expect("sealed");
    let backup = base(&estate, 0).await;
    let found = read(&estate, &with_key, &backup, 2).await.expect("read");
    assert_eq!(found.iter().map(Vec::len).collect::<Vec<_>>(), [2, 2]);
    let error = read(&estate, &without, &backup, 2).await.expect_err("no key");
    assert_eq!(error.kind(), Kind::Config, "{error:?}");
}

#[tokio::test(start_paused = true)]
async fn a_damaged_last_segment_is_written_anew() {
    let estate = Estate::new();
    let (mut first, _) = writer(&estate.vault);
    let id = first.begin(beginning(0)).await.expect("begun");
    for at in 1..=2 {
        push(&mut first, at).await;
        first.seal().await.expect("sealed");
    }
    let last = Key::new(&keys(&estate).await[1]);
    estate.spoil(&last, "rot").await;
    let (mut second, _) = writer(&estate.vault);
    let reach = second.resume().await.expect("looked").expect("a timeline");
    assert_eq!((reach.to, reach.record), (Position(1), Some(record(1, 20))));
    let rotten = SegmentName::read(last.as_str().rsplit('/').next().expect("a name")).expect("a segment");
    estate.remove(&log::segment(&source(), &id, &rotten)).await;
    estate.spoil(&log::origin(&source(), &id), "rot").await;
    assert_eq!(second.resume().await.expect("looked"), None, "of what cannot be read nothing goes on");
    assert_eq!(timelines(&estate).await.len(), 1);
    assert!(timelines(&estate).await[0].problem().is_some_and(|why| why.contains(SOURCE)));
    assert!(estate.memory.stat(&log::origin(&source(), &id)).await.expect("asked").is_some());
}
