//! The judgement, on made-up servers and backups; on real ones it is in `restore`.

use std::collections::BTreeSet;

use serde_json::json;
use tidekeeper::error::Kind;
use tidekeeper::source::redis::preflight::{Road, Verdict, Way, judge};
use tidekeeper::source::redis::rdb::{Dialect, ModuleUse};
use tidekeeper::source::redis::server::{Databases, Info, Keyspace, Product, Server, newest_rdb};
use tidekeeper::source::redis::survey::{Shard, Survey};
use tidekeeper::source::redis::wish::{Options, WishedWay};
use tidekeeper::source::{Severity, Wish};
use tidekeeper::vault::manifest::{Artifact, Digest};

use super::stage::wished;

/// A 7.0 server on its own, empty, with nothing against it.
fn server() -> Server {
    Server {
        product: Product::Redis,
        version: (7, 0, 15),
        newest_rdb: 10,
        databases: Databases::Configured(16),
        memory_total: 8 << 30,
        memory_used: 1 << 20,
        config_readable: true,
        diskless_load: Some("disabled".to_owned()),
        tls_replication: Some(false),
        modules: Some(BTreeSet::new()),
        replicaof: Some(true),
        sentinels: Some(0),
        bulk_max: 512 << 20,
        ..Server::default()
    }
}

/// One RDB of version 10 with data of 100 MiB in databases 0 to 9.
fn survey() -> Survey {
    let digest = || Digest { bytes: 1, sha256: String::new() };
    let artifact = Artifact {
        name: "dump.rdb".to_owned(),
        key: "data/a".to_owned(),
        media_type: String::new(),
        codecs: Vec::new(),
        plain: digest(),
        stored: digest(),
    };
    let mut shard = Shard {
        artifact,
        summary: Default::default(),
        type_codes: [0; 256],
        long_values: Default::default(),
        endings: Default::default(),
    };
    shard.summary.version = 10;
    shard.summary.highest_db = Some(9);
    shard.summary.crc = tidekeeper::source::redis::rdb::Crc::Right;
    shard.summary.aux.insert("used-mem".to_owned(), (100u64 << 20).to_string());
    Survey { shards: vec![shard] }
}

fn judged(survey: &Survey, server: &Server, options: &Options) -> Verdict {
    judge(survey, server, &Road::default(), options)
}

fn worst(verdict: &Verdict) -> Severity {
    verdict.findings.iter().map(|finding| finding.severity).max().expect("something was looked at")
}

fn said(verdict: &Verdict, severity: Severity, words: &str) -> bool {
    verdict.findings.iter().any(|finding| finding.severity == severity && finding.what.contains(words))
}

#[test]
fn a_good_target_is_replicated_into() {
    let verdict = judged(&survey(), &server(), &Options::default());
    assert_eq!((verdict.way, worst(&verdict)), (Way::Replication, Severity::Ok), "{:?}", verdict.findings);
}

/// What can be gone around is: with the reason in the plan.
#[test]
fn the_other_way_is_taken_where_it_brings_as_much() {
    let own_address = Some([10, 0, 0, 1].into());
    let road = Road { own_address, ..Road::default() };
    let mut two = survey();
    two.shards.push(two.shards[0].clone());
    let mut unknown_module = survey();
    unknown_module.shards[0]
        .summary
        .modules
        .insert("my-module".to_owned(), ModuleUse { encoding: 1, values: 2 });
    let with_modules = Some(BTreeSet::from(["something".to_owned()]));
    let cases = [
        (survey(), Server { cluster: true, ..server() }, "node of a cluster"),
        (two, server(), "2 shards"),
        (survey(), Server { replicaof: Some(false), ..server() }, "no command REPLICAOF"),
        (survey(), Server { sentinels: Some(3), ..server() }, "Sentinel"),
        (survey(), Server { tls_replication: Some(true), ..server() }, "TLS only"),
        (survey(), Server { sees_us_at: Some([172, 17, 0, 1].into()), ..server() }, "translated"),
        (unknown_module.clone(), Server { modules: with_modules, ..server() }, "my-module"),
        (unknown_module, Server { modules: None, ..server() }, "my-module"),
    ];
    for (survey, server, reason) in cases {
        let auto = judge(&survey, &server, &road, &Options::default());
        assert_eq!(auto.way, Way::RestoreCommands, "{reason}");
        assert!(auto.reason.contains(reason), "{}", auto.reason);
        let forced = Options { way: WishedWay::Replication, ..Options::default() };
        let forced = judge(&survey, &server, &road, &forced);
        assert_eq!(forced.way, Way::Replication);
        assert!(said(&forced, Severity::Error, reason), "{:?}", forced.findings);
    }
    let advertised = Road { advertised: true, ..road };
    let server = Server { sees_us_at: Some([172, 17, 0, 1].into()), ..server() };
    assert_eq!(judge(&survey(), &server, &advertised, &Options::default()).way, Way::Replication);
}

/// What the other way cannot bring whole is an error, unless that way was asked for.
#[test]
fn what_would_be_lost_needs_a_word() {
    let restore = Options { way: WishedWay::Restore, ..Options::default() };
    let mut newer = survey();
    newer.shards[0].summary.version = 11;
    let mut valkey = survey();
    valkey.shards[0].summary.dialect = Dialect::Valkey;
    valkey.shards[0].summary.version = 80;
    let mut module = survey();
    module.shards[0].summary.modules.insert("ReJSON-RL".to_owned(), ModuleUse { encoding: 3, values: 2 });
    let mut functions = survey();
    functions.shards[0].summary.pre_release_functions = 1;
    for (survey, words) in [
        (newer, "format REDIS 11"),
        (valkey, "format VALKEY 80"),
        (module.clone(), "ReJSON-RL"),
        (functions, "pre-releases"),
    ] {
        let verdict = judged(&survey, &server(), &Options::default());
        assert!(said(&verdict, Severity::Error, words), "{words}: {:?}", verdict.findings);
        assert!(worst(&judged(&survey, &server(), &restore)) < Severity::Error, "{words}");
    }
    let loaded = Server { modules: Some(BTreeSet::from(["ReJSON".to_owned()])), ..server() };
    assert_eq!(judged(&module, &loaded, &Options::default()).way, Way::Replication);
}

#[test]
fn no_way_leads_into_these() {
    let follows = Some(("10.0.0.5:6379".to_owned(), false));
    let cases = [
        (Server { version: (4, 0, 14), ..server() }, "Redis 4.0.14"),
        (Server { follows, ..server() }, "a replica of 10.0.0.5:6379 (link down)"),
        (Server { loading: true, ..server() }, "is loading"),
        (Server { failover: true, ..server() }, "failover"),
        (Server { databases: Databases::Configured(9), ..server() }, "the target has 9 databases"),
        (Server { databases: Databases::Probed(9, false), ..server() }, "which the target has not"),
        (Server { cluster: true, ..server() }, "only database 0"),
        (Server { memory_max: 99 << 20, ..server() }, "maxmemory of the target is 99 MiB"),
        (Server { memory_total: 99 << 20, ..server() }, "memory of its machine"),
    ];
    for (server, words) in cases {
        for way in [WishedWay::Auto, WishedWay::Restore] {
            let verdict = judged(&survey(), &server, &Options { way, ..Options::default() });
            assert!(said(&verdict, Severity::Error, words), "{words}: {:?}", verdict.findings);
        }
    }
}

#[test]
fn what_is_not_known_is_a_warning() {
    let cases = [
        (Server { databases: Databases::Unknown, ..server() }, "does not say whether it has database 9"),
        (Server { config_readable: false, ..server() }, "configuration may not be read"),
        (Server { memory_total: 0, ..server() }, "does not say how much it has"),
        (Server { replicas: 2, ..server() }, "2 replicas follow"),
    ];
    for (server, words) in cases {
        let verdict = judged(&survey(), &server, &Options::default());
        assert!(said(&verdict, Severity::Warning, words), "{words}: {:?}", verdict.findings);
        assert_eq!(worst(&verdict), Severity::Warning);
    }
}

#[test]
fn old_and_new_data_together_need_memory_with_swapdb_only() {
    let keys = Keyspace { keys: 1, expires: 0 };
    let full =
        Server { keyspace: [(0, keys)].into(), memory_used: 100 << 20, memory_max: 150 << 20, ..server() };
    let swapdb = Server { diskless_load: Some("swapdb".to_owned()), ..full.clone() };
    assert!(worst(&judged(&survey(), &full, &Options::default())) < Severity::Error);
    assert!(said(&judged(&survey(), &swapdb, &Options::default()), Severity::Error, "beside the old"));
    let restore = Options { way: WishedWay::Restore, ..Options::default() };
    assert!(worst(&judged(&survey(), &swapdb, &restore)) < Severity::Error);
}

#[test]
fn each_version_loads_what_its_source_says() {
    for (product, version, newest) in [
        (Product::Redis, (3, 2, 0), 7),
        (Product::Redis, (4, 0, 0), 8),
        (Product::Redis, (5, 0, 0), 9),
        (Product::Redis, (6, 2, 7), 9),
        (Product::Redis, (7, 0, 0), 10),
        (Product::Redis, (7, 2, 0), 11),
        (Product::Redis, (7, 4, 0), 12),
        (Product::Redis, (8, 0, 0), 12),
        (Product::Valkey, (7, 2, 5), 11),
        (Product::Valkey, (8, 1, 0), 11),
        (Product::Valkey, (9, 0, 0), 80),
    ] {
        assert_eq!(newest_rdb(product, version), newest, "{product:?} {version:?}");
    }
    let valkey_9 = Server { newest_rdb: 80, ..server() };
    let redis_8 = Server { newest_rdb: 12, ..server() };
    assert!(valkey_9.loads(Dialect::Redis, 11) && valkey_9.loads(Dialect::Valkey, 80));
    assert!(!valkey_9.loads(Dialect::Redis, 12), "foreign to it");
    assert!(redis_8.loads(Dialect::Redis, 12) && !redis_8.loads(Dialect::Valkey, 80));
    assert!(redis_8.knows_type(Dialect::Redis, 25) && !redis_8.knows_type(Dialect::Valkey, 22));
    assert!(valkey_9.knows_type(Dialect::Valkey, 22) && !valkey_9.knows_type(Dialect::Redis, 24));
    assert_eq!(valkey_9.payload_version(Dialect::Redis, 12), 11);
    assert_eq!(server().payload_version(Dialect::Redis, 12), 10);
}

#[test]
fn info_is_read_as_servers_write_it() {
    let text = "# Server\r\nredis_version:7.2.4\r\nserver_name:valkey\r\nvalkey_version:8.0.1\r\n\
                run_id:abc\r\n# Replication\r\nrole:slave\r\nmaster_host:10.0.0.5\r\nmaster_port:6379\r\n\
                master_link_status:up\r\n\
                # Modules\r\nmodule:name=bf,ver=20209,api=1\r\nmodule:name=ReJSON,ver=1\r\n\
                # Keyspace\r\ndb0:keys=10,expires=3,avg_ttl=5\r\n\
                db12:keys=1,expires=0,avg_ttl=0,subexpiry=1\r\n";
    let server = Server::read(&Info::read(text));
    assert_eq!((server.product, server.version, server.newest_rdb), (Product::Valkey, (8, 0, 1), 11));
    assert_eq!(server.follows, Some(("10.0.0.5:6379".to_owned(), true)));
    assert_eq!(server.modules, Some(BTreeSet::from(["bf".to_owned(), "ReJSON".to_owned()])));
    assert_eq!(server.keyspace[&12], Keyspace { keys: 1, expires: 0 });
    assert_eq!(server.keys(), 11);
    assert_eq!(Server::read(&Info::read("redis_version:5.0.0\r\n")).modules, None, "too old to list them");
}

#[test]
fn options_are_checked() {
    let read = |options| Options::read(&wished(options));
    assert_eq!(read(json!({})).expect("nothing is wished"), Options::default());
    let some = read(json!({"keys": "user:*", "replace": "true"})).expect("they are right");
    assert!(some.replace && some.keys.is_some_and(|keys| keys.pattern.matches(b"user:1")));
    for (options, words) in [
        (json!({"key": "a"}), "did you mean \"keys\"?"),
        (json!({"frob": 1}), "way, keys, replace"),
        (json!({"way": "magic"}), ""),
        (json!({"keys": ""}), ""),
        (json!({"replace": 1}), ""),
        (json!({"keys": "a", "way": "replication"}), "leave one of the two out"),
    ] {
        let error = read(options).expect_err("it is wrong");
        assert_eq!(error.kind(), Kind::Usage);
        assert!(error.hint_text().unwrap_or_default().contains(words), "{error:?}");
    }
    assert_eq!(Options::read(&Wish::default()).expect("nothing is wished").way, WishedWay::Auto);
}
