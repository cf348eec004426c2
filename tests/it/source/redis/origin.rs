//! Which copy a backup is taken from: replicas, Sentinels, TLS.

use std::collections::HashMap;
use std::time::Duration;

use serde_json::json;
use tidekeeper::error::Kind;
use tidekeeper::source::redis::address::Address;
use tidekeeper::source::redis::config::{Access, Place, Sentinel, Settings, Tls};
use tidekeeper::source::redis::origin::in_sync;
use tidekeeper::source::redis::server::Info;

use super::backup::{back_up, refused};
use super::stage::{Stage, command, fill, info, settings};
use crate::harness::redis::RedisServer;
use crate::harness::tls::{certificates, tls_server};
use crate::harness::{free_port, wait_for};

const PATIENCE: Duration = Duration::from_secs(20);

async fn replica_of(master: &RedisServer) -> RedisServer {
    let replica = RedisServer::start(&["--replicaof", "127.0.0.1", &master.port.to_string()]).await;
    wait_for("the replica is in sync", PATIENCE, async || {
        let listed: String = command(master, &["INFO", "replication"]).await;
        !in_sync(&Info::read(&listed)).is_empty() && info(&replica, "master_link_status").await == "up"
    })
    .await;
    replica
}

#[test]
fn replicas_in_sync_come_furthest_first() {
    let info = Info::read(
        "slave0:ip=10.0.0.1,port=6379,state=online,offset=10,lag=0\r\n\
         slave1:ip=10.0.0.2,port=6379,state=online,offset=30,lag=1\r\n\
         slave2:ip=10.0.0.3,port=6379,state=online,offset=40,lag=11\r\n\
         slave3:ip=10.0.0.4,port=6379,state=wait_bgsave,offset=50,lag=0\r\n\
         slave4:ip=10.0.0.5,port=0,state=online,offset=60,lag=0\r\n\
         slave5:ip=fd00::6,port=6379,state=online,offset=20,lag=0\r\n",
    );
    let found: Vec<String> = in_sync(&info).iter().map(Address::to_string).collect();
    assert_eq!(found, ["10.0.0.2:6379", "[fd00::6]:6379", "10.0.0.1:6379"]);
}

#[tokio::test]
async fn a_replica_in_sync_is_preferred_and_the_master_forks_no_more() {
    let (stage, master) = (Stage::new(), RedisServer::start(&[]).await);
    fill(&master).await;
    let mut replica = replica_of(&master).await;
    let synced = info(&master, "sync_full").await;
    let (capture, _) = back_up(&stage, &settings(&master)).await.expect("it is backed up");
    assert_eq!(capture.contents.facts["taken_from"], json!(["replica"]));
    assert_eq!(capture.origin.expect("an origin").endpoint, format!("127.0.0.1:{}", replica.port));
    let position = capture.consistency.expect("a consistency").position;
    assert_eq!(position["replid"], info(&master, "master_replid").await, "it is the master's history");
    assert_eq!(info(&master, "sync_full").await, synced);

    let wish = Settings { prefer_replica: false, ..settings(&master) };
    let (capture, _) = back_up(&stage, &wish).await.expect("it is backed up");
    assert_eq!(capture.contents.facts["taken_from"], json!(["master"]));

    // The master has not yet seen that its replica is gone.
    replica.stop();
    let (capture, _) = back_up(&stage, &settings(&master)).await.expect("the master serves");
    assert_eq!(capture.contents.facts["taken_from"], json!(["master"]));
}

#[tokio::test]
async fn a_replica_that_refuses_us_is_noted_and_the_master_serves() {
    let (stage, master) = (Stage::new(), RedisServer::start(&[]).await);
    let replica = replica_of(&master).await;
    let _: () = command(&replica, &["ACL", "SETUSER", "default", "-psync"]).await;
    let (capture, _) = back_up(&stage, &settings(&master)).await.expect("the master serves");
    assert_eq!(capture.contents.facts["taken_from"], json!(["master"]));
    let notes = capture.contents.facts["notes"].to_string();
    assert!(notes.contains(&format!("127.0.0.1:{} could not be used", replica.port)), "{notes}");
    assert!(notes.contains("NOPERM"), "{notes}");
}

#[tokio::test]
async fn a_replica_without_its_master_is_not_ready() {
    let (stage, mut master) = (Stage::new(), RedisServer::start(&[]).await);
    let replica = replica_of(&master).await;
    master.stop();
    wait_for("the link is down", PATIENCE, async || info(&replica, "master_link_status").await == "down")
        .await;
    let error = refused(&stage, &settings(&replica)).await;
    assert_eq!(error.kind(), Kind::Unready, "{error:?}");
    assert!(error.is_retryable() && error.why().starts_with("NOMASTERLINK"), "{error:?}");
    let hint = error.hint_text().expect("what ends that");
    assert!(hint.contains("a restore into it was interrupted"), "{hint}");
    assert!(hint.contains("`REPLICAOF NO ONE`"), "{hint}");
}

fn by_sentinel(name: &str, ports: &[u16]) -> Place {
    Place::Sentinel(Sentinel {
        master: name.to_owned(),
        addresses: ports.iter().map(|port| Address::new("127.0.0.1", *port)).collect(),
        access: Access::default(),
    })
}

#[tokio::test]
async fn sentinels_lead_to_the_replicas_of_their_master() {
    let (stage, master) = (Stage::new(), RedisServer::start(&[]).await);
    fill(&master).await;
    let replica = replica_of(&master).await;
    let sentinel = RedisServer::start_sentinel(master.port).await;
    wait_for("the Sentinel knows the replica", PATIENCE, async || {
        let told: Vec<HashMap<String, String>> =
            command(&sentinel, &["SENTINEL", "REPLICAS", "mymaster"]).await;
        told.first().is_some_and(|replica| replica["master-link-status"] == "ok")
    })
    .await;
    let dead = free_port();
    let asked = Settings { place: by_sentinel("mymaster", &[dead, sentinel.port]), ..settings(&master) };
    let (capture, _) = back_up(&stage, &asked).await.expect("it is backed up");
    assert_eq!(capture.contents.facts["taken_from"], json!(["replica"]));
    assert_eq!(capture.origin.expect("an origin").endpoint, format!("127.0.0.1:{}", replica.port));
    let known: Vec<redis::Value> = command(&sentinel, &["SENTINEL", "REPLICAS", "mymaster"]).await;
    assert_eq!(known.len(), 1, "no phantom: {known:?}");

    let unknown = Settings { place: by_sentinel("other", &[sentinel.port]), ..settings(&master) };
    let error = refused(&stage, &unknown).await;
    assert_eq!(error.kind(), Kind::NotFound, "{error:?}");
}

#[tokio::test]
async fn no_sentinel_at_all_is_unreachable() {
    let (stage, server) = (Stage::new(), RedisServer::start(&[]).await);
    let asked = Settings { place: by_sentinel("mymaster", &[free_port(), free_port()]), ..settings(&server) };
    let error = refused(&stage, &asked).await;
    assert_eq!(error.kind(), Kind::Unreachable, "{error:?}");
    assert!(error.to_string().contains("asking 2 Sentinels for the master \"mymaster\""), "{error:?}");
}

#[tokio::test]
async fn tls_is_spoken_and_certificates_are_checked() {
    let stage = Stage::new();
    let folder = tempfile::tempdir().expect("a temporary folder");
    let (server, tls, port) = tls_server(folder.path(), &[]).await;
    fill(&server).await;
    let with = |tls: Option<Tls>, port: u16| {
        let mut settings = settings(&server);
        settings.place = Place::Fixed(Address::new("127.0.0.1", port));
        settings.access.tls = tls;
        settings
    };
    let (capture, _) = back_up(&stage, &with(Some(tls.clone()), port)).await.expect("it is backed up");
    assert!(capture.contents.items > 1000);

    let other = tempfile::tempdir().expect("a temporary folder");
    let strange = Tls { ca_file: certificates(other.path()).ca_file, ..tls.clone() };
    let error = refused(&stage, &with(Some(strange.clone()), port)).await;
    assert_eq!(error.kind(), Kind::Denied, "{error:?}");
    assert!(error.hint_text().is_some_and(|hint| hint.contains("tls.ca_file")), "{error:?}");
    let named = Tls { server_name: Some("redis.example".to_owned()), ..tls.clone() };
    assert_eq!(refused(&stage, &with(Some(named), port)).await.kind(), Kind::Denied);
    back_up(&stage, &with(Some(Tls { insecure_skip_verify: true, ..strange }), port))
        .await
        .expect("not checked");

    let nameless = Tls { cert_file: None, key_file: None, ..tls.clone() };
    let error = refused(&stage, &with(Some(nameless), port)).await;
    // The alert, or the reset that overtakes it.
    assert!(
        matches!(error.kind(), Kind::Denied | Kind::Unreachable),
        "it wants a certificate of ours: {error:?}"
    );

    let error = refused(&stage, &with(Some(tls), server.port)).await;
    assert!(matches!(error.kind(), Kind::Unreachable | Kind::Timeout), "no TLS there: {error:?}");
    assert!(error.hint_text().is_some_and(|hint| hint.contains("does the server speak TLS")), "{error:?}");
    let error = refused(&stage, &with(None, port)).await;
    assert!(matches!(error.kind(), Kind::Unreachable | Kind::Protocol), "nothing but TLS there: {error:?}");
}
