use std::collections::BTreeSet;
use std::io::Write;
use std::process::{Command, Stdio};
use std::sync::atomic::{AtomicU32, Ordering};
use std::time::Duration;

use bytes::Bytes;
use jiff::Timestamp;
use proptest::prelude::*;
use tidekeeper::clock::{Clock, TestClock};
use tidekeeper::error::{Error, Kind, Result};
use tidekeeper::vault::codec::name::object_name;
use tidekeeper::vault::codec::pack::Packer;
use tidekeeper::vault::codec::parts::{Cutter, PART_MIN};
use tidekeeper::vault::codec::{BLOCK, TRIES, persist};
use tidekeeper::vault::manifest::Codec;
use tidekeeper::vault::store::Key;

use super::scene::{Scene, noise, text};

#[test]
fn names_stay_readable() {
    let zst = |name| object_name(name, &[Codec::Zstd]);
    assert_eq!(zst("dump.rdb"), "dump.rdb.zst");
    assert_eq!(zst("shop/users.bson"), "shop/users.bson.zst");
    assert_eq!(
        object_name("apps.v1.deployments.json", &[Codec::Zstd, Codec::Age]),
        "apps.v1.deployments.json.zst.age"
    );
    assert_eq!(zst("Shop/Users.bson"), "=53hop/=55sers.bson.zst");
    assert_eq!(zst("../a b/"), "=2e=2e/a=20b/=.zst");
    assert_eq!(zst("größe"), "gr=c3=b6=c3=9fe.zst");
    let long = zst(&"x".repeat(121));
    assert_eq!(long.len(), 120 + 4, "{long}");
    assert!(long.starts_with("xxxx"), "{long}");
}

proptest! {
    /// Different names get different objects, also where case is folded and where folders are folders.
    #[test]
    fn names_never_meet(names in prop::collection::btree_set("[aA./=é \\\\-]{0,6}|[b/]{118,125}", 1..40)) {
        let object = |name: &String| object_name(name, &[Codec::Zstd]).to_lowercase();
        let objects: BTreeSet<String> = names.iter().map(object).collect();
        prop_assert_eq!(objects.len(), names.len());
        for object in &objects {
            prop_assert!(Key::is_valid(object), "{}", object);
            prop_assert!(object.len() <= 124, "{}", object);
            let below = format!("{object}/");
            prop_assert!(!objects.iter().any(|other| other.starts_with(&below)), "{} is a folder too", object);
        }
    }

    /// Whatever comes at a time: sections follow each other, are long enough for S3, and end where the object does.
    #[test]
    fn sections_cover_an_object(
        growth in prop::collection::vec(1..3_000_000_u64, 1..200),
        early in any::<u64>(),
    ) {
        let mut cutter = Cutter::default();
        let mut sections = Vec::new();
        for (n, bytes) in growth.iter().enumerate() {
            if early >> (n % 64) & 1 == 1 {
                sections.extend(cutter.early());
            }
            cutter.grow(*bytes);
            while let Some(section) = cutter.full() {
                sections.push(section);
            }
        }
        prop_assert_eq!(cutter.is_whole(), sections.is_empty());
        let all_but_last = sections.len();
        sections.extend(cutter.rest());
        let mut from = 0;
        for (section, number) in sections.iter().zip(1..) {
            prop_assert_eq!((section.number, section.from), (number, from));
            from = section.to;
        }
        prop_assert_eq!(from, growth.iter().sum::<u64>());
        prop_assert!(sections[..all_but_last].iter().all(|part| part.to - part.from >= PART_MIN));
    }
}

#[test]
fn a_frame_that_decodes_to_something_else_is_noticed() {
    let mut packer = Packer::new().expect("a packer");
    let plain = text(BLOCK);
    let mut frame = Vec::new();
    packer.pack(&plain, &mut frame).expect("packed");
    packer.check(&plain, &frame).expect("it is what it was");

    let mut other = plain.to_vec();
    other[BLOCK / 2] ^= 1;
    let refused = |plain: &[u8], frame: &[u8]| {
        let error = Packer::new().and_then(|mut packer| packer.check(plain, frame)).expect_err("refused");
        assert_eq!(error.kind(), Kind::Internal);
        assert!(!error.is_retryable());
    };
    refused(&other, &frame);
    refused(&plain[..BLOCK - 1], &frame);
    refused(&plain, &frame[..frame.len() - 1]);
    for at in [0, frame.len() / 2, frame.len() - 1] {
        let mut flipped = frame.clone();
        flipped[at] ^= 0x10;
        refused(&plain, &flipped);
    }
}

fn clock() -> std::sync::Arc<TestClock> {
    TestClock::starting_at(Timestamp::UNIX_EPOCH)
}

fn failing(kind: Kind) -> Error {
    Error::new(kind, "calling", "planned")
}

#[tokio::test(start_paused = true)]
async fn what_may_help_is_tried_again_and_then_passed_on() {
    let (clock, calls) = (clock(), AtomicU32::new(0));
    let call = || async {
        match calls.fetch_add(1, Ordering::SeqCst) {
            0..3 => Err(failing(Kind::Throttled)),
            n => Ok(n),
        }
    };
    assert_eq!(persist(&*clock, Duration::from_secs(1), call).await.expect("in the end"), 3);

    let calls = AtomicU32::new(0);
    let call = || async {
        calls.fetch_add(1, Ordering::SeqCst);
        Err::<(), _>(failing(Kind::Unreachable))
    };
    let error = persist(&*clock, Duration::from_secs(1), call).await.expect_err("never");
    assert_eq!((error.kind(), calls.into_inner()), (Kind::Unreachable, TRIES));
}

#[tokio::test(start_paused = true)]
async fn what_cannot_help_is_not_tried_again() {
    let (clock, calls) = (clock(), AtomicU32::new(0));
    let call = || async {
        calls.fetch_add(1, Ordering::SeqCst);
        Err::<(), _>(failing(Kind::Denied))
    };
    persist(&*clock, Duration::from_secs(1), call).await.expect_err("denied");
    assert_eq!((calls.into_inner(), clock.monotonic()), (1, Duration::ZERO));
}

#[tokio::test(start_paused = true)]
async fn a_call_that_never_answers_does_not_hang_us() {
    let clock = clock();
    let never = || std::future::pending::<Result<()>>();
    let error = persist(&*clock, Duration::from_secs(7), never).await.expect_err("no answer");
    assert_eq!(error.kind(), Kind::Timeout);
    assert!(clock.monotonic() >= TRIES * Duration::from_secs(7));
}

/// What a stock tool makes of `input`.
fn pipe(tool: &str, arguments: &[&str], install: &str, input: Bytes) -> Vec<u8> {
    let mut child = Command::new(tool)
        .args(arguments)
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .spawn()
        .unwrap_or_else(|error| panic!("{tool}: {error}; install it: {install}"));
    let mut stdin = child.stdin.take().expect("a pipe");
    let feeding = std::thread::spawn(move || stdin.write_all(&input));
    let output = child.wait_with_output().expect("an end");
    feeding.join().expect("no panic").expect("taken");
    assert!(output.status.success(), "{tool} failed");
    output.stdout
}

#[tokio::test]
async fn stock_zstd_reads_an_artifact() {
    let scene = Scene::new();
    for plain in [Bytes::new(), text(3 * BLOCK + 5), noise(1, 2 * BLOCK)] {
        let manifest = scene.write(&[("dump.rdb", plain.clone())]).await;
        let stored = scene.stored(&manifest.artifacts[0].key).await;
        assert_eq!(pipe("zstd", &["-d", "-c"], "apt-get install zstd", stored), plain);
    }
}

#[tokio::test]
async fn stock_age_and_zstd_read_an_encrypted_artifact() {
    let scene = Scene::new().encrypted();
    let key = scene.dir.path().join("age.key");
    let plain = text(3 * BLOCK + 5);
    let manifest = scene.write(&[("dump.rdb", plain.clone())]).await;
    let dump = manifest.artifacts.iter().find(|artifact| artifact.name == "dump.rdb").expect("the dump");
    let stored = scene.stored(&dump.key).await;
    let opened = pipe("age", &["-d", "-i", key.to_str().expect("text")], "apt-get install age", stored);
    assert_eq!(pipe("zstd", &["-d", "-c"], "apt-get install zstd", opened.into()), plain);
}
