//! What the network and a refusing server do to the S3 store: each way once, on a real server behind a wire that breaks.

use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use futures_util::{StreamExt, TryStreamExt};
use tidekeeper::clock::SystemClock;
use tidekeeper::config::S3Place;
use tidekeeper::error::{Error, Kind, Result};
use tidekeeper::vault::codec::download::fetch;
use tidekeeper::vault::store::s3::S3Store;
use tidekeeper::vault::store::{Create, Key, Part, SharedStore, Store};

use super::cases::pattern;
use super::uploads::unlinked;
use crate::harness::s3::gate::{Fate, Gate};
use crate::harness::s3::proxy::{HurriedClock, Proxy};
use crate::harness::s3::{self, config};
use crate::harness::{free_port, wait_for};

/// A store behind a wire that works until it is told otherwise.
async fn wired() -> (Proxy, SharedStore) {
    let proxy = Proxy::before(s3::versitygw().await).await;
    let store = proxy.server.store_at(&proxy.server.place(), HurriedClock::shared());
    (proxy, store)
}

async fn created(store: &SharedStore, name: &str, len: usize) -> Key {
    let key = Key::new(name);
    assert_eq!(store.create(&key, pattern(len)).await.unwrap(), Create::Created);
    key
}

/// Reads an object as a restore does: a store gives one answer, its reader goes on where that was cut.
async fn fetched(store: &SharedStore, key: &Key, size: u64) -> Result<Vec<u8>> {
    let chunks = fetch(store.clone(), HurriedClock::shared(), key.clone(), size);
    let chunks: Vec<Bytes> = chunks.try_collect().await?;
    Ok(chunks.concat())
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_cut_download_goes_on_where_it_broke() {
    let (proxy, store) = wired().await;
    let key = created(&store, "data/x", 7 << 20).await;
    proxy.cut(4, 500_000);
    let body = fetched(&store, &key, 7 << 20).await.unwrap();
    assert_eq!(proxy.left(), 0, "all cuts were made");
    assert!(body == pattern(7 << 20));
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_download_that_stalls_goes_on_over_a_new_connection() {
    let (proxy, store) = wired().await;
    let key = created(&store, "data/x", 1 << 20).await;
    proxy.stall(2);
    assert!(fetched(&store, &key, 1 << 20).await.unwrap() == pattern(1 << 20));
    assert_eq!(proxy.left(), 0);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_download_that_is_cut_again_and_again_ends_with_an_error() {
    let (proxy, store) = wired().await;
    let key = created(&store, "data/x", 1 << 20).await;
    proxy.cut(1_000_000, 0);
    let error = fetched(&store, &key, 1 << 20).await.unwrap_err();
    assert_eq!(error.kind(), Kind::Unreachable, "{error:?}");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_create_whose_reply_is_lost_is_undecided_and_was_made() {
    let (proxy, store) = wired().await;
    let key = Key::new("manifests/a/1.json");
    proxy.cut(1, 0);
    let error = store.create(&key, "own".into()).await.unwrap_err();
    assert_eq!(error.kind(), Kind::Undecided, "{error:?}");
    assert_eq!(store.create(&key, "own".into()).await.unwrap(), Create::Exists);
    assert_eq!(store.get(&key).await.unwrap().unwrap(), "own");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_create_that_is_never_answered_is_undecided() {
    let (proxy, store) = wired().await;
    proxy.stall(1);
    let error = store.create(&Key::new("manifests/a/1.json"), "own".into()).await.unwrap_err();
    assert_eq!(error.kind(), Kind::Undecided, "{error:?}");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_finish_whose_reply_is_lost_has_made_the_object() {
    let (proxy, store) = wired().await;
    let key = Key::new("data/x");
    let upload = store.begin_upload(&key).await.unwrap();
    upload.put_part(1, Part::Bytes("whole".into())).await.unwrap();
    proxy.cut(1, 0);
    // Either answer is right: the object is there, and it is this upload's.
    let (Create::Created | Create::Exists) = upload.finish().await.unwrap();
    assert_eq!(proxy.left(), 0);
    assert_eq!(store.get(&key).await.unwrap().unwrap(), "whole");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn calls_that_can_be_repeated_survive_lost_replies() {
    let (proxy, store) = wired().await;
    let (key, body) = (Key::new("data/x"), pattern(6 << 20));
    proxy.cut(2, 0);
    let upload = store.begin_upload(&key).await.unwrap();
    proxy.cut(2, 0);
    let part = Part::File { file: unlinked(&body), offset: 0, len: 6 << 20 };
    upload.put_part(1, part).await.unwrap();
    assert_eq!(upload.finish().await.unwrap(), Create::Created);
    proxy.cut(2, 0);
    assert_eq!(store.stat(&key).await.unwrap().unwrap().size, 6 << 20);
    proxy.cut(2, 100);
    assert!(store.get(&key).await.unwrap().unwrap() == body);
    proxy.stall(1);
    assert_eq!(store.list("data/", None).await.unwrap().entries.len(), 1);
    proxy.cut(2, 0);
    // The first begin_upload had its reply lost twice: those uploads are open, as scrub will find.
    let open = store.open_uploads("").await.unwrap();
    assert_eq!(open.len(), 2, "{open:?}");
    for upload in &open {
        proxy.cut(1, 0);
        store.abort_upload(upload).await.unwrap();
    }
    proxy.cut(1, 0);
    store.now().await.unwrap();
    proxy.cut(2, 0);
    store.delete(&key).await.unwrap();
    assert!(store.get(&key).await.unwrap().is_none());
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn small_objects_are_read_64_at_a_time() {
    let gate = Gate::before(s3::versitygw().await).await;
    let store = gate.server.store_at(&gate.server.place(), SystemClock::shared());
    let mut keys = Vec::new();
    for n in 0..100 {
        keys.push(created(&store, &format!("small/{n}"), n).await);
    }
    let held = gate.on("GET", "small/", keys.len(), Fate::Held(0));
    let (reader, wanted) = (store.clone(), keys.clone());
    let reading = tokio::spawn(async move { reader.get_all(&wanted).await });
    wait_for("64 are asked for", Duration::from_secs(20), async || held.times_met() >= 64).await;
    for key in &keys {
        // Whatever else was on its way has arrived by the end of this.
        store.stat(key).await.unwrap().unwrap();
    }
    assert_eq!(held.times_met(), 64);
    held.let_go();
    for (n, body) in reading.await.unwrap().into_iter().enumerate() {
        assert_eq!(body.unwrap().unwrap(), pattern(n));
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn open_uploads_are_listed_over_many_pages() {
    let server = s3::versitygw().await;
    let store = server.store();
    let begun = (0..1_010).map(|n| {
        let store = store.clone();
        async move { drop(store.begin_upload(&Key::new(format!("data/{n:04}"))).await.unwrap()) }
    });
    futures_util::stream::iter(begun).buffer_unordered(16).collect::<Vec<()>>().await;
    let mut keys: Vec<_> =
        store.open_uploads("data/").await.unwrap().into_iter().map(|open| open.key).collect();
    keys.sort();
    keys.dedup();
    assert_eq!(keys.len(), 1_010);
}

/// What each call says in a place where nothing is right.
async fn failures(place: &S3Place, access_key: &str, secret_key: &str) -> Vec<Error> {
    let store = S3Store::with_config(place, &config(access_key, secret_key), HurriedClock::shared());
    let key = Key::new("a");
    vec![
        store.create(&key, "x".into()).await.unwrap_err(),
        store.begin_upload(&key).await.err().unwrap(),
        store.get(&key).await.unwrap_err(),
        store.read(&key, 0..1).await.err().unwrap(),
        store.stat(&key).await.unwrap_err(),
        store.list("", None).await.unwrap_err(),
        store.delete(&key).await.unwrap_err(),
        store.open_uploads("").await.unwrap_err(),
    ]
}

fn all_are(kind: Kind, errors: Vec<Error>) {
    for error in errors {
        assert_eq!(error.kind(), kind, "{error:?}");
        assert!(error.hint_text().is_some(), "no hint: {error:?}");
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn wrong_keys_are_denied() {
    let server = s3::versitygw().await;
    all_are(Kind::Denied, failures(&server.place(), &server.access_key, "wrong").await);
    all_are(Kind::Denied, failures(&server.place(), "nobody", "wrong").await);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_missing_bucket_is_not_an_empty_one() {
    let server = s3::versitygw().await;
    let place = S3Place { bucket: "mistyped".to_owned(), ..server.place() };
    all_are(Kind::NotFound, failures(&place, &server.access_key, &server.secret_key).await);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_closed_port_is_unreachable_and_surely_did_nothing() {
    let server = s3::versitygw().await;
    let place = S3Place { endpoint: Some(format!("http://127.0.0.1:{}", free_port())), ..server.place() };
    all_are(Kind::Unreachable, failures(&place, &server.access_key, &server.secret_key).await);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn without_credentials_nothing_is_sent() {
    let server = s3::versitygw().await;
    let keyless = aws_config::SdkConfig::builder()
        .behavior_version(aws_config::BehaviorVersion::latest())
        .region(aws_config::Region::new("us-east-1"))
        .build();
    let store = S3Store::with_config(&server.place(), &keyless, SystemClock::shared());
    let error = store.get(&Key::new("a")).await.unwrap_err();
    assert_eq!(error.kind(), Kind::Denied, "{error:?}");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn places_in_one_bucket_do_not_see_each_other() {
    let server = s3::versitygw().await;
    let place = server.place();
    let longer = S3Place { prefix: format!("{}-b", place.prefix), ..place.clone() };
    let (a, b) =
        (server.store_at(&place, SystemClock::shared()), server.store_at(&longer, SystemClock::shared()));
    created(&a, "x", 1).await;
    created(&b, "y", 1).await;
    let keys = async |store: &Arc<dyn Store>| {
        let page = store.list("", None).await.unwrap();
        page.entries.iter().map(|entry| entry.key.to_string()).collect::<Vec<_>>()
    };
    assert_eq!((keys(&a).await, keys(&b).await), (vec!["x".to_owned()], vec!["y".to_owned()]));
}
