//! What tests of restores share: data of every kind, backups made of it, targets to bring it into.

use std::ops::{Deref, DerefMut};

use bytes::Bytes;
use serde_json::Value;
use tidekeeper::error::Result;
use tidekeeper::source::redis::address::Address;
use tidekeeper::source::redis::config::{Access, Place, Settings};
use tidekeeper::source::redis::crc64::Crc64;
use tidekeeper::source::redis::restore::RedisTarget;
use tidekeeper::source::redis::source::RedisSource;
use tidekeeper::source::{RestorePlan, Restored, Source, Target, Wish};
use tidekeeper::vault::layout::{BackupId, BackupRef, random};
use tidekeeper::vault::manifest::Status;
use tidekeeper::vault::reader::BackupReader;
use tidekeeper::vault::store::{Create, Key};
use tidekeeper::vault::writer::{BackupWriter, Capture};

use crate::harness::bench::Bench;
use crate::harness::redis::RedisServer;

/// Makes backups, and restores them.
pub struct Stage(Bench);

impl Deref for Stage {
    type Target = Bench;

    fn deref(&self) -> &Bench {
        &self.0
    }
}

impl DerefMut for Stage {
    fn deref_mut(&mut self) -> &mut Bench {
        &mut self.0
    }
}

impl Stage {
    pub fn new() -> Self {
        Stage(Bench::new())
    }

    /// A backup of these RDBs, whatever they are.
    pub async fn backup(&self, rdbs: &[(&str, &[u8])]) -> BackupReader {
        let backup = self.next_backup();
        let writer = BackupWriter::new(&self.vault, backup.clone(), "redis", &self.task, self.clock.now());
        for (name, bytes) in rdbs {
            let mut artifact = writer.artifact(name, "application/x-redis-rdb").expect("an artifact");
            artifact.write(Bytes::copy_from_slice(bytes)).await.expect("it is written");
            artifact.finish().await.expect("it is stored");
        }
        writer.commit(Capture::default(), Status::Complete, None).await.expect("it is committed");
        BackupReader::open_backup(&self.vault, &backup).await.expect("it is there")
    }

    /// A backup of a server, by its source.
    pub async fn backup_of(&self, server: &RedisServer) -> BackupReader {
        let backup = self.next_backup();
        let writer = BackupWriter::new(&self.vault, backup.clone(), "redis", &self.task, self.clock.now());
        let source = RedisSource::new(settings(server));
        let plan = source.plan_backup(&self.task).await.expect("a plan");
        let capture = source.backup(&plan.slices[0], &self.task, &writer).await.expect("it is backed up");
        writer.commit(capture, Status::Complete, None).await.expect("it is committed");
        BackupReader::open_backup(&self.vault, &backup).await.expect("it is there")
    }

    fn next_backup(&self) -> BackupRef {
        let source = "redis-main".parse().expect("a name");
        BackupRef { source, id: BackupId::new(self.clock.now(), None, random() as u32) }
    }

    /// Flips one bit in the middle of the stored object of the first RDB.
    pub async fn damage(&self, backup: &BackupReader) {
        let rdb = backup.manifest.artifacts.iter().find(|artifact| artifact.name.ends_with(".rdb"));
        let key = Key::new(&rdb.expect("it has an RDB").key);
        let store = &self.vault.store;
        let mut bytes = store.get(&key).await.expect("it is read").expect("it is there").to_vec();
        let middle = bytes.len() / 2;
        bytes[middle] ^= 1;
        store.delete(&key).await.expect("it is gone");
        let created = store.create(&key, bytes.into()).await.expect("it is written");
        assert_eq!(created, Create::Created);
    }

    pub async fn plan(&self, target: &RedisTarget, from: &BackupReader, wish: Value) -> Result<RestorePlan> {
        target.plan_restore(from, None, &wished(wish), &self.task).await
    }

    /// Plans and restores; the plan must have no blocker.
    pub async fn restore(&self, target: &RedisTarget, from: &BackupReader, wish: Value) -> Result<Restored> {
        let plan = self.plan(target, from, wish).await?;
        assert_eq!(plan.blockers().count(), 0, "{:?}", plan.findings);
        target.restore(from, &plan, &self.task).await
    }
}

pub fn wished(options: Value) -> Wish {
    let Value::Object(options) = options else { return Wish::default() };
    Wish { options }
}

pub fn settings(server: &RedisServer) -> Settings {
    Settings {
        name: "redis-scratch".parse().expect("a name"),
        place: Place::Fixed(Address::new("127.0.0.1", server.port)),
        access: Access::default(),
        prefer_replica: true,
        listen: ([0, 0, 0, 0], 0).into(),
        advertise: None,
    }
}

pub fn target(server: &RedisServer) -> RedisTarget {
    RedisTarget::new(settings(server))
}

/// Sends one command and expects it to be obeyed.
pub async fn command<T: redis::FromRedisValue>(server: &RedisServer, words: &[&str]) -> T {
    let mut command = redis::cmd(words[0]);
    for word in &words[1..] {
        command.arg(*word);
    }
    command.query_async(&mut server.connect().await).await.expect("the server obeys")
}

/// Runs a script on the server.
pub async fn script(server: &RedisServer, script: &str) {
    let _: redis::Value = command(server, &["EVAL", script, "0"]).await;
}

/// Values of every type in several encodings and two databases, times to live, a function library.
pub async fn fill(server: &RedisServer) {
    script(server, FILL).await;
    let library = "#!lua name=lib\nredis.register_function('f', function() return 1 end)";
    let _: String = command(server, &["FUNCTION", "LOAD", library]).await;
}

const FILL: &str = r#"
    local long = string.rep('long ', 30)
    redis.call('SET', 'text', 'hello'); redis.call('SET', 'number', 12345); redis.call('SET', '77', long)
    redis.call('SET', string.rep('key', 20), 'under a compressible name')
    redis.call('RPUSH', 'list:small', 'a', 'b', 3)
    redis.call('RPUSH', 'list:plain', string.rep('z', 9000), 'a')
    redis.call('SADD', 'set:ints', 1, 2, 300); redis.call('SADD', 'set:words', 'a', 'b')
    redis.call('ZADD', 'zset:small', 1.5, 'a', 'inf', 'b'); redis.call('HSET', 'hash:small', 'f', 'v', 'n', 5)
    for n = 1, 700 do
        redis.call('RPUSH', 'list:big', n .. long); redis.call('SADD', 'set:ints:big', n)
        redis.call('ZADD', 'zset:big', n / 3, 'm' .. n); redis.call('HSET', 'hash:big', 'f' .. n, n)
    end
    for n = 1, 3000 do redis.call('SET', 'user:' .. n, 'value ' .. n) end
    for n = 1, 250 do redis.call('XADD', 'stream', n .. '-1', 'field', n, 'other', long) end
    redis.call('XGROUP', 'CREATE', 'stream', 'group', '0'); redis.call('XDEL', 'stream', '3-1')
    redis.call('XREADGROUP', 'GROUP', 'group', 'anna', 'COUNT', 7, 'STREAMS', 'stream', '>')
    redis.call('PFADD', 'hyperloglog', 'a', 'b'); redis.call('GEOADD', 'geo', 13.4, 52.5, 'Berlin')
    redis.call('SET', 'soon', 'gone', 'PX', 90000000); redis.call('SELECT', 9)
    redis.call('HSET', 'other', 'db', 'nine'); redis.call('PEXPIREAT', 'other', 4102444800000)
    return redis.call('SET', 'empty', '')
"#;

/// The RDB that a server writes.
pub async fn saved(server: &RedisServer) -> Vec<u8> {
    let _: String = command(server, &["SAVE"]).await;
    std::fs::read(server.folder.path().join("dump.rdb")).expect("it is there")
}

/// A field of `INFO`.
pub async fn info(server: &RedisServer, field: &str) -> String {
    let told: String = command(server, &["INFO", "everything"]).await;
    let value = told.lines().find_map(|line| line.strip_prefix(field)?.strip_prefix(':'));
    value.unwrap_or_default().to_owned()
}

/// A hand-made RDB: this magic, this body, an end and a right sum.
pub fn rdb(magic: &str, body: &[u8]) -> Vec<u8> {
    let mut bytes = [magic.as_bytes(), body, &[255]].concat();
    bytes.extend_from_slice(&Crc64::of(&bytes).to_le_bytes());
    bytes
}

/// The same RDB with another version in its head, and a right sum.
pub fn with_version(bytes: &[u8], version: u16) -> Vec<u8> {
    rdb(&format!("REDIS{version:04}"), &bytes[9..bytes.len() - 9])
}
