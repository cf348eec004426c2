//! Places as people type them, and vaults that are there, are not there, or are too new.

use std::path::PathBuf;

use tidekeeper::clock::SystemClock;
use tidekeeper::config::{Place, S3Place};
use tidekeeper::error::Kind;
use tidekeeper::vault::place::{Init, Intent, init, open, open_store, parse};
use tidekeeper::vault::store::memory::MemoryStore;
use tidekeeper::vault::store::{Create, Key, Store};

#[test]
fn a_path_is_a_directory() {
    let fs = |path: &str, single_host| Place::Fs { path: PathBuf::from(path), single_host };
    assert_eq!(parse("./vault").unwrap(), fs("./vault", false));
    assert_eq!(parse("s3/vault").unwrap(), fs("s3/vault", false));
    assert_eq!(parse("/srv/my vault").unwrap(), fs("/srv/my vault", false));
    assert_eq!(parse("file:///srv/my%20vault?single_host=true").unwrap(), fs("/srv/my vault", true));
}

#[test]
fn an_s3_url_names_bucket_prefix_and_options() {
    let plain = S3Place { bucket: "backups".into(), ..S3Place::default() };
    assert_eq!(parse("s3://backups").unwrap(), Place::S3(plain.clone()));
    assert_eq!(parse("s3://backups/").unwrap(), Place::S3(plain));
    let full = S3Place {
        bucket: "My.Backups".into(),
        prefix: "team/prod".into(),
        region: Some("eu-central-1".into()),
        endpoint: Some("http://127.0.0.1:9000".into()),
        path_style: true,
        kms_key: Some("alias/backups".into()),
        object_lock: None,
    };
    let url = "s3://My.Backups/team/prod/?region=eu-central-1&endpoint=http://127.0.0.1:9000&path_style=true\
               &kms_key=alias%2Fbackups";
    assert_eq!(parse(url).unwrap(), Place::S3(full));
}

#[test]
fn a_mistyped_place_is_a_usage_error_that_says_why() {
    for (text, why) in [
        ("", "it is empty"),
        ("s3://", "it names no bucket"),
        ("s3:/bucket", "a directory of that name is ./s3:/bucket"),
        ("S3//bucket/prefix", "it is nearly a URL"),
        ("file:/vault", "it is nearly a URL"),
        ("http://bucket/prefix", "http:// is no kind of vault"),
        ("s3://b/p?regoin=x", "did you mean \"region\""),
        ("s3://b/p?path_style=maybe", "path_style is true or false"),
        ("s3://b/p?region=a&region=b", "region is given twice"),
        ("s3://key:secret@b/p", "credentials"),
        ("s3://b/a//b", "a prefix consists of"),
        ("s3://b:9000/p", "a port belongs to the endpoint"),
        ("file:///v?single_hots=true", "did you mean \"single_host\""),
    ] {
        let error = parse(text).expect_err(text);
        assert_eq!(error.kind(), Kind::Usage, "{text}");
        assert!(error.why().contains(why), "{text}: {error:?}");
        assert!(error.hint_text().is_some());
    }
}

#[tokio::test]
async fn only_init_makes_a_vault_and_a_second_init_says_that_it_is_there() {
    let folder = tempfile::tempdir().expect("a temporary folder");
    let place = Place::Fs { path: folder.path().join("vault"), single_host: false };
    let clock = SystemClock::shared();
    let store = open_store(&place, clock.clone()).await.unwrap();
    for intent in [Intent::Read, Intent::Write, Intent::Delete] {
        let error = open(&*store, intent).await.unwrap_err();
        assert_eq!(error.kind(), Kind::NotFound, "{error:?}");
        assert!(error.hint_text().is_some_and(|hint| hint.contains("tidekeeper init")), "{error:?}");
    }
    assert!(!folder.path().join("vault").exists());
    assert_eq!(init(&*store, &*clock).await.unwrap(), Init::Created);
    let format = open(&*store, Intent::Delete).await.unwrap();
    assert_eq!(init(&*store, &*clock).await.unwrap(), Init::AlreadyThere(format.created_at));
}

#[tokio::test]
async fn an_empty_prefix_holds_no_vault() {
    let store = MemoryStore::new(SystemClock::shared());
    let error = open(&store, Intent::Read).await.unwrap_err();
    assert_eq!(error.kind(), Kind::NotFound);
    assert!(error.hint_text().is_some_and(|hint| hint.contains("tidekeeper init")));
}

#[tokio::test]
async fn a_newer_format_refuses_what_this_build_cannot_do_by_name() {
    let clock = SystemClock::shared();
    let store = MemoryStore::new(clock.clone());
    assert_eq!(init(&store, &*clock).await.unwrap(), Init::Created);
    let newer = r#"{"min_reader": 1, "min_writer": 1, "min_deleter": 2, "created_at": "2030-01-01T00:00:00Z",
        "nonce": "n", "a field of the future": true}"#;
    assert_eq!(store.create(&Key::new("format/2.json"), newer.into()).await.unwrap(), Create::Created);
    open(&store, Intent::Read).await.unwrap();
    open(&store, Intent::Write).await.unwrap();
    let error = open(&store, Intent::Delete).await.unwrap_err();
    assert_eq!(error.kind(), Kind::Unsupported);
    assert_eq!(
        error.why(),
        "format/2.json wants format 2 for deleting from it; this tidekeeper knows format 1"
    );
}

#[tokio::test]
async fn an_unreadable_format_is_damage_and_not_an_empty_place() {
    let store = MemoryStore::new(SystemClock::shared());
    assert_eq!(store.create(&Key::new("format/1.json"), "{".into()).await.unwrap(), Create::Created);
    assert_eq!(open(&store, Intent::Read).await.unwrap_err().kind(), Kind::Damaged);
}
