//! Backups of a real server, and stock servers that start from them.

use serde_json::json;
use tidekeeper::config::secret::{Password, Secret};
use tidekeeper::error::{Error, Kind, Result};
use tidekeeper::source::redis::config::{Access, Settings};
use tidekeeper::source::redis::permissions::permissions;
use tidekeeper::source::redis::source::RedisSource;
use tidekeeper::source::redis::{Redis, backup};
use tidekeeper::source::{Kind as SourceKind, Outlet, Role, Source};
use tidekeeper::vault::layout::{BackupId, BackupRef, random};
use tidekeeper::vault::manifest::{Level, Status};
use tidekeeper::vault::reader::BackupReader;
use tidekeeper::vault::writer::{BackupWriter, Capture};

use super::stage::{Stage, command, fill, info, script, settings};
use crate::harness::redis::RedisServer;

/// A backup as the engine makes one.
pub async fn back_up(stage: &Stage, settings: &Settings) -> Result<(Capture, BackupReader)> {
    let source = RedisSource::new(settings.clone());
    let backup = BackupRef {
        source: settings.name.clone(),
        id: BackupId::new(stage.clock.now(), None, random() as u32),
    };
    let writer =
        BackupWriter::new(&stage.vault, backup.clone(), Redis.name(), &stage.task, stage.clock.now());
    let plan = source.plan_backup(&stage.task).await?;
    let capture = source.backup(&plan.slices[0], &stage.task, &writer).await?;
    let status = if capture.omissions.is_empty() { Status::Complete } else { Status::Partial };
    writer.commit(capture.clone(), status, None).await?;
    Ok((capture, BackupReader::open_backup(&stage.vault, &backup).await?))
}

/// A stock server that starts from one RDB of a backup.
pub async fn stock_server(stage: &Stage, backup: &BackupReader, artifact: &str) -> RedisServer {
    let folder = tempfile::tempdir().expect("a temporary folder");
    let written = Redis
        .extract(backup, &Redis.formats()[0], Outlet::Directory(folder.path()), &stage.task)
        .await
        .expect("it extracts");
    assert!(written.iter().any(|file| file.path == artifact), "{written:?}");
    RedisServer::start_in(folder, &["--dbfilename", artifact, "--databases", "64"]).await
}

pub async fn refused(stage: &Stage, settings: &Settings) -> Error {
    back_up(stage, settings).await.map(|(capture, _)| capture).expect_err("it must fail")
}

#[tokio::test]
async fn everything_comes_back_in_a_stock_server() {
    let (stage, server) = (Stage::new(), RedisServer::start(&[]).await);
    fill(&server).await;
    let digest = server.digest().await;
    let (capture, backup) = back_up(&stage, &settings(&server)).await.expect("it is backed up");
    let copy = stock_server(&stage, &backup, backup::ARTIFACT).await;
    assert_eq!(copy.digest().await, digest);
    assert_eq!(command::<Vec<redis::Value>>(&copy, &["FUNCTION", "LIST"]).await.len(), 1);
    let keys: u64 = command(&server, &["DBSIZE"]).await;
    assert_eq!(capture.contents.namespaces["db0"].items, keys);
}

#[tokio::test]
async fn a_manifest_tells_what_is_in() {
    let (stage, server) = (Stage::new(), RedisServer::start(&[]).await);
    fill(&server).await;
    let (capture, backup) = back_up(&stage, &settings(&server)).await.expect("it is backed up");
    let manifest = &backup.manifest;
    let [details, dump] = &manifest.artifacts[..] else { panic!("{:?}", manifest.artifacts) };
    assert_eq!((dump.name.as_str(), details.name.as_str()), ("dump.rdb", "details.json"));
    assert_eq!(dump.media_type, "application/vnd.redis.rdb");

    let namespaces = &manifest.contents.namespaces;
    assert_eq!(namespaces.keys().collect::<Vec<_>>(), ["db0", "db9"]);
    let count = |db: &str, of: &str| namespaces[db].types.get(of).copied();
    assert_eq!(
        (count("db0", "list"), count("db0", "set"), count("db0", "stream")),
        (Some(3), Some(3), Some(1))
    );
    assert_eq!((count("db9", "hash"), count("db9", "zset")), (Some(1), None));
    assert_eq!(manifest.contents.items, namespaces.values().map(|counts| counts.items).sum::<u64>());
    assert_eq!(stage.task.progress.snapshot().items, manifest.contents.items);

    let facts = &manifest.contents.facts;
    assert_eq!(
        (&facts["rdb_version"], &facts["highest_db"], &facts["functions"]),
        (&json!(10), &json!(9), &json!(1))
    );
    assert_eq!((&facts["dialect"], &facts["checksum"]), (&json!("redis"), &json!(true)));
    assert_eq!(facts["expires"], json!(2));
    assert_eq!(facts["bytes"], json!(dump.plain.bytes));
    assert_eq!(facts["taken_from"], json!(["master"]));
    assert!(facts["used_mem"].as_u64() > Some(0));

    let origin = manifest.origin.as_ref().expect("an origin");
    assert_eq!(origin.endpoint, format!("127.0.0.1:{}", server.port));
    assert_eq!(origin.version.as_deref(), Some(info(&server, "redis_version").await.as_str()));
    let consistency = manifest.consistency.as_ref().expect("a consistency");
    assert_eq!(consistency.level, Level::PointInTime);
    let age = stage.clock.now().duration_since(consistency.at.expect("a moment"));
    assert!(age.as_secs() < 60, "{age}");
    assert_eq!(consistency.position["replid"], info(&server, "master_replid").await);
    assert!(consistency.position["offset"].parse::<u64>().is_ok());

    let largest = &capture.details["largest_keys"];
    assert_eq!(largest.as_array().map(Vec::len), Some(16));
    assert!(largest[0]["bytes"].as_u64() >= largest[1]["bytes"].as_u64(), "{largest}");
    let stored = zstd::decode_all(
        &stage
            .vault
            .store
            .get(&tidekeeper::vault::store::Key::new(&details.key))
            .await
            .expect("it is read")
            .expect("it is there")[..],
    )
    .expect("it decompresses");
    assert!(String::from_utf8_lossy(&stored).contains("zset:big"), "the largest keys are in the details");
}

#[tokio::test]
async fn an_empty_server_is_a_backup_too() {
    let (stage, server) = (Stage::new(), RedisServer::start(&[]).await);
    let (capture, backup) = back_up(&stage, &settings(&server)).await.expect("it is backed up");
    assert_eq!((capture.contents.items, capture.contents.namespaces.len()), (0, 0));
    assert_eq!(stock_server(&stage, &backup, "dump.rdb").await.digest().await, server.digest().await);
}

#[tokio::test]
async fn a_long_value_passes() {
    let (stage, server) = (Stage::new(), RedisServer::start(&["--proto-max-bulk-len", "1gb"]).await);
    // Incompressible, and made on the server: 50 MB of random text of its own.
    let long = "for n = 1, 25000 do
                    local piece = {}
                    for m = 1, 50 do piece[m] = redis.sha1hex(n * 50 + m) end
                    redis.call('APPEND', 'big', table.concat(piece))
                end";
    script(&server, long).await;
    let (capture, backup) = back_up(&stage, &settings(&server)).await.expect("it is backed up");
    assert!(capture.details["largest_keys"][0]["bytes"].as_u64() > Some(25_000_000), "{:?}", capture.details);
    assert_eq!(stock_server(&stage, &backup, "dump.rdb").await.digest().await, server.digest().await);
}

#[tokio::test]
async fn a_server_that_writes_its_disk_first_announces_the_length() {
    let (stage, server) = (Stage::new(), RedisServer::start(&["--repl-diskless-sync", "no"]).await);
    fill(&server).await;
    let (capture, backup) = back_up(&stage, &settings(&server)).await.expect("it is backed up");
    let snapshot = stage.task.progress.snapshot();
    assert_eq!(snapshot.bytes_total, Some(snapshot.bytes));
    assert_eq!(capture.contents.facts["bytes"], json!(snapshot.bytes));
    assert_eq!(stock_server(&stage, &backup, "dump.rdb").await.digest().await, server.digest().await);
}

#[tokio::test]
async fn an_rdb_without_a_sum_says_so() {
    let (stage, server) = (Stage::new(), RedisServer::start(&["--rdbchecksum", "no"]).await);
    fill(&server).await;
    let (capture, _) = back_up(&stage, &settings(&server)).await.expect("it is backed up");
    assert_eq!(capture.contents.facts["checksum"], json!(false));
}

#[tokio::test]
async fn nothing_stays_behind_on_the_server() {
    let (stage, server) = (Stage::new(), RedisServer::start(&[]).await);
    fill(&server).await;
    let before = server.digest().await;
    back_up(&stage, &settings(&server)).await.expect("it is backed up");
    crate::harness::wait_for("the replica is gone", std::time::Duration::from_secs(5), async || {
        info(&server, "connected_slaves").await == "0"
    })
    .await;
    assert_eq!(server.digest().await, before);
    let clients: String = command(&server, &["CLIENT", "LIST", "TYPE", "replica"]).await;
    assert_eq!(clients, "");
}

fn with_password(server: &RedisServer, username: Option<&str>, password: &str) -> Settings {
    let mut settings = settings(server);
    settings.access = Access {
        username: username.map(str::to_owned),
        password: Some(Password::Given(Secret::new(password))),
        tls: None,
    };
    settings
}

#[tokio::test]
async fn the_printed_rights_are_enough_and_each_is_needed() {
    let (stage, server) = (Stage::new(), RedisServer::start(&[]).await);
    fill(&server).await;
    let settings = with_password(&server, Some("backup"), "secret");
    let least = permissions(&settings, Role::Source).remove(0).text.replace("PASSWORD", "secret");
    let grant = async |line: &str| {
        let words: Vec<&str> = line.split(' ').collect();
        let _: () = command(&server, &words).await;
    };
    grant(&least).await;
    let (capture, _) = back_up(&stage, &settings).await.expect("the least rights are enough");
    let notes = capture.contents.facts["notes"].to_string();
    assert!(notes.contains("without the right +info no replica is found"), "{notes}");

    for right in ["psync", "replconf", "ping"] {
        grant(&format!("{least} -{right}")).await;
        let error = refused(&stage, &settings).await;
        assert_eq!(error.kind(), Kind::Denied, "without {right}: {error:?}");
        assert!(error.to_string().contains(&format!("'{right}'")), "{error:?}");
        let hint = error.hint_text().unwrap_or_default();
        assert!(hint.contains(&format!("`ACL SETUSER backup +{right}`")), "{error:?}");
        grant(&least).await;
    }
    grant(&permissions(&settings, Role::Source)[1].text.replace("PASSWORD", "secret")).await;
    let (capture, _) = back_up(&stage, &settings).await.expect("more rights do no harm");
    assert_eq!(capture.contents.facts["notes"], json!([]));
}

#[tokio::test]
async fn a_wrong_password_is_denied() {
    let (stage, server) = (Stage::new(), RedisServer::start(&["--requirepass", "right"]).await);
    let cases = [
        (with_password(&server, None, "wrong"), "WRONGPASS"),
        (with_password(&server, Some("nobody"), "right"), "WRONGPASS"),
        (settings(&server), "NOAUTH"),
    ];
    for (settings, why) in cases {
        let error = refused(&stage, &settings).await;
        assert_eq!(error.kind(), Kind::Denied, "{error:?}");
        assert!(error.why().starts_with(why), "{error:?}");
        assert!(error.hint_text().is_some_and(|hint| hint.contains("password_file")), "{error:?}");
    }
    back_up(&stage, &with_password(&server, None, "right")).await.expect("the right password");
}

#[tokio::test]
async fn a_password_file_is_read_for_each_connection() {
    let (stage, server) = (Stage::new(), RedisServer::start(&["--requirepass", "first"]).await);
    let file = tempfile::NamedTempFile::new().expect("a temporary file");
    let mut settings = with_password(&server, None, "");
    settings.access.password = Some(Password::File(file.path().to_owned()));
    std::fs::write(file.path(), "first\n").expect("it is written");
    back_up(&stage, &settings).await.expect("the first password");
    let mut client = redis::Client::open(format!("redis://:first@127.0.0.1:{}", server.port))
        .expect("a client")
        .get_multiplexed_async_connection()
        .await
        .expect("it connects");
    let _: () = redis::cmd("CONFIG")
        .arg("SET")
        .arg("requirepass")
        .arg("second")
        .query_async(&mut client)
        .await
        .expect("it is set");
    assert_eq!(refused(&stage, &settings).await.kind(), Kind::Denied);
    std::fs::write(file.path(), "second\n").expect("it is written");
    back_up(&stage, &settings).await.expect("the second password");
}

#[tokio::test]
async fn nobody_there_is_unreachable() {
    let (stage, mut server) = (Stage::new(), RedisServer::start(&[]).await);
    server.stop();
    let error = refused(&stage, &settings(&server)).await;
    assert_eq!(error.kind(), Kind::Unreachable, "{error:?}");
    assert!(error.is_retryable());
    assert!(error.to_string().contains(&format!("127.0.0.1:{}", server.port)), "{error:?}");
}

#[tokio::test]
async fn a_server_that_loads_is_asked_again_later() {
    let (stage, server) = (Stage::new(), RedisServer::start(&[]).await);
    let _: () = command(&server, &["DEBUG", "POPULATE", "20000"]).await;
    super::stage::saved(&server).await;
    let folder = tempfile::tempdir().expect("a temporary folder");
    std::fs::copy(server.folder.path().join("dump.rdb"), folder.path().join("dump.rdb"))
        .expect("it is copied");
    let slow = ["--key-load-delay", "1000", "--loading-process-events-interval-bytes", "1024"];
    let loading = RedisServer::start_in(folder, &slow).await;
    let error = refused(&stage, &settings(&loading)).await;
    assert_eq!(error.kind(), Kind::Unready, "{error:?}");
    assert!(error.is_retryable() && error.why().starts_with("LOADING"), "{error:?}");
}

#[tokio::test]
async fn a_bgsave_that_fails_is_named() {
    let args = ["--repl-diskless-sync", "no", "--stop-writes-on-bgsave-error", "yes"];
    let (stage, server) =
        (Stage::new(), RedisServer::start(&[&args[..], &["--save", "3600 1"]].concat()).await);
    fill(&server).await;
    // The server can write nothing any more: its working folder is gone.
    std::fs::remove_dir_all(server.folder.path()).expect("it is removed");
    let error = refused(&stage, &settings(&server)).await;
    assert_eq!(error.kind(), Kind::Unready, "{error:?}");
    assert!(error.why().contains("BGSAVE failed"), "{error:?}");
    assert!(error.hint_text().is_some_and(|hint| hint.contains("server's log")), "{error:?}");

    // Now it answers even PING with -MISCONF. A diskless backup is all the more wanted.
    let ping: redis::RedisResult<String> = redis::cmd("PING").query_async(&mut server.connect().await).await;
    assert_eq!(ping.expect_err("it complains").code(), Some("MISCONF"));
    let _: () = command(&server, &["CONFIG", "SET", "repl-diskless-sync", "yes"]).await;
    let (_, backup) = back_up(&stage, &settings(&server)).await.expect("it is backed up");
    assert_eq!(stock_server(&stage, &backup, "dump.rdb").await.digest().await, server.digest().await);
}

#[tokio::test]
async fn a_sentinel_is_not_taken_for_a_redis() {
    let (stage, server) = (Stage::new(), RedisServer::start(&[]).await);
    let sentinel = RedisServer::start_sentinel(server.port).await;
    let error = refused(&stage, &settings(&sentinel)).await;
    assert_eq!(error.kind(), Kind::Config, "{error:?}");
    assert!(error.why().contains("it is a Sentinel"), "{error:?}");
}
