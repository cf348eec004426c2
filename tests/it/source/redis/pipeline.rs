//! Patterns, slots, answers and commands by themselves; what a real server makes of them is in `restore`.

use proptest::prelude::*;
use tidekeeper::clock::SystemClock;
use tidekeeper::error::Kind;
use tidekeeper::source::redis::address::Address;
use tidekeeper::source::redis::glob::Pattern;
use tidekeeper::source::redis::pipeline::Pipeline;
use tidekeeper::source::redis::pipeline::encode::{Batch, Encoder, Rules};
use tidekeeper::source::redis::pipeline::replies::{Replies, Reply};
use tidekeeper::source::redis::pipeline::slots::{SlotMap, crc16, slot};
use tidekeeper::source::redis::rdb::{Entry, Visitor};
use tidekeeper::source::redis::survey::LongValues;
use tidekeeper::task::Progress;
use tokio::io::{AsyncReadExt, AsyncWriteExt, DuplexStream};

use super::stage::command;
use crate::harness::redis::RedisServer;

#[test]
fn patterns_mean_what_keys_means_by_them() {
    for (pattern, key, expected) in [
        ("*", "", true),
        ("", "", true),
        ("", "a", false),
        ("user:*", "user:7", true),
        ("user:*", "users", false),
        ("*:7:*", "a:7:b:7:c", true),
        ("*a*b", "xaxbxab", true),
        ("*a*b", "xaxbxac", false),
        ("h?llo", "hello", true),
        ("h?llo", "hllo", false),
        ("h[ae]llo", "hallo", true),
        ("h[ae]llo", "hillo", false),
        ("h[^e]llo", "hallo", true),
        ("h[^e]llo", "hello", false),
        ("h[a-c]llo", "hbllo", true),
        ("h[c-a]llo", "hbllo", true),
        ("h[a-c]llo", "hdllo", false),
        (r"h\*llo", "h*llo", true),
        (r"h\*llo", "hello", false),
        (r"[\]]", "]", true),
        ("[ab", "b", true),
    ] {
        assert_eq!(Pattern::new(pattern).matches(key.as_bytes()), expected, "{pattern} on {key}");
    }
}

#[tokio::test]
async fn a_real_server_agrees_on_patterns() {
    let server = RedisServer::start(&[]).await;
    let keys = ["a", "aa", "ab", "abc", "a*c", "b]", "b-", "[a]", "aXbXc", "ünicode", "a\\b", "^", "a^b"];
    for key in keys {
        let _: () = command(&server, &["SET", key, "1"]).await;
    }
    for pattern in [
        "*", "a*", "?", "??", "a?c", "[ab]*", "[^a]*", "[a-]*", "*[a-c]", "[]]*", r"a\*c", r"\[a]", "a**c",
        "[^^]", "*b*c", "a[^x]b", "[z-a]?", r"a\\b", r"[\a]*", "[a-c",
    ] {
        let mut theirs: Vec<String> = command(&server, &["KEYS", pattern]).await;
        let own = Pattern::new(pattern);
        let mut ours: Vec<String> =
            keys.iter().filter(|key| own.matches(key.as_bytes())).map(|key| (*key).to_owned()).collect();
        theirs.sort();
        ours.sort();
        assert_eq!(ours, theirs, "{pattern}");
    }
}

#[test]
fn slots_are_those_of_the_specification() {
    assert_eq!(crc16(b"123456789"), 0x31c3);
    assert_eq!(slot(b"{user1000}.following"), slot(b"{user1000}.followers"));
    assert_eq!(slot(b"foo{}{bar}"), usize::from(crc16(b"foo{}{bar}")) % 16384);
    assert_eq!(slot(b"foo{{bar}}zap"), slot(b"{bar"));
    assert_eq!(slot(b"foo{bar}{zap}"), slot(b"bar"));
    let node = |port| Address::new("h", port);
    let map = SlotMap::new([(0, 8000, node(1)), (8001, 16000, node(2)), (16001, 16300, node(1))]);
    assert_eq!((map.servers(), map.uncovered()), (2, 83));
    assert_eq!(map.server_of(b"123456789"), 1, "slot 12739");
}

fn answers(pieces: &[&[u8]]) -> Vec<String> {
    let (mut replies, mut heard, mut fine) = (Replies::default(), Vec::new(), 0);
    for piece in pieces {
        let each = |reply: Reply<'_>| {
            match reply {
                Reply::Ok(count) => fine += count,
                Reply::Error(line) => heard.push(format!("{fine} then {line}")),
            }
            Ok(())
        };
        replies.take(piece, each).expect("they are answers");
    }
    heard.push(format!("{fine} in all"));
    heard
}

#[test]
fn answers_are_counted_however_they_are_cut() {
    let wire = b"+OK\r\n+OK\r\n-BUSYKEY Target key name already exists.\r\n+OK\r\n+QUEUED\r\n-OOM no\r\n";
    let expected = ["2 then BUSYKEY Target key name already exists.", "4 then OOM no", "4 in all"];
    for cut in 0..=wire.len() {
        let (before, after) = wire.split_at(cut);
        assert_eq!(answers(&[before, after]), expected, "cut at {cut}");
    }
    let mut replies = Replies::default();
    let error = replies.take(b"$5\r\nhello\r\n", |_| Ok(())).expect_err("not an answer to RESTORE");
    assert_eq!(error.kind(), Kind::Protocol);
}

fn rules() -> Rules {
    Rules { keys: None, replace: false, now_ms: 1000, payload_version: 10, bulk_max: 1 << 20 }
}

fn entry<'a>(db: u32, key: &'a [u8], expire_at_ms: Option<i64>) -> Entry<'a> {
    Entry { db, key, type_code: 0, expire_at_ms, use_of: None }
}

fn single() -> SlotMap {
    SlotMap::single(Address::new("h", 1))
}

fn encode(rules: &Rules, long: &LongValues, entries: &[(Entry<'_>, &[u8])]) -> (Vec<Batch>, [u64; 3]) {
    let map = single();
    let mut encoder = Encoder::new(rules, &map, long);
    for (entry, value) in entries {
        encoder.entry_begin(entry);
        value.chunks(1000).for_each(|piece| encoder.value_bytes(piece));
        encoder.entry_end(value.len() as u64);
    }
    encoder.close();
    let skipped = &encoder.skipped;
    let counts = [skipped.expired, skipped.unwanted, skipped.too_long];
    (encoder.ready.into_iter().map(|(_, batch)| batch).collect(), counts)
}

#[test]
fn a_long_value_makes_the_same_command_as_a_short_one() {
    let value = vec![b'x'; 200_000];
    let mut known = LongValues::default();
    known.note(1, value.len() as u64);
    let entries = [(entry(0, b"first", None), &b"v"[..]), (entry(0, b"long", Some(5000)), &value[..])];
    let (buffered, _) = encode(&rules(), &LongValues::default(), &entries);
    let (streamed, _) = encode(&rules(), &known, &entries);
    let wire = |batches: &[Batch]| batches.iter().flat_map(|batch| batch.wire.clone()).collect::<Vec<u8>>();
    assert_eq!(wire(&buffered), wire(&streamed));
    assert!(streamed.iter().all(|batch| batch.wire.len() < 80_000), "never whole in memory");
    assert_eq!(streamed.iter().map(|batch| batch.keys.len()).sum::<usize>(), 2);
}

#[test]
fn databases_are_never_mixed_in_a_batch() {
    let entries: Vec<(Entry<'_>, &[u8])> =
        [0, 0, 3, 3, 1].iter().map(|db| (entry(*db, b"k", None), &b"v"[..])).collect();
    let (batches, _) = encode(&rules(), &LongValues::default(), &entries);
    let seen: Vec<(u32, usize)> = batches.iter().map(|batch| (batch.db, batch.keys.len())).collect();
    assert_eq!(seen, [(0, 2), (3, 2), (1, 1)]);
}

#[test]
fn what_is_not_sent_is_counted() {
    let mut long = LongValues::default();
    long.note(3, 2 << 20);
    let rules = Rules { keys: Some(Pattern::new("a*")), ..rules() };
    let entries = [
        (entry(0, b"a1", Some(1000)), &b"v"[..]),
        (entry(0, b"b", None), b"v"),
        (entry(0, b"a2", Some(1001)), b"v"),
        (entry(0, b"a3", None), b"not really so long"),
    ];
    let (batches, skipped) = encode(&rules, &long, &entries);
    assert_eq!(skipped, [1, 1, 1]);
    assert_eq!(batches.len(), 1);
    assert_eq!(batches[0].keys.get(0), b"a2");
}

#[test]
fn the_list_of_long_values_is_bounded() {
    let mut long = LongValues::default();
    let lengths = |position: u64| (64 << 10) + 1 + position * 7 % 1_000_000;
    for position in 0..200_000 {
        long.note(position, lengths(position));
    }
    let kept: Vec<(u64, u64)> = long.iter().collect();
    assert!(kept.len() <= 1 << 16);
    let shortest = kept.iter().map(|(_, length)| *length).min().expect("some are kept");
    let longer = (0..200_000).filter(|position| lengths(*position) >= shortest).count();
    assert_eq!(kept.len(), longer, "all that are as long as the shortest that is kept are kept");
    assert!(kept.iter().all(|(position, length)| *length == lengths(*position)));
}

/// The other end of a lane.
async fn lane() -> (Pipeline, DuplexStream) {
    let (ours, theirs) = tokio::io::duplex(1 << 20);
    (Pipeline::start(vec![ours], &SystemClock::shared(), &Progress::default()), theirs)
}

fn batch(db: u32, keys: &[&str]) -> Batch {
    let mut batch = Batch { db, wire: b"wire".to_vec(), ..Batch::default() };
    keys.iter().for_each(|key| batch.keys.push(key.as_bytes()));
    batch
}

#[tokio::test]
async fn refusals_are_told_by_reason_and_key() {
    let (mut pipeline, mut server) = lane().await;
    pipeline.send(0, batch(0, &["a", "b"])).await.expect("it is taken");
    pipeline.send(0, batch(0, &["c", "d\n"])).await.expect("it is taken");
    let answers = b"+OK\r\n-BUSYKEY exists\r\n+OK\r\n-MOVED 12 h:1\r\n";
    server.write_all(answers).await.expect("it listens");
    let tally = pipeline.finish().await.expect("all were answered");
    assert_eq!(tally.restored, 2);
    let omissions: Vec<(String, String)> =
        tally.omissions().into_iter().map(|omission| (omission.what, omission.why)).collect();
    assert_eq!(omissions[0].0, "1 keys (b)");
    assert!(omissions[0].1.starts_with("BUSYKEY exists: "), "{omissions:?}");
    assert_eq!(omissions[1].0, r"1 keys (d\n)");
}

#[tokio::test]
async fn nothing_is_sent_into_a_database_that_was_not_selected() {
    let (mut pipeline, mut server) = lane().await;
    pipeline.send(0, batch(0, &["a"])).await.expect("it is taken");
    pipeline.send(0, batch(3, &["b"])).await.expect("it is taken");
    let mut heard = vec![0; 4 + 23];
    server.read_exact(&mut heard).await.expect("a batch and a SELECT");
    assert!(heard.ends_with(b"SELECT\r\n$1\r\n3\r\n"));
    server.write_all(b"+OK\r\n-ERR DB index is out of range\r\n").await.expect("it listens");
    let error = pipeline.finish().await.expect_err("there is no such database");
    assert_eq!(error.kind(), Kind::Unsupported);
    let mut rest = Vec::new();
    server.read_to_end(&mut rest).await.expect("it ends");
    assert!(rest.is_empty(), "{rest:?}");
}

#[tokio::test]
async fn a_hopeless_answer_ends_it_and_a_cut_does_too() {
    for (answer, kind) in [
        (&b"+OK\r\n-READONLY You can't write against a read only replica.\r\n"[..], Kind::Unsupported),
        (b"-NOPERM this user has no permissions\r\n", Kind::Denied),
        (b"+OK\r\n", Kind::Unreachable),
        (b"+OK\r\n+OK\r\n+OK\r\n", Kind::Protocol),
    ] {
        let (mut pipeline, mut server) = lane().await;
        pipeline.send(0, batch(0, &["a", "b"])).await.expect("it is taken");
        server.write_all(answer).await.expect("it listens");
        drop(server);
        let error = pipeline.finish().await.expect_err("it ended");
        assert_eq!(error.kind(), kind, "{error:?}");
    }
}

proptest! {
    #[test]
    fn a_pattern_without_specials_matches_itself_only(key in "[a-z:]{0,12}", other in "[a-z:]{0,12}") {
        let pattern = Pattern::new(&key);
        prop_assert!(pattern.matches(key.as_bytes()));
        prop_assert_eq!(pattern.matches(other.as_bytes()), key == other);
    }

    #[test]
    fn stars_match_as_the_naive_reading_says(pattern in "[ab*?]{0,8}", key in "[ab]{0,10}") {
        prop_assert_eq!(Pattern::new(&pattern).matches(key.as_bytes()), naive(pattern.as_bytes(), key.as_bytes()));
    }
}

fn naive(pattern: &[u8], key: &[u8]) -> bool {
    match (pattern.split_first(), key.split_first()) {
        (None, None) => true,
        (Some((b'*', rest)), None) => naive(rest, key),
        (Some((b'*', rest)), Some((_, shorter))) => naive(rest, key) || naive(pattern, shorter),
        (Some((b'?', rest)), Some((_, shorter))) => naive(rest, shorter),
        (Some((byte, rest)), Some((own, shorter))) => byte == own && naive(rest, shorter),
        _ => false,
    }
}
