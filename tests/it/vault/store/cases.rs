//! The promises about objects, in sequence.

use bytes::Bytes;
use futures_util::{FutureExt, StreamExt, TryStreamExt, stream};
use serde::{Deserialize, Serialize};
use tidekeeper::clock::SystemClock;
use tidekeeper::error::Kind;
use tidekeeper::vault::decide::{Deciding, Decision, decide};
use tidekeeper::vault::store::{Create, Key, SMALL_OBJECT_MAX, Store};

use super::suite::{Case, Stage};

pub fn all() -> Vec<Case> {
    vec![
        Case { promise: "a key is created once", test: |stage| created_once(stage).boxed() },
        Case { promise: "an empty object is an object", test: |stage| empty_object(stage).boxed() },
        Case { promise: "own object is recognised after a 412", test: |stage| own_412(stage).boxed() },
        Case { promise: "what is absent is absent, and no error", test: |stage| absent(stage).boxed() },
        Case { promise: "deleting twice succeeds", test: |stage| deleted_twice(stage).boxed() },
        Case { promise: "listings come in pages, whole and in order", test: |stage| pages(stage).boxed() },
        Case { promise: "a prefix may end in mid-name", test: |stage| prefixes(stage).boxed() },
        Case { promise: "keys sort by bytes", test: |stage| byte_order(stage).boxed() },
        Case { promise: "listings and stat tell size and age", test: |stage| size_and_age(stage).boxed() },
        Case { promise: "odd characters in keys survive", test: |stage| odd_keys(stage).boxed() },
        Case { promise: "a name may have 120 bytes", test: |stage| long_keys(stage).boxed() },
        Case { promise: "ranges are exact, in chunks of at most 1 MiB", test: |stage| ranges(stage).boxed() },
        Case { promise: "a range past the end is an error", test: |stage| past_the_end(stage).boxed() },
        Case {
            promise: "get, of one or many, refuses what is not small",
            test: |stage| not_small(stage).boxed(),
        },
    ]
}

/// Bytes in which every position is different from its neighbours.
pub fn pattern(len: usize) -> Bytes {
    (0..len as u64).map(|at| (at.wrapping_mul(0x9e37_79b9_7f4a_7c15) >> 56) as u8).collect()
}

pub async fn read(store: &dyn Store, key: &Key, range: std::ops::Range<u64>) -> Result<Bytes, Kind> {
    let stream = store.read(key, range).await.map_err(|error| error.kind())?;
    let chunks: Vec<Bytes> = stream.try_collect().await.map_err(|error| error.kind())?;
    assert!(chunks.iter().all(|chunk| (1..=1 << 20).contains(&chunk.len())), "a chunk is empty or too long");
    Ok(chunks.concat().into())
}

/// Creates an object that may be longer than a small one.
pub async fn put(stage: &Stage, name: &str, body: Bytes) -> Key {
    let key = stage.key(name);
    if body.len() as u64 <= SMALL_OBJECT_MAX {
        assert_eq!(stage.store.create(&key, body).await.unwrap(), Create::Created);
        return key;
    }
    let upload = stage.store.begin_upload(&key).await.unwrap();
    for (n, part) in body.chunks(8 << 20).enumerate() {
        upload
            .put_part(n as u32 + 1, tidekeeper::vault::store::Part::Bytes(body.slice_ref(part)))
            .await
            .unwrap();
    }
    assert_eq!(upload.finish().await.unwrap(), Create::Created);
    key
}

async fn created_once(stage: Stage) {
    let key = stage.key("once.json");
    assert_eq!(stage.store.create(&key, "first".into()).await.unwrap(), Create::Created);
    assert_eq!(stage.store.create(&key, "second".into()).await.unwrap(), Create::Exists);
    assert_eq!(stage.store.get(&key).await.unwrap().unwrap(), "first");
}

async fn empty_object(stage: Stage) {
    let key = put(&stage, "empty", Bytes::new()).await;
    assert_eq!(stage.store.get(&key).await.unwrap().unwrap(), "");
    assert_eq!(stage.store.stat(&key).await.unwrap().unwrap().size, 0);
}

#[derive(Serialize, Deserialize)]
struct Vote {
    nonce: String,
}

impl Deciding for Vote {
    fn nonce(&self) -> &str {
        &self.nonce
    }
}

async fn own_412(stage: Stage) {
    let (key, clock) = (stage.key("vote.json"), SystemClock::shared());
    let (own, other) = (Vote { nonce: "own".into() }, Vote { nonce: "other".into() });
    for _ in 0..2 {
        assert!(matches!(decide(&*stage.store, &*clock, &key, &own).await.unwrap(), Decision::Ours));
    }
    match decide(&*stage.store, &*clock, &key, &other).await.unwrap() {
        Decision::Theirs(found) => assert_eq!(found.nonce, "own"),
        Decision::Ours => panic!("both were told that they decided"),
    }
}

async fn absent(stage: Stage) {
    let key = stage.key("nothing/here.json");
    assert!(stage.store.get(&key).await.unwrap().is_none());
    assert!(stage.store.stat(&key).await.unwrap().is_none());
    assert_eq!(read(&*stage.store, &key, 0..1).await, Err(Kind::NotFound));
    stage.store.delete(&key).await.unwrap();
    put(&stage, "there.json", "x".into()).await;
    assert_eq!(stage.listed("nothing/").await, Vec::<String>::new());
}

async fn deleted_twice(stage: Stage) {
    let key = put(&stage, "a/b/c.json", "x".into()).await;
    for _ in 0..2 {
        stage.store.delete(&key).await.unwrap();
        assert!(stage.store.get(&key).await.unwrap().is_none());
        assert!(stage.store.stat(&key).await.unwrap().is_none());
        assert_eq!(stage.listed("").await, Vec::<String>::new());
    }
    put(&stage, "a/b/c.json", "again".into()).await;
}

async fn pages(stage: Stage) {
    let names: Vec<String> = (0..1_050).map(|n| format!("many/{n:05}.json")).collect();
    stream::iter(&names)
        .for_each_concurrent(16, |name| async {
            put(&stage, name, "x".into()).await;
        })
        .await;
    assert_eq!(stage.listed("many/").await, names);
    let first = stage.store.list(&stage.key("many/0").to_string(), None).await.unwrap();
    assert!(!first.entries.is_empty(), "a page of nothing");
    assert_eq!(first.more, first.entries.len() < names.len(), "{} entries", first.entries.len());
    let last = stage.store.list(&stage.room, Some(&stage.key("many/01047.json"))).await.unwrap();
    let last: Vec<_> = last.entries.iter().map(|entry| entry.key.as_str()).collect();
    assert_eq!(last, [stage.key("many/01048.json").as_str(), stage.key("many/01049.json").as_str()]);
}

async fn prefixes(stage: Stage) {
    for name in ["redis-a/1", "redis-main/1", "redis-main/2", "redis-main2/1", "redis-main.x", "sredis/1"] {
        put(&stage, name, "x".into()).await;
    }
    let all_main = ["redis-main.x", "redis-main/1", "redis-main/2", "redis-main2/1"];
    assert_eq!(stage.listed("redis-main").await, all_main);
    assert_eq!(stage.listed("redis-main/").await, ["redis-main/1", "redis-main/2"]);
    assert_eq!(stage.listed("redis-main/2").await, ["redis-main/2"]);
    assert_eq!(stage.listed("redis-main/2/").await, Vec::<String>::new());
    assert_eq!(stage.listed("r").await.len(), 5);
}

async fn byte_order(stage: Stage) {
    // In byte order, which is not the order of a tree: '-' and '.' come before '/', digits and letters after it.
    let names = ["a-b/1", "a.b", "a/b", "a/b-c/d", "a/b/c/d", "a0", "aB", "ab"];
    let names: Vec<&str> = names.into_iter().filter(|name| *name != "a/b").collect();
    for name in names.iter().rev() {
        put(&stage, name, "x".into()).await;
    }
    assert_eq!(stage.listed("").await, names);
    for (n, name) in names.iter().enumerate() {
        let page = stage.store.list(&stage.room, Some(&stage.key(name))).await.unwrap();
        let rest: Vec<_> = page.entries.iter().map(|entry| entry.key.clone()).collect();
        let expected: Vec<_> = names[n + 1..].iter().map(|name| stage.key(name)).collect();
        assert_eq!(rest, expected, "after {name}");
    }
}

async fn size_and_age(stage: Stage) {
    let before = stage.store.now().await.unwrap();
    let key = put(&stage, "sized", pattern(12_345)).await;
    let entry = stage.store.stat(&key).await.unwrap().unwrap();
    assert_eq!((&entry.key, entry.size), (&key, 12_345));
    let age = before.duration_until(entry.modified).as_secs();
    assert!((-2..60).contains(&age), "created {age} s after it was begun");
    let listed = stage.store.list(&stage.room, None).await.unwrap();
    let listed = &listed.entries[0];
    assert_eq!((&listed.key, listed.size), (&key, 12_345));
    assert_eq!(listed.modified.as_second(), entry.modified.as_second());
}

async fn odd_keys(stage: Stage) {
    let names = [
        "plus+and%20percent%2Fslash%",
        "equals=and&amp;<tag>'quoted'",
        "at@hash#dollar$comma,semi;colon:",
        "brackets[(x)]{y}~tilde^caret`tick|pipe",
        "..dots..and...more/.hidden/x",
    ];
    for name in names {
        let key = put(&stage, name, name.to_owned().into()).await;
        assert_eq!(stage.store.get(&key).await.unwrap().unwrap(), name);
        assert_eq!(stage.store.stat(&key).await.unwrap().unwrap().size, name.len() as u64);
        assert_eq!(read(&*stage.store, &key, 2..5).await.unwrap(), name[2..5]);
        assert_eq!(stage.store.create(&key, "again".into()).await.unwrap(), Create::Exists);
        assert_eq!(stage.listed(name).await, [name]);
    }
    let mut sorted = names.to_vec();
    sorted.sort_unstable();
    assert_eq!(stage.listed("").await, sorted);
    for name in names {
        stage.store.delete(&stage.key(name)).await.unwrap();
    }
    assert_eq!(stage.listed("").await, Vec::<String>::new());
}

async fn long_keys(stage: Stage) {
    let name = format!("{}/{}/{}", "s".repeat(63), "attempt12345", "artifact".repeat(15));
    let key = put(&stage, &name, "x".into()).await;
    assert_eq!(stage.store.get(&key).await.unwrap().unwrap(), "x");
    assert_eq!(stage.listed(&name[..100]).await, [name]);
}

async fn ranges(stage: Stage) {
    let body = pattern(3 << 20);
    let key = put(&stage, "ranged", body.clone()).await;
    let len = body.len() as u64;
    for range in [0..1, 0..len, 1..len, len - 1..len, 1_000_000..2_200_000, (1 << 20)..(2 << 20)] {
        let expected = &body[range.start as usize..range.end as usize];
        assert!(read(&*stage.store, &key, range.clone()).await.unwrap() == expected, "range {range:?}");
    }
}

async fn past_the_end(stage: Stage) {
    let key = put(&stage, "short", pattern(100)).await;
    for range in [0..101, 99..101, 100..101, 500..600] {
        assert_eq!(read(&*stage.store, &key, range.clone()).await, Err(Kind::Damaged), "range {range:?}");
    }
    assert_eq!(read(&*stage.store, &key, 7..7).await, Err(Kind::Damaged), "an empty range");
}

async fn not_small(stage: Stage) {
    let fits = put(&stage, "fits", pattern(SMALL_OBJECT_MAX as usize)).await;
    assert_eq!(stage.store.get(&fits).await.unwrap().unwrap().len() as u64, SMALL_OBJECT_MAX);
    let large = put(&stage, "large", pattern(SMALL_OBJECT_MAX as usize + 1)).await;
    assert_eq!(stage.store.get(&large).await.unwrap_err().kind(), Kind::Damaged);
    let short = put(&stage, "short", "x".into()).await;
    let absent = stage.key("absent");
    let keys = [short.clone(), absent, large, fits, short];
    let found = stage.store.get_all(&keys).await.into_iter();
    let lens = found.map(|body| body.map(|body| body.map(|body| body.len() as u64)).map_err(|e| e.kind()));
    let expected = [Ok(Some(1)), Ok(None), Err(Kind::Damaged), Ok(Some(SMALL_OBJECT_MAX)), Ok(Some(1))];
    assert_eq!(lens.collect::<Vec<_>>(), expected);
}
