//! Files as mongodump lays them out, and mongorestore on both formats.

use std::path::{Path, PathBuf};
use std::process::Stdio;
use std::time::Duration;

use bytes::Bytes;
use futures_util::TryStreamExt;
use mongodb::bson::{Document, doc, rawdoc};
use serde_json::{Map, Value, json};
use tidekeeper::error::{Kind, Result};
use tidekeeper::source::mongodb::MongoDb;
use tidekeeper::source::mongodb::extract::{FORMATS, extract};
use tidekeeper::source::mongodb::namespace::file_name;
use tidekeeper::source::{Extracted, Kind as _, Outlet};
use tidekeeper::vault::manifest::{Contents, Status};
use tidekeeper::vault::reader::BackupReader;
use tidekeeper::vault::writer::{BackupWriter, Capture};

use crate::harness::mongodb::MongoServer;
use crate::harness::within;
use crate::vault::scene::{Scene, write_artifact};

/// A backup of these artifacts, with these facts.
pub async fn backup(scene: &Scene, artifacts: &[(&str, &[u8])], facts: Value) -> BackupReader {
    let backup = scene.backup();
    let writer = BackupWriter::new(&scene.vault, backup.clone(), "mongodb", &scene.task, scene.clock.now());
    for (name, plain) in artifacts {
        write_artifact(&writer, name, Bytes::copy_from_slice(plain)).await.expect("written");
    }
    let Value::Object(facts) = facts else { panic!("facts are an object") };
    let details = Map::from_iter([("secret".to_owned(), json!("of the vault"))]);
    let capture =
        Capture { contents: Contents { facts, ..Contents::default() }, details, ..Capture::default() };
    writer.commit(capture, Status::Complete, None).await.expect("committed");
    BackupReader::open_backup(&scene.vault, &backup).await.expect("opened")
}

/// What mongodump writes beside a collection that has the index which all have.
pub fn metadata(collection: &str, kind: &str) -> Vec<u8> {
    let index = json!({"v": {"$numberInt": "2"}, "key": {"_id": {"$numberInt": "1"}}, "name": "_id_"});
    json!({"indexes": [index], "collectionName": collection, "type": kind}).to_string().into_bytes()
}

async fn into(scene: &Scene, from: &BackupReader, folder: &Path) -> Result<Vec<Extracted>> {
    extract(from, &FORMATS[0], Outlet::Directory(folder), &scene.task).await
}

#[tokio::test]
async fn a_directory_has_every_file_under_its_name_and_nothing_of_the_vault() {
    let scene = Scene::new().encrypted();
    let long = format!("shop/{}.bson", file_name(&"long+".repeat(50)));
    let artifacts: &[(&str, &[u8])] = &[
        ("admin/system.users.bson", b"users"),
        ("prelude.json", br#"{"ServerVersion":"7.0.12","ToolVersion":"x"}"#),
        ("shop/a+b%25c.bson", b""),
        ("shop/a+b%25c.metadata.json", b"{}"),
        (&long, b"long"),
    ];
    let from = backup(&scene, artifacts, json!({"consistency": "snapshot"})).await;
    let folder = tempfile::tempdir().expect("a folder");
    let extracted = into(&scene, &from, folder.path()).await.expect("it is written");
    for (name, plain) in artifacts {
        assert_eq!(std::fs::read(folder.path().join(name)).expect("it is there"), *plain, "{name}");
        let told = extracted.iter().find(|file| file.path == *name).expect("it is told");
        assert_eq!(told.bytes, plain.len() as u64);
    }
    assert_eq!(extracted.len(), artifacts.len());
    assert!(!folder.path().join("details.json").exists());
    let of_long = extracted.iter().find(|file| file.path == long).expect("it is told");
    assert!(of_long.usage.contains("mongodump-archive"), "{}", of_long.usage);
    let last = &extracted.last().expect("files").usage;
    assert!(last.contains("`mongorestore --dir ") && !last.contains("--oplogReplay"), "{last}");
    let again = into(&scene, &from, folder.path()).await.expect_err("it is there already");
    assert_eq!(again.kind(), Kind::Conflict);
}

#[tokio::test]
async fn the_oplog_is_to_be_replayed_where_the_dump_is_fuzzy() {
    let scene = Scene::new();
    for (consistency, replay) in [("fuzzy", true), ("snapshot", false)] {
        let from = backup(&scene, &[("oplog.bson", b"")], json!({"consistency": consistency})).await;
        let folder = tempfile::tempdir().expect("a folder");
        let extracted = into(&scene, &from, folder.path()).await.expect("it is written");
        assert_eq!(extracted[0].usage.contains(" --oplogReplay` restores"), replay, "{}", extracted[0].usage);
        assert!(extracted[0].usage.contains("oplog"), "{}", extracted[0].usage);
    }
}

#[tokio::test]
async fn names_that_lead_out_or_fit_no_file_are_refused() {
    let scene = Scene::new();
    let mut from = backup(&scene, &[("a/c.bson", b"")], json!({})).await;
    let folder = tempfile::tempdir().expect("a folder");
    let position = from.manifest.artifacts.iter().position(|artifact| artifact.name == "a/c.bson");
    let position = position.expect("it is there");
    for (name, kind) in [("../c.bson", Kind::Damaged), ("/tmp/c.bson", Kind::Damaged)] {
        from.manifest.artifacts[position].name = name.to_owned();
        let error = into(&scene, &from, folder.path()).await.expect_err("it leads out");
        assert_eq!(error.kind(), kind, "{name}");
    }
    let long = "x".repeat(300);
    from.manifest.artifacts[position].name = format!("a/{long}.bson");
    let error = into(&scene, &from, folder.path()).await.expect_err("no file is called that");
    assert!(error.to_string().contains(&long), "{error}");
    assert!(error.hint_text().is_some_and(|hint| hint.contains("file system")), "{error:?}");
}

#[tokio::test]
async fn a_format_goes_where_it_fits() {
    let scene = Scene::new();
    let from = backup(&scene, &[], json!({"server_version": "7.0.12"})).await;
    let folder = tempfile::tempdir().expect("a folder");
    let [directory, stream] = MongoDb.formats() else { panic!("two formats") };
    assert_eq!((directory.is_stream, stream.is_stream), (false, true));
    let error = extract(&from, directory, Outlet::Stream(&mut Vec::new()), &scene.task).await;
    assert_eq!(error.expect_err("files are no stream").kind(), Kind::Internal);
    let error = extract(&from, stream, Outlet::Directory(folder.path()), &scene.task).await;
    assert_eq!(error.expect_err("a stream is no file").kind(), Kind::Internal);
}

/// mongorestore, if it is on the machine.
fn mongorestore() -> Option<PathBuf> {
    let named = std::env::var_os("TIDEKEEPER_TEST_MONGORESTORE").map(PathBuf::from);
    let path = std::env::var_os("PATH").unwrap_or_default();
    let found =
        || std::env::split_paths(&path).map(|folder| folder.join("mongorestore")).find(|file| file.is_file());
    let program = named.or_else(found);
    if program.is_none() {
        eprintln!("SKIPPED: mongorestore is not on this machine; name it in TIDEKEEPER_TEST_MONGORESTORE");
    }
    program
}

/// What it said, and whether it ended well.
async fn run(program: &Path, server: &MongoServer, args: &[&str], input: Stdio) -> (String, bool) {
    let mut command = tokio::process::Command::new(program);
    command.args(["--uri", &server.uri()]).args(args).stdin(input).kill_on_drop(true);
    let output =
        within("mongorestore ends", Duration::from_secs(120), command.output()).await.expect("it runs");
    (String::from_utf8_lossy(&output.stderr).into_owned(), output.status.success())
}

/// Restores, and expects all of it to arrive.
async fn restore(program: &Path, args: &[&str], input: Stdio) -> MongoServer {
    let server = MongoServer::start(&[]).await;
    let (said, is_good) = run(program, &server, args, input).await;
    assert!(is_good && said.contains(" 0 document(s) failed to restore"), "{said}");
    server
}

async fn backup_of(scene: &Scene, long: &str) -> BackupReader {
    let files = dump(long);
    let artifacts: Vec<(&str, &[u8])> = files.iter().map(|(name, bytes)| (&**name, &**bytes)).collect();
    backup(scene, &artifacts, json!({"server_version": "8.2.11", "consistency": "snapshot"})).await
}

/// Collections of every sort that the test server knows; each has its name, its options, and how many documents.
const COLLECTIONS: [(&str, i32); 5] =
    [("items", 3000), ("empty", 0), ("a b%c", 3), ("x/y", 2), ("dot.ted", 1)];

fn dump(long: &str) -> Vec<(String, Vec<u8>)> {
    let mut files = vec![(
        "prelude.json".to_owned(),
        br#"{"ServerVersion":"8.2.11","ToolVersion":"tidekeeper"}"#.to_vec(),
    )];
    for (collection, count) in COLLECTIONS.into_iter().chain([(long, 2)]) {
        let stem = format!("shop/{}", file_name(collection));
        let documents = (0..count).flat_map(|n| rawdoc! { "_id": n, "of": collection }.into_bytes());
        files.push((format!("{stem}.bson"), documents.collect()));
        files.push((format!("{stem}.metadata.json"), described(collection)));
    }
    let view = json!({
        "options": {"viewOn": "items", "pipeline": [{"$match": {"_id": {"$lt": {"$numberInt": "5"}}}}]},
        "indexes": [], "collectionName": "few", "type": "view",
    });
    files.push(("shop/few.metadata.json".to_owned(), view.to_string().into_bytes()));
    files.push(("oplog.bson".to_owned(), rawdoc! { "op": "n", "ns": "", "o": { "msg": "x" } }.into_bytes()));
    files
}

fn described(collection: &str) -> Vec<u8> {
    let one = json!({"$numberInt": "1"});
    let indexes = json!([
        {"v": {"$numberInt": "2"}, "key": {"_id": one}, "name": "_id_"},
        {"v": {"$numberInt": "2"}, "key": {"of": one, "_id": one}, "name": "by", "unique": true},
    ]);
    json!({"indexes": indexes, "collectionName": collection, "type": "collection"}).to_string().into_bytes()
}

async fn judge(server: &MongoServer, long: &str) {
    let shop = server.client().await.database("shop");
    let mut names = shop.list_collection_names().await.expect("they are listed");
    names.sort();
    let mut expected = vec!["a b%c", long, "dot.ted", "empty", "few", "items", "x/y"];
    expected.sort_unstable();
    assert_eq!(names, expected);
    for (name, count) in COLLECTIONS.into_iter().chain([(long, 2)]) {
        let collection = shop.collection::<Document>(name);
        let found = collection.find(doc! {}).sort(doc! { "_id": 1 }).await.expect("it is read");
        let found: Vec<Document> = found.try_collect().await.expect("it is read");
        let all: Vec<Document> = (0..count).map(|n| doc! { "_id": n, "of": name }).collect();
        assert_eq!(found, all, "{name}");
        let mut indexes = collection.list_index_names().await.expect("they are listed");
        indexes.sort();
        assert_eq!(indexes, ["_id_", "by"], "{name}");
    }
    let few = shop.collection::<Document>("few").find(doc! {}).await.expect("it is read");
    assert_eq!(few.try_collect::<Vec<_>>().await.expect("it is read").len(), 5);
}

#[tokio::test]
async fn mongorestore_reads_a_directory() {
    let Some(program) = mongorestore() else { return };
    let scene = Scene::new();
    let long = "b".repeat(240);
    let folder = tempfile::tempdir().expect("a folder");
    into(&scene, &backup_of(&scene, &long).await, folder.path()).await.expect("it is written");
    let folder = folder.path().to_str().expect("a path");
    judge(&restore(&program, &["--dir", folder], Stdio::null()).await, &long).await;
}

#[tokio::test]
async fn mongorestore_reads_an_archive_and_notices_where_it_breaks_off() {
    let Some(program) = mongorestore() else { return };
    let scene = Scene::new();
    // In a directory it would take this name for another.
    let long = "a+%41".repeat(30);
    let mut bytes = Vec::new();
    let from = backup_of(&scene, &long).await;
    extract(&from, &FORMATS[1], Outlet::Stream(&mut bytes), &scene.task).await.expect("it is written");
    let folder = tempfile::tempdir().expect("a folder");
    let file = |length: usize| {
        let path = folder.path().join(length.to_string());
        std::fs::write(&path, &bytes[..length]).expect("it is written");
        Stdio::from(std::fs::File::open(&path).expect("it is there"))
    };
    let server = restore(&program, &["--archive"], file(bytes.len())).await;
    judge(&server, &long).await;
    for missing in [4, 59, 3000] {
        let (said, is_good) = run(&program, &server, &["--archive"], file(bytes.len() - missing)).await;
        assert!(!is_good, "{missing} bytes are missing, and it said: {said}");
    }
}
