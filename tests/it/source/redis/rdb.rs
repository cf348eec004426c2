//! The walker on what a real server writes, on what this one does not write, and on garbage.

use proptest::prelude::*;
use tidekeeper::error::{Error, Kind, Result};
use tidekeeper::source::redis::crc64::Crc64;
use tidekeeper::source::redis::rdb::{Crc, Dialect, Entry, Summary, Use, ValueType, Visitor, Walker};

use crate::harness::redis::RedisServer;

#[test]
fn the_sum_has_the_check_value_of_its_source() {
    assert_eq!(Crc64::of(b"123456789"), 0xe9c6_d914_c4b8_d9ca);
}

#[test]
fn a_sum_in_pieces_is_the_sum_of_the_whole() {
    let bytes: Vec<u8> = (0..200u8).collect();
    for cut in 0..bytes.len() {
        let mut sum = Crc64::new();
        sum.update(&bytes[..cut]);
        sum.update(&bytes[cut..]);
        assert_eq!(sum.value(), bitwise(&bytes), "cut at {cut}");
    }
}

/// The definition, a bit at a time.
fn bitwise(bytes: &[u8]) -> u64 {
    let mut sum = 0u64;
    for byte in bytes {
        for bit in 0..8 {
            let carry = sum >> 63 ^ u64::from(byte >> bit & 1);
            sum = sum << 1 ^ (carry * 0xad93_d235_94c9_35a9);
        }
    }
    sum.reverse_bits()
}

/// What a visitor was told, in words that two walks can be compared by.
#[derive(Debug, Default, PartialEq)]
struct Heard {
    entries: Vec<HeardEntry>,
    functions: Vec<Vec<u8>>,
}

#[derive(Debug, Default, PartialEq)]
struct HeardEntry {
    db: u32,
    key: Vec<u8>,
    type_code: u8,
    expire_at_ms: Option<i64>,
    use_of: Option<Use>,
    value: Vec<u8>,
    len: u64,
}

impl Visitor for Heard {
    fn entry_begin(&mut self, entry: &Entry<'_>) {
        self.entries.push(HeardEntry {
            db: entry.db,
            key: entry.key.to_vec(),
            type_code: entry.type_code,
            expire_at_ms: entry.expire_at_ms,
            use_of: entry.use_of,
            ..HeardEntry::default()
        });
    }

    fn value_bytes(&mut self, bytes: &[u8]) {
        assert!(!bytes.is_empty(), "no piece is empty");
        self.entries.last_mut().expect("a value follows a key").value.extend_from_slice(bytes);
    }

    fn entry_end(&mut self, len: u64) {
        self.entries.last_mut().expect("a value follows a key").len = len;
    }

    fn function(&mut self, library: &[u8]) {
        self.functions.push(library.to_vec());
    }
}

fn walk<'a>(chunks: impl IntoIterator<Item = &'a [u8]>) -> Result<(Summary, Heard)> {
    let (mut walker, mut heard) = (Walker::new(), Heard::default());
    for chunk in chunks {
        let taken = walker.feed(chunk, &mut heard)?;
        assert!(taken == chunk.len() || walker.is_done(), "bytes are left only after the end");
    }
    Ok((walker.finish()?, heard))
}

fn whole(rdb: &[u8]) -> (Summary, Heard) {
    walk([rdb]).unwrap_or_else(|error| panic!("{error:?} in {}", rdb.escape_ascii()))
}

/// An RDB of `version` with `body` between magic and end, its sum right.
fn rdb(magic: &str, body: &[u8]) -> Vec<u8> {
    let mut bytes = [magic.as_bytes(), body, &[255]].concat();
    let sum = Crc64::of(&bytes);
    bytes.extend_from_slice(&sum.to_le_bytes());
    bytes
}

fn text(text: &[u8]) -> Vec<u8> {
    [&[text.len() as u8], text].concat()
}

/// A key `k` with a value of this type.
fn entry(type_code: u8, value: &[&[u8]]) -> Vec<u8> {
    [&[type_code], text(b"k").as_slice(), &value.concat()].concat()
}

/// A value as a format version writes it: magic, type, and the bytes behind its key.
type Written = (&'static str, u8, ValueType, Vec<u8>);

const ID: [u8; 16] = [7; 16];
const TIME: [u8; 8] = [1; 8];

/// Everything that format versions 1 to 12 know of values and a 7.0 server does not write.
fn values_of_other_versions() -> Vec<Written> {
    values_before_version_10().into_iter().chain(values_since_version_10()).collect()
}

fn stream_node() -> Vec<u8> {
    [&[1][..], &text(&ID), &text(b"a listpack, unread")].concat()
}

/// A stream's one group, with its numbers, and the group's one consumer, with its times.
fn stream_tail(numbers: &[u8], times: usize) -> Vec<u8> {
    let pending = [&[1][..], &ID, &TIME, &[3]].concat();
    let consumer = [&[1][..], &text(b"consumer"), &TIME.repeat(times), &[1], &ID].concat();
    [&[1][..], &text(b"group"), numbers, &pending, &consumer].concat()
}

fn values_before_version_10() -> Vec<Written> {
    let listpack = text(b"a listpack, unread");
    let module_id = 0x1234_5678_9abc_def3u64.to_be_bytes();
    vec![
        ("REDIS0006", 1, ValueType::List, [&[2][..], &text(b"a"), &[0xc0, 5]].concat()),
        ("REDIS0006", 2, ValueType::Set, [&[1][..], &[0xc1, 5, 6]].concat()),
        (
            "REDIS0006",
            3,
            ValueType::Zset,
            [
                &[4][..],
                &text(b"a"),
                &[3],
                b"1.5",
                &text(b"b"),
                &[253],
                &text(b"c"),
                &[254],
                &text(b"d"),
                &[255],
            ]
            .concat(),
        ),
        ("REDIS0006", 4, ValueType::Hash, [&[1][..], &text(b"f"), &[0xc2, 1, 2, 3, 4]].concat()),
        ("REDIS0008", 5, ValueType::Zset, [&[1][..], &text(b"a"), &TIME].concat()),
        (
            "REDIS0008",
            7,
            ValueType::Module,
            [&[0x81][..], &module_id, &[1, 7, 2, 8, 3], &[0; 4], &[4], &TIME, &[5], &text(b"s"), &[0]]
                .concat(),
        ),
        ("REDIS0006", 9, ValueType::Hash, listpack.clone()),
        ("REDIS0006", 10, ValueType::List, listpack.clone()),
        ("REDIS0006", 11, ValueType::Set, listpack.clone()),
        ("REDIS0006", 12, ValueType::Zset, listpack.clone()),
        ("REDIS0006", 13, ValueType::Hash, listpack.clone()),
        ("REDIS0007", 14, ValueType::List, [&[2][..], &listpack, &listpack].concat()),
        (
            "REDIS0009",
            15,
            ValueType::Stream,
            [&stream_node()[..], &[1, 2, 3], &stream_tail(&[5, 6], 1)].concat(),
        ),
    ]
}

fn values_since_version_10() -> Vec<Written> {
    let listpack = text(b"a listpack, unread");
    vec![
        ("REDIS0010", 16, ValueType::Hash, listpack.clone()),
        ("REDIS0010", 17, ValueType::Zset, listpack.clone()),
        ("REDIS0010", 18, ValueType::List, [&[2, 2][..], &listpack, &[1], &text(b"plain")].concat()),
        (
            "REDIS0010",
            19,
            ValueType::Stream,
            [&stream_node()[..], &[1; 8], &stream_tail(&[5, 6, 9], 1)].concat(),
        ),
        ("REDIS0011", 20, ValueType::Set, listpack.clone()),
        (
            "REDIS0011",
            21,
            ValueType::Stream,
            [&stream_node()[..], &[1; 8], &stream_tail(&[5, 6, 9], 2)].concat(),
        ),
        (
            "REDIS0012",
            22,
            ValueType::Hash,
            [&[1][..], &[0x80, 1, 2, 3, 4], &text(b"f"), &text(b"v")].concat(),
        ),
        ("REDIS0012", 23, ValueType::Hash, listpack.clone()),
        (
            "REDIS0012",
            24,
            ValueType::Hash,
            [&TIME[..], &[2, 0], &text(b"f"), &text(b"v"), &[1], &text(b"g"), &text(b"w")].concat(),
        ),
        ("REDIS0012", 25, ValueType::Hash, [&TIME[..], &listpack].concat()),
        ("VALKEY080", 22, ValueType::Hash, [&[1][..], &text(b"f"), &text(b"v"), &[255; 8]].concat()),
    ]
}

#[test]
fn every_type_of_value_is_walked_whatever_the_cuts() {
    for (magic, type_code, value_type, value) in values_of_other_versions() {
        let name = format!("{magic} type {type_code}");
        let bytes = rdb(magic, &entry(type_code, &[&value]));
        let (summary, heard) = whole(&bytes);
        assert_eq!(heard.entries.len(), 1, "{name}");
        assert_eq!((heard.entries[0].type_code, &heard.entries[0].value), (type_code, &value), "{name}");
        assert_eq!(heard.entries[0].len, value.len() as u64, "{name}");
        assert_eq!(summary.databases[&0].of(value_type), 1, "{name}");
        assert_eq!(summary.crc, Crc::Right, "{name}");
        for cut in 0..=bytes.len() {
            let cut = walk([&bytes[..cut], &bytes[cut..]]).expect("a cut changes nothing");
            assert_eq!(
                cut,
                (summary.clone(), Heard { entries: vec![clone(&heard.entries[0])], functions: vec![] })
            );
        }
    }
}

fn clone(entry: &HeardEntry) -> HeardEntry {
    HeardEntry { key: entry.key.clone(), value: entry.value.clone(), ..*entry }
}

#[test]
fn every_opcode_is_obeyed() {
    let body = [
        &[250][..],
        &text(b"redis-ver"),
        &text(b"7.4.0"),
        &[250],
        &text(b"ctime"),
        &[0xc2, 0x80, 0x96, 0x98, 0x00],
        &[247, 0x81],
        &0x1234_5678_9abc_d401u64.to_be_bytes(),
        &[2, 1, 5],
        &text(b"aux"),
        &[0],
        &[245],
        &text(b"#!lua name=a"),
        &[246],
        &text(b"old"),
        &text(b"LUA"),
        &[1],
        &text(b"about"),
        &text(b"code"),
        &[246],
        &text(b"old"),
        &text(b"LUA"),
        &[0],
        &text(b"code"),
        &[254, 0x40, 0x50, 251, 3, 1, 244, 0, 1, 1],
        &[252],
        &1_700_000_000_123i64.to_le_bytes(),
        &[248, 0x41, 0x00],
        &entry(0, &[&text(b"v")]),
        &[253],
        &1_700_000_000u32.to_le_bytes(),
        &[249, 200],
        &entry(0, &[&text(b"v")]),
        &entry(0, &[&text(b"v")]),
    ]
    .concat();
    let (summary, heard) = whole(&rdb("REDIS0012", &body));
    assert_eq!(summary.server_version(), Some("7.4.0"));
    assert_eq!(summary.aux_number("ctime"), Some(10_000_000));
    assert_eq!((summary.functions, summary.pre_release_functions, summary.slot_hints), (1, 2, 1));
    assert_eq!(heard.functions, [b"#!lua name=a".to_vec()]);
    let (name, used) = summary.modules.first_key_value().expect("a module");
    assert_eq!((name.len(), used.encoding, used.values), (9, 1, 0));
    assert_eq!(summary.highest_db, Some(80));
    assert_eq!((summary.keys(), summary.expires()), (3, 2));
    assert!(summary.idle_times && summary.frequencies);
    let noted: Vec<_> =
        heard.entries.iter().map(|entry| (entry.db, entry.expire_at_ms, entry.use_of)).collect();
    let expected = [
        (80, Some(1_700_000_000_123), Some(Use::Idle(256))),
        (80, Some(1_700_000_000_000), Some(Use::Frequency(200))),
        (80, None, None),
    ];
    assert_eq!(noted, expected);
}

#[test]
fn keys_come_in_plain_however_they_are_written() {
    let cases: [(&[u8], &[u8]); 6] = [
        (&[0xc0, 0xff], b"-1"),
        (&[0xc1, 0x39, 0x30], b"12345"),
        (&[0xc2, 0, 0, 0, 0x80], b"-2147483648"),
        (&[0x40, 3, b'a', b'b', b'c'], b"abc"),
        (&[0x80, 0, 0, 0, 1, b'a'], b"a"),
        // A run of one, then 7+9+... bytes copied from 1 back: 20 times 'a'.
        (&[0xc3, 5, 20, 0, b'a', 0xe0, 10, 0], b"aaaaaaaaaaaaaaaaaaaa"),
    ];
    for (written, plain) in cases {
        let (_, heard) = whole(&rdb("REDIS0010", &[&[0][..], written, &text(b"v")].concat()));
        assert_eq!(heard.entries[0].key, plain, "{}", written.escape_ascii());
    }
}

#[test]
fn the_largest_keys_are_remembered_in_order() {
    let mut body = Vec::new();
    for n in 0..40u8 {
        let value = vec![b'x'; usize::from(n) * 37 % 40];
        body.extend([&[0][..], &text(&[b'k', n]), &text(&value)].concat());
    }
    let (summary, _) = whole(&rdb("REDIS0010", &body));
    let sizes: Vec<u64> = summary.largest.iter().map(|key| key.bytes).collect();
    assert_eq!(sizes, (25..=40).rev().collect::<Vec<u64>>());
}

#[test]
fn what_follows_the_end_is_left_alone() {
    let bytes = [rdb("REDIS0010", &entry(0, &[&text(b"v")])), b"mark".to_vec()].concat();
    let mut walker = Walker::new();
    let taken = bytes.chunks(7).map(|chunk| walker.feed(chunk, &mut ()).expect("it is whole")).sum::<usize>();
    assert_eq!(taken, bytes.len() - 4);
    assert_eq!(walker.finish().expect("it is whole").bytes, taken as u64);
}

#[test]
fn a_sum_is_checked_unless_there_is_none() {
    let mut bytes = rdb("REDIS0010", &entry(0, &[&text(b"v")]));
    let end = bytes.len();
    bytes[end - 1] ^= 1;
    refused(&bytes, Kind::Damaged, "its CRC64 says");
    bytes[end - 8..].fill(0);
    assert_eq!(whole(&bytes).0.crc, Crc::Disabled);
    let old = [b"REDIS0003".as_slice(), &entry(0, &[&text(b"v")]), &[255]].concat();
    assert_eq!(whole(&old).0.crc, Crc::Absent);
}

#[test]
fn what_cannot_be_is_refused_with_its_place() {
    let key = |rest: &[u8]| [&[0, 1, b'k'][..], rest].concat();
    let cases: Vec<(Vec<u8>, Kind, &str)> = vec![
        (b"GARBAGE!!".to_vec(), Kind::Damaged, "at byte 0: it begins with"),
        (b"REDISabcd".to_vec(), Kind::Damaged, "\"abcd\" is no version"),
        (b"REDIS0013".to_vec(), Kind::Unsupported, "REDIS0013 is not known"),
        (b"REDIS0000".to_vec(), Kind::Unsupported, "REDIS0000 is not known"),
        (b"VALKEY081".to_vec(), Kind::Unsupported, "VALKEY081 is not known"),
        (b"VALKEY011".to_vec(), Kind::Unsupported, "VALKEY011 is not known"),
        (rdb("VALKEY080", &[243]), Kind::Unready, "slots are being moved"),
        (rdb("REDIS0012", &[6]), Kind::Damaged, "at byte 9: a module value as written before"),
        (rdb("REDIS0012", &[8]), Kind::Damaged, "at byte 9: type 8 is unknown"),
        (rdb("REDIS0012", &[26]), Kind::Damaged, "at byte 9: type 26 is unknown"),
        (rdb("VALKEY080", &[24]), Kind::Damaged, "at byte 9: type 24 is unknown"),
        (rdb("REDIS0012", &key(&[0x82])), Kind::Damaged, "at byte 12: 0x82 does not begin a length"),
        (rdb("REDIS0012", &key(&[0xc4])), Kind::Damaged, "at byte 12: string encoding 4"),
        (rdb("REDIS0012", &key(&[&[0x81][..], &[255; 8]].concat())), Kind::Damaged, "cannot be"),
        (rdb("REDIS0012", &key(&[&[0xc3, 1, 0x81][..], &[255; 8]].concat())), Kind::Damaged, "cannot be"),
        (rdb("REDIS0012", &[0, 0x80, 0xff, 0, 0, 0]), Kind::Damaged, "a name of 4278190080 bytes"),
        (rdb("REDIS0012", &[0, 0xc3, 2, 0x80, 0x1f, 0, 0, 0, 0, b'a']), Kind::Damaged, "does not decompress"),
        (rdb("REDIS0012", &[0, 0xc3, 2, 5, 0x20, 9]), Kind::Damaged, "does not decompress"),
        (rdb("REDIS0012", &[254, 0x80, 0xff, 0, 0, 0]), Kind::Damaged, "database 4278190080"),
        (rdb("REDIS0012", &[7, 1, b'k', 5, 6]), Kind::Damaged, "part of the unknown kind 6"),
        (rdb("REDIS0012", &[247, 5, 1, 1, 0]), Kind::Damaged, "does not say when"),
    ];
    for (bytes, kind, why) in cases {
        refused(&bytes, kind, why);
    }
}

fn refused(bytes: &[u8], kind: Kind, why: &str) {
    let error = walk([bytes]).expect_err(why);
    assert_eq!(error.kind(), kind, "{error:?}");
    assert!(error.to_string().contains(why), "{error:?} does not say {why:?}");
}

#[test]
fn a_cut_anywhere_is_found() {
    for (magic, type_code, _, value) in values_of_other_versions() {
        let bytes = rdb(magic, &entry(type_code, &[&value]));
        for len in 0..bytes.len() {
            let error = walk([&bytes[..len]]).expect_err("it is not whole");
            assert!(error.why().contains(&format!("at byte {len}: it ends too early")), "{error:?}");
        }
    }
}

/// An RDB with every opcode and type in one.
fn everything() -> Vec<u8> {
    let mut body = [&[254, 1, 252][..], &[9; 8], &[248, 5]].concat();
    for (_, type_code, _, value) in
        values_of_other_versions().iter().filter(|(magic, ..)| magic.starts_with('R'))
    {
        body.extend(entry(*type_code, &[value]));
    }
    rdb("REDIS0012", &body)
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 2_000, failure_persistence: None, ..ProptestConfig::default() })]

    #[test]
    fn flips_and_cuts_never_panic_and_cuts_never_matter(
        flips in prop::collection::vec((any::<prop::sample::Index>(), any::<u8>()), 0..6),
        cuts in prop::collection::vec(any::<prop::sample::Index>(), 0..12),
    ) {
        let mut bytes = everything();
        for (at, mask) in flips {
            let at = at.index(bytes.len());
            bytes[at] ^= mask;
        }
        let mut ends: Vec<usize> = cuts.iter().map(|cut| cut.index(bytes.len())).collect();
        ends.sort_unstable();
        let mut chunks = Vec::new();
        let mut from = 0;
        for end in ends.into_iter().chain([bytes.len()]) {
            chunks.push(&bytes[from..end]);
            from = end;
        }
        let (one, many) = (walk([&bytes[..]]), walk(chunks));
        prop_assert_eq!(one.map_err(whys), many.map_err(whys));
    }

    #[test]
    fn garbage_never_panics(bytes in prop::collection::vec(any::<u8>(), 0..400)) {
        let _ = walk([b"REDIS0012".as_slice(), &bytes]);
    }
}

/// The class only: an offset inside a cut token may be counted from its end.
fn whys(error: Error) -> Kind {
    error.kind()
}

/// Values of every type in the encodings that a 7.0 server has, with every kind of key.
async fn fill(server: &RedisServer) {
    let mut connection = server.connect().await;
    let script = r#"
        local long = string.rep('long ', 30)
        redis.call('SET', 'text', 'hello'); redis.call('SET', 'number', 12345); redis.call('SET', '77', long)
        redis.call('SET', string.rep('key', 20), 'under a compressible name')
        redis.call('RPUSH', 'list:small', 'a', 'b', 3); redis.call('RPUSH', 'list:plain', string.rep('z', 9000), 'a')
        redis.call('SADD', 'set:ints', 1, 2, 300); redis.call('SADD', 'set:words', 'a', 'b')
        redis.call('ZADD', 'zset:small', 1.5, 'a', 'inf', 'b'); redis.call('HSET', 'hash:small', 'f', 'v', 'n', 5)
        for n = 1, 700 do
            redis.call('RPUSH', 'list:big', n .. long); redis.call('SADD', 'set:ints:big', n)
            redis.call('ZADD', 'zset:big', n / 3, 'm' .. n); redis.call('HSET', 'hash:big', 'f' .. n, n)
        end
        for n = 1, 250 do redis.call('XADD', 'stream', n .. '-1', 'field', n, 'other', long) end
        redis.call('XGROUP', 'CREATE', 'stream', 'group', '0'); redis.call('XDEL', 'stream', '3-1')
        redis.call('XREADGROUP', 'GROUP', 'group', 'anna', 'COUNT', 7, 'STREAMS', 'stream', '>')
        redis.call('XREADGROUP', 'GROUP', 'group', 'bert', 'COUNT', 2, 'STREAMS', 'stream', '>')
        redis.call('PFADD', 'hyperloglog', 'a', 'b'); redis.call('GEOADD', 'geo', 13.4, 52.5, 'Berlin')
        redis.call('SET', 'soon', 'gone', 'PX', 90000000); redis.call('SELECT', 9)
        redis.call('HSET', 'other', 'db', 'nine'); redis.call('PEXPIREAT', 'other', 4102444800000)
        return redis.call('SET', 'empty', '')
    "#;
    let _: String =
        redis::cmd("EVAL").arg(script).arg(0).query_async(&mut connection).await.expect("it fills");
    let library = "#!lua name=lib\nredis.register_function('f', function() return 1 end)";
    let _: String =
        redis::cmd("FUNCTION").arg("LOAD").arg(library).query_async(&mut connection).await.expect("it loads");
}

async fn saved(server: &RedisServer) -> Vec<u8> {
    let mut connection = server.connect().await;
    let _: String = redis::cmd("SAVE").query_async(&mut connection).await.expect("it saves");
    std::fs::read(server.folder.path().join("dump.rdb")).expect("it is there")
}

#[tokio::test]
async fn a_real_servers_file_is_walked_and_each_value_restores() {
    let server = RedisServer::start(&["--maxmemory-policy", "allkeys-lru", "--maxmemory", "1gb"]).await;
    fill(&server).await;
    let bytes = saved(&server).await;
    let (summary, heard) = whole(&bytes);
    assert_eq!((summary.dialect, summary.version, summary.crc), (Dialect::Redis, 10, Crc::Right));
    assert_eq!(summary.bytes, bytes.len() as u64);
    assert_eq!((summary.keys(), summary.expires(), summary.functions), (20, 2, 1));
    assert_eq!(summary.highest_db, Some(9));
    assert!(summary.idle_times);
    assert_eq!(Some(summary.largest[0].bytes), heard.entries.iter().map(|entry| entry.len).max());
    let types: Vec<u64> =
        ValueType::ALL.iter().map(|value_type| summary.databases[&0].of(*value_type)).collect();
    assert_eq!(types, [6, 3, 3, 3, 2, 1, 0]);

    let copy = RedisServer::start(&[]).await;
    let mut connection = copy.connect().await;
    for entry in &heard.entries {
        let mut payload =
            [&[entry.type_code], entry.value.as_slice(), &summary.version.to_le_bytes()].concat();
        let sum = Crc64::of(&payload);
        payload.extend_from_slice(&sum.to_le_bytes());
        let _: () =
            redis::cmd("SELECT").arg(entry.db).query_async(&mut connection).await.expect("it is there");
        let mut restore = redis::cmd("RESTORE");
        restore.arg(&entry.key).arg(entry.expire_at_ms.unwrap_or(0)).arg(payload).arg("ABSTTL");
        let _: () = restore.query_async(&mut connection).await.expect("the payload is right");
    }
    assert_eq!(server.digest().await, copy.digest().await);
    assert_eq!(heard.functions.len(), 1);
    assert!(heard.functions[0].starts_with(b"#!lua name=lib"));
}

#[tokio::test]
async fn a_real_servers_file_is_the_same_whatever_the_cuts() {
    let server = RedisServer::start(&["--maxmemory-policy", "allkeys-lfu", "--rdbcompression", "no"]).await;
    let mut connection = server.connect().await;
    let script = r#"
        redis.call('SET', 'number', 12345); redis.call('SET', 'soon', 'gone', 'PX', 90000000)
        redis.call('RPUSH', 'list', 'a', 'b', 3); redis.call('SADD', 'set', 1, 2); redis.call('ZADD', 'zset', 1, 'a')
        redis.call('HSET', 'hash', 'f', 'v'); redis.call('XADD', 'stream', '1-1', 'f', 'v')
        redis.call('XGROUP', 'CREATE', 'stream', 'group', '0')
        redis.call('XREADGROUP', 'GROUP', 'group', 'anna', 'STREAMS', 'stream', '>')
        return redis.call('SET', string.rep('key', 20), string.rep('value', 20))
    "#;
    let _: String =
        redis::cmd("EVAL").arg(script).arg(0).query_async(&mut connection).await.expect("it fills");
    let bytes = saved(&server).await;
    let expected = whole(&bytes);
    assert!(expected.0.frequencies);
    assert_eq!(walk(bytes.chunks(1)).expect("byte by byte"), expected);
    for cut in 0..=bytes.len() {
        assert_eq!(walk([&bytes[..cut], &bytes[cut..]]).expect("cut once"), expected, "cut at {cut}");
    }
}
