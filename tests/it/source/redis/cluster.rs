//! Redis Cluster: reading its map, and one backup of all shards.

use std::time::Duration;

use serde_json::{Value, json};
use tidekeeper::error::Kind;
use tidekeeper::source::redis::address::Address;
use tidekeeper::source::redis::cluster::{Range, Topology};
use tidekeeper::source::redis::pipeline::slots::SlotMap;
use tidekeeper::source::redis::source::RedisSource;
use tidekeeper::source::{Severity, Source};
use tidekeeper::vault::manifest::{Level, Status};

use super::backup::{back_up, refused, stock_server};
use super::stage::{Stage, command, info, settings};
use crate::harness::redis::RedisServer;
use crate::harness::{free_port, wait_for};

const PATIENCE: Duration = Duration::from_secs(30);

fn read(text: &str, tls: bool) -> Result<Topology, String> {
    Topology::read(text, &Address::new("10.0.0.9", 7000), tls)
}

const NODES: &str = "\
aaaa 10.0.0.1:7000@17000,one.redis myself,master - 0 0 1 connected 0-5460 [42->-bbbb]
bbbb 10.0.0.2:7000@17000,two.redis,shard-id=x master - 0 1 2 connected 5461-10922
cccc :7000@17000 master,fail? - 0 1 3 connected 10923 10925-16383 [42-<-aaaa]
dddd [fd00::4]:7001@17001 slave aaaa 0 1 1 connected
eeee 10.0.0.5:7001@17001 slave,fail bbbb 0 1 2 disconnected
ffff 10.0.0.6:7001@17001 master - 0 1 2 connected
";

#[test]
fn a_map_is_read() {
    let topology = read(NODES, false).expect("a map");
    let masters: Vec<String> = topology.shards.iter().map(|shard| shard.master.address.to_string()).collect();
    assert_eq!(masters, ["10.0.0.1:7000", "10.0.0.2:7000", "10.0.0.9:7000"]);
    let names: Vec<String> = topology.shards.iter().map(|shard| shard.artifact()).collect();
    assert_eq!(names, ["shard-0-5460.rdb", "shard-5461-10922.rdb", "shard-10923+1.rdb"]);
    assert_eq!(topology.shards[0].replicas[0].address.to_string(), "[fd00::4]:7001");
    assert!(topology.shards[0].replicas[0].alive && !topology.shards[1].replicas[0].alive);
    assert_eq!(topology.unserved(), [Range(10924, 10924)]);
    assert_eq!(topology.moving, [42]);

    let by_name = read(NODES, true).expect("a map");
    assert_eq!(by_name.shards[1].master.address.to_string(), "two.redis:7000");
    assert_eq!(by_name.least_id(), Some("aaaa"));
}

/// A certificate has names: so a restore dials the masters as a backup does.
#[test]
fn with_tls_keys_go_to_names() {
    let slots = SlotMap::of(&read(NODES, true).expect("a map"));
    let nodes: Vec<String> = slots.nodes().iter().map(ToString::to_string).collect();
    assert_eq!(nodes, ["one.redis:7000", "two.redis:7000", "10.0.0.9:7000"]);
    assert_eq!(slots.uncovered(), 1);
    // The slots of these keys are 12182 and 5061.
    assert_eq!((slots.server_of(b"foo"), slots.server_of(b"bar")), (2, 0));
}

#[test]
fn what_moved_between_two_maps_is_found() {
    let before = read(NODES, false).expect("a map");
    let after = read(&NODES.replace("0-5460", "100-5460").replace("5461-10922", "0-99 5461-10922"), false);
    assert_eq!(before.moved(&after.expect("a map")), [Range(0, 99)]);
    assert_eq!(before.moved(&before), []);
    assert_eq!(read("", false).expect("no nodes").unserved(), [Range(0, 16383)]);
}

#[test]
fn a_map_that_is_none_is_refused() {
    for line in [
        "aaaa",
        "aaaa 10.0.0.1 master -",
        "aaaa 10.0.0.1:x@1 master - 0 0 1 connected",
        "aaaa 10.0.0.1:1@1 master - 0 0 1 connected 5-3",
        "aaaa 10.0.0.1:1@1 master - 0 0 1 connected 0-99999",
    ] {
        let error = read(line, false).expect_err(line);
        assert!(error.contains("describes no node"), "{error}");
    }
}

/// Three shards, and a replica of the first.
struct Cluster {
    nodes: Vec<RedisServer>,
    replica: RedisServer,
}

/// A node, and the port of its bus: by default that is 10,000 above the other, which may be too high.
async fn node() -> (RedisServer, String) {
    let bus = free_port().to_string();
    (RedisServer::start(&["--cluster-enabled", "yes", "--cluster-port", &bus]).await, bus)
}

async fn cluster() -> Cluster {
    let (mut nodes, mut buses) = (Vec::new(), Vec::new());
    for _ in 0..4 {
        let (node, bus) = node().await;
        nodes.push(node);
        buses.push(bus);
    }
    let slots = [("0", "5460"), ("5461", "10922"), ("10923", "16383")];
    for (server, (first, last)) in nodes.iter().zip(slots) {
        let _: () = command(server, &["CLUSTER", "ADDSLOTSRANGE", first, last]).await;
    }
    for (server, bus) in nodes.iter().zip(&buses).skip(1) {
        let port = server.port.to_string();
        let _: () = command(&nodes[0], &["CLUSTER", "MEET", "127.0.0.1", &port, bus]).await;
    }
    let replica = nodes.pop().expect("four were started");
    for server in nodes.iter().chain([&replica]) {
        wait_for("the cluster is whole", PATIENCE, async || {
            let told: String = command(server, &["CLUSTER", "INFO"]).await;
            told.contains("cluster_state:ok") && told.contains("cluster_known_nodes:4")
        })
        .await;
    }
    let first: String = command(&nodes[0], &["CLUSTER", "MYID"]).await;
    let _: () = command(&replica, &["CLUSTER", "REPLICATE", &first]).await;
    for server in &nodes {
        wait_for("all know the replica", PATIENCE, async || {
            let told: String = command(server, &["CLUSTER", "NODES"]).await;
            told.contains("slave") && info(&replica, "master_link_status").await == "up"
        })
        .await;
    }
    for (n, server) in nodes.iter().enumerate() {
        // Tags whose slots each node has: 0 -> b (3300), 1 -> c (7365), 2 -> a (15495).
        let tag = ["b", "c", "a"][n];
        for key in 0..=n {
            let _: () = command(server, &["SET", &format!("{{{tag}}}:{key}"), "value"]).await;
        }
    }
    Cluster { nodes, replica }
}

#[tokio::test]
async fn all_shards_are_in_one_backup() {
    let (stage, cluster) = (Stage::new(), cluster().await);
    wait_for("the replica has the key", PATIENCE, async || {
        cluster.replica.digest().await == cluster.nodes[0].digest().await
    })
    .await;
    let (capture, backup) = back_up(&stage, &settings(&cluster.nodes[1])).await.expect("it is backed up");
    assert_eq!((backup.manifest.status.clone(), &capture.omissions[..]), (Status::Complete, &[][..]));
    assert_eq!(capture.contents.items, 6);
    assert_eq!(capture.contents.facts["taken_from"], json!(["replica", "master", "master"]));
    let consistency = capture.consistency.expect("a consistency");
    assert_eq!((consistency.level, consistency.at), (Level::PerType, None));
    assert!(consistency.from.is_some() && consistency.from <= consistency.to);
    let shards = ["shard-0-5460.rdb", "shard-10923-16383.rdb", "shard-5461-10922.rdb"];
    assert_eq!(consistency.position.keys().collect::<Vec<_>>(), shards);

    for (artifact, node) in [(shards[0], 0), (shards[2], 1), (shards[1], 2)] {
        let copy = stock_server(&stage, &backup, artifact).await;
        assert_eq!(copy.digest().await, cluster.nodes[node].digest().await, "{artifact}");
    }
    let map = artifact(&stage, &backup, "cluster.json").await;
    assert_eq!(map["shards"][1]["artifact"], json!("shard-5461-10922.rdb"));
    assert_eq!(map["shards"][1]["slots"], json!([[5461, 10922]]));
    assert_eq!(map["shards"][1]["taken_from"], json!(format!("127.0.0.1:{}", cluster.nodes[1].port)));
    assert!(map["cluster_nodes"].as_str().is_some_and(|text| text.contains("myself")), "{map}");
}

async fn artifact(stage: &Stage, backup: &tidekeeper::vault::reader::BackupReader, name: &str) -> Value {
    let artifact =
        backup.manifest.artifacts.iter().find(|artifact| artifact.name == name).expect("it is there");
    let mut plain = backup.open(artifact, &stage.task).await.expect("it opens");
    let mut bytes = Vec::new();
    while let Some(more) = plain.next().await.expect("it is read") {
        bytes.extend_from_slice(&more);
    }
    serde_json::from_slice(&bytes).expect("it is JSON")
}

#[tokio::test]
async fn a_shard_that_is_down_makes_it_partial_and_is_named() {
    let (stage, mut cluster) = (Stage::new(), cluster().await);
    cluster.nodes[2].stop();
    let asked = settings(&cluster.nodes[0]);
    let (capture, backup) = back_up(&stage, &asked).await.expect("the others are backed up");
    assert_eq!(backup.manifest.status, Status::Partial);
    let [omission] = &capture.omissions[..] else { panic!("{:?}", capture.omissions) };
    assert_eq!(omission.what, "slots 10923-16383");
    assert!(omission.why.contains(&cluster.nodes[2].port.to_string()), "{omission:?}");
    assert_eq!(capture.contents.items, 3);

    let inspection = RedisSource::new(asked).inspect(&stage.task).await.expect("it is looked at");
    let errors: Vec<_> =
        inspection.findings.iter().filter(|finding| finding.severity == Severity::Error).collect();
    assert_eq!(errors.len(), 1, "{errors:?}");
    assert!(errors[0].what.starts_with("shard-10923-16383.rdb: "), "{errors:?}");
}

#[tokio::test]
async fn a_slot_that_moves_makes_it_partial() {
    let (stage, cluster) = (Stage::new(), cluster().await);
    let second: String = command(&cluster.nodes[1], &["CLUSTER", "MYID"]).await;
    let _: () = command(&cluster.nodes[0], &["CLUSTER", "SETSLOT", "7", "MIGRATING", &second]).await;
    let (capture, _) = back_up(&stage, &settings(&cluster.nodes[0])).await.expect("it is backed up");
    assert_eq!(capture.omissions[0].what, "slots [7]");
}

#[tokio::test]
async fn a_part_is_never_taken_for_the_whole() {
    let (stage, cluster) = (Stage::new(), cluster().await);
    let _: () = command(&cluster.nodes[0], &["ACL", "SETUSER", "default", "-cluster"]).await;
    let error = refused(&stage, &settings(&cluster.nodes[0])).await;
    assert_eq!(error.kind(), Kind::Denied, "{error:?}");
    assert!(error.hint_text().is_some_and(|hint| hint.contains("+cluster|nodes")), "{error:?}");
}

#[tokio::test]
async fn a_cluster_is_looked_at() {
    let (stage, cluster) = (Stage::new(), cluster().await);
    let source = RedisSource::new(settings(&cluster.nodes[2]));
    let inspection = source.inspect(&stage.task).await.expect("it is looked at");
    let shards = inspection.findings.iter().filter(|finding| finding.what.starts_with("shard-")).count();
    assert_eq!(shards, 3, "{:?}", inspection.findings);
    assert!(inspection.findings.iter().all(|finding| finding.severity != Severity::Error));
    assert!(inspection.captures.iter().any(|line| line.contains("no instant across shards")));
    assert!(inspection.bytes > Some(0));
}
