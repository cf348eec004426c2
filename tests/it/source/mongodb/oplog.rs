use bytes::Bytes;
use mongodb::bson::spec::BinarySubtype;
use mongodb::bson::{Binary, Bson, DateTime, Document, Timestamp, doc};
use tidekeeper::error::Kind;
use tidekeeper::source::mongodb::oplog::entry::{Entry, Op, Transaction, record_length};

use super::ground::{at, bytes, entries, entry};

fn uuid(byte: u8) -> Bson {
    Bson::Binary(Binary { subtype: BinarySubtype::Uuid, bytes: vec![byte; 16] })
}

#[test]
fn takes_an_entry_of_a_mongod_apart() {
    let lsid = doc! { "id": uuid(1) };
    let raw = entry(
        7,
        doc! {
            "op": "u", "ui": uuid(2), "o": { "$v": 2, "diff": { "u": { "n": 1 } } }, "o2": { "_id": 5 },
            "lsid": lsid.clone(), "txnNumber": 9_i64, "wall": DateTime::from_millis(100_500), "stmtId": 0,
            "prevOpTime": { "ts": Timestamp { time: 100, increment: 3 }, "t": 1_i64 }, "upsert": true,
        },
    );
    let entry = Entry::parse(raw.clone()).expect("it is one");
    assert_eq!(entry.at, at(100, 7));
    assert_eq!(entry.op, Op::Update);
    assert_eq!((entry.ns.as_str(), entry.db()), ("shop.carts", "shop"));
    assert_eq!(entry.o, bytes(&doc! { "$v": 2, "diff": { "u": { "n": 1 } } }));
    assert_eq!(entry.o2, Some(bytes(&doc! { "_id": 5 })));
    assert_eq!(entry.wall.expect("a time").as_millisecond(), 100_500);
    assert_eq!(entry.transaction, Some(Transaction { lsid: bytes(&lsid), number: 9 }));
    assert_eq!(entry.previous, Some(at(100, 3)));
    assert_eq!(entry.upsert, Some(true));
    assert_eq!(entry.ui.as_deref(), Some(&[2; 16][..]));
    assert!(!entry.is_vector);
    assert_eq!(entry.raw, raw);
}

#[test]
fn takes_an_entry_of_a_compatible_server_apart() {
    let raw = bytes(&doc! {
        "op": "i", "ns": "a.b.c", "o": { "_id": 1 }, "o2": { "_id": 1 }, "ts": Timestamp { time: 3, increment: 1 },
    });
    let entry = Entry::parse(raw).expect("it is one");
    assert_eq!((entry.at, entry.op, entry.db()), (at(3, 1), Op::Insert, "a"));
    assert_eq!(entry.transaction, None);
    assert_eq!(entry.previous, None);
}

#[test]
fn the_null_optime_is_no_entry_before() {
    let previous = doc! { "ts": Timestamp { time: 0, increment: 0 }, "t": -1_i64 };
    let raw = entry(1, doc! { "op": "c", "o": { "applyOps": [] }, "prevOpTime": previous });
    let entry = Entry::parse(raw).expect("it is one");
    assert_eq!(entry.previous, None);
    assert_eq!(entry.command().expect("a command").0, "applyOps");
}

#[test]
fn an_unknown_operation_or_version_is_named() {
    let unknown = Entry::parse(entry(1, doc! { "op": "zz", "o": {} })).expect_err("nobody knows it");
    assert_eq!(unknown.kind(), Kind::Unsupported);
    assert!(unknown.to_string().contains("\"zz\"") && unknown.to_string().contains("100:1"), "{unknown}");

    let mut old = Document::new();
    old.extend(doc! { "ts": Timestamp { time: 1, increment: 1 }, "v": 1, "op": "i", "ns": "a.b", "o": {} });
    let old = Entry::parse(bytes(&old)).expect_err("too old");
    assert_eq!(old.kind(), Kind::Unsupported);
    assert!(old.to_string().contains("version is 1"), "{old}");
}

#[test]
fn what_is_no_entry_is_damage() {
    for (wrong, why) in [
        (doc! { "op": "i", "ns": "a.b", "o": {} }, "no timestamp"),
        (doc! { "ts": Timestamp { time: 1, increment: 1 }, "op": "i", "ns": "a.b" }, "without `o`"),
        (doc! { "ts": Timestamp { time: 1, increment: 1 }, "ns": "a.b", "o": {} }, "without `op`"),
        (doc! { "ts": Timestamp { time: 1, increment: 1 }, "op": "i", "ns": 5, "o": {} }, "no text"),
    ] {
        let error = Entry::parse(bytes(&wrong)).expect_err("it is none");
        assert_eq!(error.kind(), Kind::Damaged, "{wrong}");
        assert!(error.to_string().contains(why), "{error}");
    }
    let whole = entry(1, doc! { "op": "n", "o": { "msg": "periodic noop" } });
    let cut = entries(whole.slice(..whole.len() - 1)).expect_err("it is cut off");
    assert_eq!(cut.kind(), Kind::Damaged);
}

#[test]
fn a_record_is_the_run_of_one_ts() {
    let one = entry(1, doc! { "op": "i", "o": { "_id": 1 } });
    let two =
        [entry(2, doc! { "op": "i", "o": { "_id": 2 } }), entry(2, doc! { "op": "d", "o": { "_id": 2 } })];
    let three = entry(3, doc! { "op": "n", "o": {} });
    let pair = two.concat();
    let all = [&one[..], &pair, &three].concat();
    assert_eq!(record_length(&all), Some(one.len()));
    assert_eq!(record_length(&all[one.len()..]), Some(pair.len()));
    assert_eq!(record_length(&three), None, "its end is not to be seen");
    assert_eq!(record_length(&all[one.len()..one.len() + pair.len() + 3]), None, "nor here");
    assert_eq!(record_length(b"no bson at all"), None);
    let ops: Vec<Op> =
        entries(Bytes::from(pair)).expect("a record").into_iter().map(|entry| entry.op).collect();
    assert_eq!(ops, [Op::Insert, Op::Delete]);
}
