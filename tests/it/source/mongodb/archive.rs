//! The archive, byte for byte as its format is described, and what it refuses to be.

use std::collections::BTreeMap;
use std::time::Duration;

use bytes::Bytes;
use mongodb::bson::spec::BinarySubtype;
use mongodb::bson::{Binary, Document, RawDocumentBuf, doc, rawdoc};
use serde_json::json;
use tidekeeper::error::{Error, Kind, Result};
use tidekeeper::source::mongodb::archive::Crc64;
use tidekeeper::source::mongodb::extract::{FORMATS, extract};
use tidekeeper::source::mongodb::namespace::{Namespace, file_name};
use tidekeeper::source::{Extracted, Outlet};
use tidekeeper::vault::reader::BackupReader;
use tokio::io::AsyncReadExt;

use super::extract::{backup, metadata};
use crate::harness::within;
use crate::vault::scene::{Scene, noise};

/// `{_id: 1}`
const ONE: &[u8] = b"\x0e\0\0\0\x10_id\0\x01\0\0\0\0";

async fn archive(scene: &Scene, from: &BackupReader) -> Result<(Vec<u8>, Vec<Extracted>)> {
    let mut bytes = Vec::new();
    let extracted = extract(from, &FORMATS[1], Outlet::Stream(&mut bytes), &scene.task).await?;
    assert_eq!(extracted[0].bytes, bytes.len() as u64);
    Ok((bytes, extracted))
}

async fn archive_of(artifacts: &[(&str, &[u8])]) -> Result<Vec<u8>> {
    let scene = Scene::new();
    let from = backup(&scene, artifacts, json!({"server_version": "7.0.12"})).await;
    archive(&scene, &from).await.map(|(bytes, _)| bytes)
}

async fn refused(artifacts: &[(&str, &[u8])]) -> Error {
    archive_of(artifacts).await.expect_err("no archive can hold that")
}

#[test]
fn the_sum_has_the_check_values_of_its_format() {
    assert_eq!(Crc64::of(b""), 0);
    assert_eq!(Crc64::of(b"123456789"), 0x995d_c9bb_df19_39fa);
    assert_eq!(Crc64::of(ONE), 0xf3ea_6143_6a44_59fe);
    let mut twice = Crc64::new();
    twice.update(ONE);
    twice.update(ONE);
    assert_eq!(twice.value(), 0xeb26_4484_caa8_4e9f);
}

/// Each line is a thing of the format: a length, a field, a terminator.
const GOLDEN: &[&[u8]] = &[
    b"\x6d\xe2\x99\x81",
    b"\x68\0\0\0",
    b"\x10concurrent_collections\0\x01\0\0\0",
    b"\x02version\0\x04\0\0\x000.1\0",
    b"\x02server_version\0\x07\0\0\x008.2.11\0",
    b"\x02tool_version\0\x09\0\0\x00100.18.0\0",
    b"\0",
    b"\x8b\0\0\0",
    b"\x02db\0\x03\0\0\0b2\0",
    b"\x02collection\0\x04\0\0\0two\0",
    b"\x02metadata\0\x3a\0\0\0{\"indexes\":[],\"collectionName\":\"two\",\"type\":\"collection\"}\0",
    b"\x10size\0\0\0\0\0",
    b"\x02type\0\x0b\0\0\0collection\0",
    b"\0",
    b"\x48\0\0\0",
    b"\x02db\0\x01\0\0\0\0",
    b"\x02collection\0\x06\0\0\0oplog\0",
    b"\x02metadata\0\x01\0\0\0\0",
    b"\x10size\0\0\0\0\0",
    b"\x02type\0\x01\0\0\0\0",
    b"\0",
    b"\xff\xff\xff\xff",
    b"\x37\0\0\0",
    b"\x02db\0\x03\0\0\0b2\0",
    b"\x02collection\0\x04\0\0\0two\0",
    b"\x08EOF\0\0",
    b"\x12CRC\0\0\0\0\0\0\0\0\0",
    b"\0",
    ONE,
    b"\xff\xff\xff\xff",
    b"\x37\0\0\0",
    b"\x02db\0\x03\0\0\0b2\0",
    b"\x02collection\0\x04\0\0\0two\0",
    b"\x08EOF\0\x01",
    b"\x12CRC\0\xfe\x59\x44\x6a\x43\x61\xea\xf3",
    b"\0",
    b"\xff\xff\xff\xff",
    b"\x37\0\0\0",
    b"\x02db\0\x01\0\0\0\0",
    b"\x02collection\0\x06\0\0\0oplog\0",
    b"\x08EOF\0\0",
    b"\x12CRC\0\0\0\0\0\0\0\0\0",
    b"\0",
    ONE,
    ONE,
    b"\xff\xff\xff\xff",
    b"\x37\0\0\0",
    b"\x02db\0\x01\0\0\0\0",
    b"\x02collection\0\x06\0\0\0oplog\0",
    b"\x08EOF\0\x01",
    b"\x12CRC\0\x9f\x4e\xa8\xca\x84\x44\x26\xeb",
    b"\0",
    b"\xff\xff\xff\xff",
];

#[tokio::test]
async fn it_is_as_the_format_says_to_the_byte() {
    let scene = Scene::new();
    let artifacts: &[(&str, &[u8])] = &[
        ("b2/two.bson", ONE),
        ("b2/two.metadata.json", br#"{"indexes":[],"collectionName":"two","type":"collection"}"#),
        ("oplog.bson", &[ONE, ONE].concat()),
        ("prelude.json", br#"{"ServerVersion":"8.2.11","ToolVersion":"100.18.0"}"#),
    ];
    let facts = json!({"server_version": "8.2.11", "consistency": "fuzzy"});
    let mut from = backup(&scene, artifacts, facts).await;
    from.manifest.tool = "100.18.0".to_owned();
    let (bytes, extracted) = archive(&scene, &from).await.expect("it is written");
    assert_eq!(hex::encode(bytes), hex::encode(GOLDEN.concat()));
    assert!(extracted[0].usage.contains("--archive --oplogReplay"), "{}", extracted[0].usage);
}

/// What a reader of archives understands, checked as strictly as mongorestore does.
#[derive(Debug, Default)]
struct Read {
    header: Document,
    announced: Vec<(String, String, String)>,
    /// In the order of their end.
    namespaces: Vec<(String, Bytes)>,
}

fn read(bytes: &[u8]) -> std::result::Result<Read, String> {
    let mut rest = bytes.strip_prefix(b"\x6d\xe2\x99\x81").ok_or("no magic")?;
    let prelude = documents(&mut rest)?;
    let mut read = Read { header: prelude[0].clone(), ..Read::default() };
    for entry in &prelude[1..] {
        let text = |key| entry.get_str(key).expect(key).to_owned();
        assert_eq!(entry.get_i32("size").expect("a size"), 0);
        read.announced.push((
            format!("{}.{}", text("db"), text("collection")),
            text("type"),
            text("metadata"),
        ));
    }
    let mut open: BTreeMap<String, Vec<u8>> = BTreeMap::new();
    while !rest.is_empty() {
        let block = rest;
        let body = documents(&mut rest)?;
        let header = &body[0];
        assert_eq!(header.keys().collect::<Vec<_>>(), ["db", "collection", "EOF", "CRC"]);
        let name = format!(
            "{}.{}",
            header.get_str("db").expect("a db"),
            header.get_str("collection").expect("a collection")
        );
        let crc = header.get_i64("CRC").expect("a sum").cast_unsigned();
        if header.get_bool("EOF").expect("whether it is the last") {
            assert_eq!(body.len(), 1, "no documents in the last block");
            let documents = open.remove(&name).ok_or(format!("{name} ends, and never began"))?;
            assert_eq!(crc, Crc64::of(&documents), "{name}");
            read.namespaces.push((name, documents.into()));
        } else {
            assert!(open.is_empty(), "{name} begins before {open:?} ended");
            let length = u32::from_le_bytes(block[..4].try_into().expect("four bytes")) as usize;
            open.insert(name, block[length..block.len() - rest.len() - 4].to_vec());
        }
    }
    match read.namespaces.len() == read.announced.len() {
        true => Ok(read),
        false => Err("finished before all collections were seen".to_owned()),
    }
}

/// The documents up to the next terminator.
fn documents(rest: &mut &[u8]) -> std::result::Result<Vec<Document>, String> {
    let mut found = Vec::new();
    loop {
        let length = u32::from_le_bytes(*rest.first_chunk().ok_or("cut off")?);
        if length == u32::MAX {
            *rest = &rest[4..];
            return if found.is_empty() { Err("two terminators".to_owned()) } else { Ok(found) };
        }
        let (document, after) = rest.split_at_checked(length as usize).ok_or("cut off")?;
        found.push(Document::from_reader(document).map_err(|cause| cause.to_string())?);
        *rest = after;
    }
}

#[tokio::test]
async fn every_kind_of_namespace_is_in_it_once() {
    let long = "+%".repeat(120);
    let stem = file_name(&long);
    let artifacts = [
        ("a/empty.bson".to_owned(), Vec::new()),
        ("a/empty.metadata.json".to_owned(), metadata("empty", "collection")),
        (format!("a/{stem}.bson"), ONE.to_vec()),
        (format!("a/{stem}.metadata.json"), metadata(&long, "collection")),
        ("a/system.buckets.heat.bson".to_owned(), ONE.to_vec()),
        ("a/heat.metadata.json".to_owned(), metadata("heat", "timeseries")),
        ("a/x%2Fy.bson".to_owned(), ONE.to_vec()),
        ("a/x%2Fy.metadata.json".to_owned(), metadata("x/y", "collection")),
        ("admin/system.roles.bson".to_owned(), Vec::new()),
        ("admin/system.roles.metadata.json".to_owned(), metadata("system.roles", "collection")),
        ("admin/system.users.bson".to_owned(), ONE.to_vec()),
        ("admin/system.version.bson".to_owned(), ONE.to_vec()),
        ("b/v.metadata.json".to_owned(), metadata("v", "view")),
        ("oplog.bson".to_owned(), ONE.to_vec()),
        ("prelude.json".to_owned(), b"{}".to_vec()),
    ];
    let artifacts: Vec<(&str, &[u8])> = artifacts.iter().map(|(name, bytes)| (&**name, &**bytes)).collect();
    let read = read(&archive_of(&artifacts).await.expect("it is written")).expect("it is an archive");
    assert_eq!(read.header.get_i32("concurrent_collections").expect("a number"), 1);
    let long = format!("a.{long}");
    let announced: Vec<_> = read.announced.iter().map(|(name, kind, _)| (&**name, &**kind)).collect();
    assert_eq!(
        announced[..3],
        [("admin.system.roles", "collection"), ("admin.system.users", ""), ("admin.system.version", "")]
    );
    assert_eq!(
        announced[3..],
        [
            (&*long, "collection"),
            ("a.empty", "collection"),
            ("a.heat", "timeseries"),
            ("a.x/y", "collection"),
            ("b.v", "view"),
            (".oplog", "")
        ]
    );
    assert_eq!(read.announced[5].2.as_bytes(), metadata("heat", "timeseries"));
    let one = || Bytes::from_static(ONE);
    let ended = |name: &str, documents: Bytes| (name.to_owned(), documents);
    assert_eq!(
        read.namespaces,
        [
            ended("admin.system.roles", Bytes::new()),
            ended("admin.system.users", one()),
            ended("admin.system.version", one()),
            ended(&long, one()),
            ended("a.empty", Bytes::new()),
            ended("a.system.buckets.heat", one()),
            ended("a.x/y", one()),
            ended("b.v", Bytes::new()),
            ended(".oplog", one()),
        ]
    );
}

#[tokio::test]
async fn documents_pass_whole_wherever_they_are_cut() {
    let documents: Vec<u8> = (0..60_000)
        .flat_map(|n: i32| rawdoc! { "_id": n, "text": "x".repeat(n as usize % 130) }.into_bytes())
        .collect();
    let artifacts = [("a/c.bson", &*documents), ("a/c.metadata.json", &*metadata("c", "collection"))];
    let read = read(&archive_of(&artifacts).await.expect("it is written")).expect("it is an archive");
    assert!(read.namespaces == [("a.c".to_owned(), documents.into())]);
}

#[tokio::test]
async fn an_empty_backup_is_an_archive() {
    let bytes = archive_of(&[("prelude.json", b"{}")]).await.expect("it is written");
    assert_eq!(read(&bytes).expect("it is an archive").announced, []);
}

#[tokio::test]
async fn a_version_that_its_reader_cannot_read_is_refused() {
    let scene = Scene::new();
    for facts in [json!({}), json!({"server_version": "unknown"}), json!({"server_version": "8.2"})] {
        let from = backup(&scene, &[], facts).await;
        let error = archive(&scene, &from).await.expect_err("mongorestore would not read it");
        assert_eq!(error.kind(), Kind::Unsupported);
        assert!(error.hint_text().is_some_and(|hint| hint.contains("directory")), "{error:?}");
    }
    for version in ["6.0.29-23", "7.0.0+x", "10.11.12"] {
        let from = backup(&scene, &[], json!({"server_version": version})).await;
        archive(&scene, &from).await.expect(version);
    }
}

fn document_of(length: usize) -> Vec<u8> {
    let padding = length - rawdoc! { "_id": 1, "b": "" }.as_bytes().len();
    let document: RawDocumentBuf = rawdoc! { "_id": 1, "b": "x".repeat(padding) };
    assert_eq!(document.as_bytes().len(), length);
    document.into_bytes()
}

#[tokio::test]
async fn a_document_is_as_long_as_its_reader_takes() {
    let described = metadata("c", "collection");
    let of = |length| [("a/c.bson", document_of(length)), ("a/c.metadata.json", described.clone())];
    let artifacts = of(16 << 20);
    let artifacts: Vec<(&str, &[u8])> = artifacts.iter().map(|(name, bytes)| (*name, &**bytes)).collect();
    read(&archive_of(&artifacts).await.expect("16 MiB are allowed")).expect("it is an archive");
    let error = refused(&[("oplog.bson", &document_of((16 << 20) + 1))]).await;
    assert_eq!(error.kind(), Kind::Unsupported);
    assert!(error.doing().contains("oplog.bson"), "{error}");
}

#[tokio::test]
async fn what_is_no_archive_is_never_written_as_one() {
    let described = &*metadata("c", "collection");
    let none = [ONE, &ONE[..9]].concat();
    let mut open = ONE.to_vec();
    *open.last_mut().expect("a byte") = 7;
    for documents in [&*none, &*open, b"\x04\0\0\0", b"\x01"] {
        let error = refused(&[("a/c.bson", documents), ("a/c.metadata.json", described)]).await;
        assert_eq!(error.kind(), Kind::Damaged, "{error}");
        assert!(error.doing().contains("a/c.bson"), "{error}");
    }
    let error = refused(&[("a/other.bson", ONE), ("a/other.metadata.json", described)]).await;
    assert_eq!(error.kind(), Kind::Damaged, "another collection's metadata: {error}");
    let error = refused(&[("a/c.metadata.json", b"{")]).await;
    assert_eq!(error.kind(), Kind::Damaged, "no JSON: {error}");
    let error = refused(&[("a/system.buckets.c.bson", ONE)]).await;
    assert_eq!(error.kind(), Kind::Damaged, "buckets without a series: {error}");
    for name in ["new.txt", "a/c.new"] {
        let error = refused(&[(name, b"")]).await;
        assert_eq!(error.kind(), Kind::Unsupported, "{error}");
        assert!(error.to_string().contains(name), "{error}");
    }
}

#[tokio::test]
async fn a_damaged_artifact_leaves_no_whole_archive() {
    let scene = Scene::new();
    let documents: Vec<u8> = noise(1, 400_000).chunks(1000).flat_map(blob).collect();
    let artifacts: &[(&str, &[u8])] =
        &[("a/c.bson", &documents), ("a/c.metadata.json", &metadata("c", "collection"))];
    let from = backup(&scene, artifacts, json!({"server_version": "7.0.12"})).await;
    let artifact = from.artifact("a/c.bson").expect("it is there");
    let mut stored = scene.stored(&artifact.key).await.to_vec();
    let middle = stored.len() / 2;
    stored[middle] ^= 1;
    scene.replace(&artifact.key, stored).await;
    let mut bytes = Vec::new();
    let extracted = extract(&from, &FORMATS[1], Outlet::Stream(&mut bytes), &scene.task).await;
    assert_eq!(extracted.expect_err("it is damaged").kind(), Kind::Damaged);
    assert!(read(&bytes).is_err(), "its reader must notice");
}

fn blob(bytes: &[u8]) -> Vec<u8> {
    let binary = Binary { subtype: BinarySubtype::Generic, bytes: bytes.to_vec() };
    doc! { "b": binary }.to_vec().expect("it is BSON")
}

#[tokio::test]
async fn a_reader_that_ends_is_an_error_and_one_that_stops_is_waited_for() {
    let scene = Scene::new();
    let documents = ONE.repeat(300_000);
    let artifacts: &[(&str, &[u8])] =
        &[("a/c.bson", &documents), ("a/c.metadata.json", &metadata("c", "collection"))];
    let from = backup(&scene, artifacts, json!({"server_version": "7.0.12"})).await;
    let (mut ours, mut theirs) = tokio::io::duplex(4096);
    let reading = async move {
        let mut first = [0; 10_000];
        theirs.read_exact(&mut first).await.expect("it begins");
    };
    let writing = extract(&from, &FORMATS[1], Outlet::Stream(&mut ours), &scene.task);
    let (error, ()) =
        within("it ends", Duration::from_secs(60), async { tokio::join!(writing, reading) }).await;
    let error = error.expect_err("nobody reads it");
    assert_eq!((error.kind(), error.is_retryable()), (Kind::Unreachable, false), "{error}");
    assert!(error.why().contains("reader"), "{error}");

    let (mut ours, mut theirs) = tokio::io::duplex(4096);
    let reading = async {
        let mut first = [0; 10_000];
        theirs.read_exact(&mut first).await.expect("it begins");
        scene.task.cancel.cancel();
    };
    let writing = extract(&from, &FORMATS[1], Outlet::Stream(&mut ours), &scene.task);
    let (error, ()) =
        within("it ends", Duration::from_secs(60), async { tokio::join!(writing, reading) }).await;
    assert_eq!(error.expect_err("it was cancelled").kind(), Kind::Cancelled);
}

#[tokio::test]
async fn a_namespace_has_its_own_name_whatever_its_file_is_called() {
    let artifacts: &[(&str, &[u8])] = &[
        ("a/m.metadata.json.bson", ONE),
        ("a/m.metadata.json.metadata.json", &metadata("m.metadata.json", "collection")),
    ];
    let read = read(&archive_of(artifacts).await.expect("it is written")).expect("it is an archive");
    let name = Namespace::new("a", "m.metadata.json").to_string();
    assert_eq!(read.namespaces, [(name, Bytes::from_static(ONE))]);
}
