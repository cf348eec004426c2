//! The promises about uploads, in sequence.

use std::io::Write;
use std::sync::Arc;

use bytes::Bytes;
use futures_util::FutureExt;
use futures_util::future::join_all;
use tidekeeper::vault::store::{Create, Part, part_offset, part_size};

use super::cases::{pattern, put, read};
use super::suite::{Case, Stage};

/// The least that S3 takes for a part that is not the last.
const PART: usize = 5 << 20;

pub fn all() -> Vec<Case> {
    vec![
        Case {
            promise: "an upload is visible when finished, not before",
            test: |stage| visible(stage).boxed(),
        },
        Case { promise: "an upload without parts is an empty object", test: |stage| no_parts(stage).boxed() },
        Case { promise: "an upload never replaces an object", test: |stage| never_replaces(stage).boxed() },
        Case { promise: "finishing twice changes nothing", test: |stage| finished_twice(stage).boxed() },
        Case { promise: "aborting twice changes nothing", test: |stage| aborted_twice(stage).boxed() },
        Case {
            promise: "parts may come at once and in any order",
            test: |stage| parallel_parts(stage).boxed(),
        },
        Case { promise: "parts may have any sizes", test: |stage| any_sizes(stage).boxed() },
        Case { promise: "a repeated part replaces", test: |stage| repeated_part(stage).boxed() },
        Case {
            promise: "a part may be a section of an unlinked file",
            test: |stage| from_file(stage).boxed(),
        },
        Case { promise: "an aborted upload leaves nothing", test: |stage| aborted(stage).boxed() },
        Case { promise: "open uploads are listed, and can be ended", test: |stage| abandoned(stage).boxed() },
        Case { promise: "open uploads tell their age", test: |stage| open_age(stage).boxed() },
        Case { promise: "64 MiB in scheduled parts come back", test: |stage| big(stage).boxed() },
    ]
}

async fn open_uploads(stage: &Stage, prefix: &str) -> Vec<String> {
    let open = stage.store.open_uploads(&format!("{}{prefix}", stage.room)).await.unwrap();
    open.iter().map(|upload| upload.key.as_str()[stage.room.len()..].to_owned()).collect()
}

async fn visible(stage: Stage) {
    let (key, body) = (stage.key("up"), pattern(PART + 1_000));
    let upload = stage.store.begin_upload(&key).await.unwrap();
    upload.put_part(1, Part::Bytes(body.slice(..PART))).await.unwrap();
    upload.put_part(2, Part::Bytes(body.slice(PART..))).await.unwrap();
    assert!(stage.store.get(&key).await.unwrap().is_none());
    assert!(stage.store.stat(&key).await.unwrap().is_none());
    assert_eq!(stage.listed("").await, Vec::<String>::new());
    assert_eq!(upload.finish().await.unwrap(), Create::Created);
    assert_eq!(stage.listed("").await, ["up"]);
    assert!(read(&*stage.store, &key, 0..body.len() as u64).await.unwrap() == body);
}

async fn no_parts(stage: Stage) {
    let key = stage.key("empty");
    let upload = stage.store.begin_upload(&key).await.unwrap();
    assert_eq!(upload.finish().await.unwrap(), Create::Created);
    assert_eq!(stage.store.stat(&key).await.unwrap().unwrap().size, 0);
}

async fn never_replaces(stage: Stage) {
    let key = put(&stage, "taken", "first".into()).await;
    let upload = stage.store.begin_upload(&key).await.unwrap();
    upload.put_part(1, Part::Bytes("second".into())).await.unwrap();
    assert_eq!(upload.finish().await.unwrap(), Create::Exists);
    assert_eq!(stage.store.get(&key).await.unwrap().unwrap(), "first");
}

async fn finished_twice(stage: Stage) {
    let key = stage.key("twice");
    let upload = stage.store.begin_upload(&key).await.unwrap();
    upload.put_part(1, Part::Bytes("x".into())).await.unwrap();
    assert_eq!(upload.finish().await.unwrap(), Create::Created);
    let (Create::Created | Create::Exists) = upload.finish().await.unwrap();
    assert_eq!(stage.store.get(&key).await.unwrap().unwrap(), "x");
}

async fn aborted_twice(stage: Stage) {
    let (finished, aborted) = (stage.key("finished"), stage.key("aborted"));
    let upload = stage.store.begin_upload(&finished).await.unwrap();
    upload.put_part(1, Part::Bytes("x".into())).await.unwrap();
    assert_eq!(upload.finish().await.unwrap(), Create::Created);
    upload.abort().await.unwrap();
    let upload = stage.store.begin_upload(&aborted).await.unwrap();
    upload.abort().await.unwrap();
    upload.abort().await.unwrap();
    assert_eq!(stage.listed("").await, ["finished"]);
}

async fn parallel_parts(stage: Stage) {
    let (key, body) = (stage.key("parallel"), pattern(3 * PART + 77));
    let upload = stage.store.begin_upload(&key).await.unwrap();
    let parts = [3, 1, 4, 2].map(|number: usize| {
        let bytes = body.slice((number - 1) * PART..body.len().min(number * PART));
        upload.put_part(number as u32, Part::Bytes(bytes))
    });
    assert!(join_all(parts).await.iter().all(Result::is_ok));
    assert_eq!(upload.finish().await.unwrap(), Create::Created);
    assert!(read(&*stage.store, &key, 0..body.len() as u64).await.unwrap() == body);
}

async fn any_sizes(stage: Stage) {
    let sizes = [PART, part_size(2) as usize + PART, part_size(3) as usize, PART + 1, 3];
    let (key, body) = (stage.key("sizes"), pattern(sizes.iter().sum()));
    let upload = stage.store.begin_upload(&key).await.unwrap();
    let mut rest = body.clone();
    for (number, size) in (1..).zip(sizes) {
        upload.put_part(number, Part::Bytes(rest.split_to(size))).await.unwrap();
    }
    assert_eq!(upload.finish().await.unwrap(), Create::Created);
    assert!(read(&*stage.store, &key, 0..body.len() as u64).await.unwrap() == body);
}

async fn repeated_part(stage: Stage) {
    let (key, body) = (stage.key("repeated"), pattern(PART + 10));
    let upload = stage.store.begin_upload(&key).await.unwrap();
    upload.put_part(2, Part::Bytes(Bytes::from(vec![7; PART]))).await.unwrap();
    upload.put_part(1, Part::Bytes(Bytes::from(vec![9; 9 << 20]))).await.unwrap();
    upload.put_part(1, Part::Bytes(body.slice(..PART))).await.unwrap();
    upload.put_part(2, Part::Bytes(body.slice(PART..))).await.unwrap();
    assert_eq!(upload.finish().await.unwrap(), Create::Created);
    let size = stage.store.stat(&key).await.unwrap().unwrap().size;
    assert_eq!(size, body.len() as u64);
    assert!(read(&*stage.store, &key, 0..size).await.unwrap() == body);
}

/// A file that has no name any more, as the spool's.
pub fn unlinked(body: &[u8]) -> Arc<std::fs::File> {
    let mut file = tempfile::tempfile().expect("a temporary file");
    file.write_all(body).expect("room on the disk");
    Arc::new(file)
}

async fn from_file(stage: Stage) {
    let (key, body) = (stage.key("spooled"), pattern(2 * PART + 500));
    let file = unlinked(&body);
    let upload = stage.store.begin_upload(&key).await.unwrap();
    let section =
        |offset: usize, len: usize| Part::File { file: file.clone(), offset: offset as u64, len: len as u64 };
    let (second, first) = tokio::join!(
        upload.put_part(2, section(100 + PART, PART + 300)),
        upload.put_part(1, section(100, PART)),
    );
    first.and(second).unwrap();
    assert_eq!(upload.finish().await.unwrap(), Create::Created);
    let expected = body.slice(100..2 * PART + 400);
    assert!(read(&*stage.store, &key, 0..expected.len() as u64).await.unwrap() == expected);

    let upload = stage.store.begin_upload(&stage.key("too-long")).await.unwrap();
    assert!(
        upload.put_part(1, section(body.len() - 10, 11)).await.is_err(),
        "the file ends before the section"
    );
    upload.abort().await.unwrap();
}

async fn aborted(stage: Stage) {
    let upload = stage.store.begin_upload(&stage.key("aborted")).await.unwrap();
    upload.put_part(1, Part::Bytes(pattern(PART))).await.unwrap();
    upload.abort().await.unwrap();
    assert!(upload.put_part(2, Part::Bytes("late".into())).await.is_err());
    assert!(upload.finish().await.is_err(), "an aborted upload cannot be finished");
    assert_eq!(stage.listed("").await, Vec::<String>::new());
}

async fn abandoned(stage: Stage) {
    let taken = put(&stage, "ended/lost", "x".into()).await;
    for (key, ends_by) in [(&taken, "losing"), (&stage.key("ended/won"), "winning")] {
        let upload = stage.store.begin_upload(key).await.unwrap();
        upload.put_part(1, Part::Bytes("x".into())).await.unwrap();
        upload.finish().await.map(drop).unwrap();
        assert_eq!(open_uploads(&stage, "").await, Vec::<String>::new(), "an upload that ended by {ends_by}");
    }
    let upload = stage.store.begin_upload(&stage.key("ended/aborted")).await.unwrap();
    upload.abort().await.unwrap();
    assert!(upload.put_part(1, Part::Bytes("late".into())).await.is_err());
    assert_eq!(open_uploads(&stage, "").await, Vec::<String>::new(), "an upload that ended by being aborted");
    for name in ["left/behind", "other/one"] {
        let upload = stage.store.begin_upload(&stage.key(name)).await.unwrap();
        upload.put_part(1, Part::Bytes(pattern(PART))).await.unwrap();
    }
    assert_eq!(stage.listed("").await, ["ended/lost", "ended/won"]);
    assert_eq!(open_uploads(&stage, "").await, ["left/behind", "other/one"]);
    assert_eq!(open_uploads(&stage, "left/").await, ["left/behind"]);
    let open = stage.store.open_uploads(&stage.room).await.unwrap();
    for _ in 0..2 {
        stage.store.abort_upload(&open[0]).await.unwrap();
        assert_eq!(open_uploads(&stage, "").await, ["other/one"]);
    }
    stage.store.abort_upload(&open[1]).await.unwrap();
}

async fn open_age(stage: Stage) {
    let before = stage.store.now().await.unwrap();
    drop(stage.store.begin_upload(&stage.key("aging")).await.unwrap());
    let open = stage.store.open_uploads(&stage.room).await.unwrap().remove(0);
    let age = before.duration_until(open.started).as_secs();
    assert!((-2..60).contains(&age), "begun {age} s after it was begun");
    stage.store.abort_upload(&open).await.unwrap();
}

async fn big(stage: Stage) {
    let (key, body) = (stage.key("big"), pattern(64 << 20));
    let file = unlinked(&body);
    let upload = stage.store.begin_upload(&key).await.unwrap();
    let parts = (1..=8).map(|number| {
        let part = Part::File { file: file.clone(), offset: part_offset(number), len: part_size(number) };
        upload.put_part(number, part)
    });
    assert!(join_all(parts).await.iter().all(Result::is_ok));
    assert_eq!(upload.finish().await.unwrap(), Create::Created);
    assert_eq!(stage.store.stat(&key).await.unwrap().unwrap().size, 64 << 20);
    assert!(read(&*stage.store, &key, 0..64 << 20).await.unwrap() == body);
}
