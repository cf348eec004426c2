//! What becomes of right configurations.

use std::net::SocketAddr;
use std::path::Path;
use std::time::Duration;

use tempfile::TempDir;
use tidekeeper::app;
use tidekeeper::config::{
    self, Config, Entry, Known, Limits, Missed, ObjectLock, Place, Retention, S3Place, When,
};
use tidekeeper::error::Kind;

const RECIPIENTS: &str = "[age1ql3z7hjy54pw3hyww5ayyfg7zqgvc7w3j2elw8zmrj2kg5sfn9aqmcac8p, \
                          age1lggyhqrw2nlhcxprm67z43rta597azn8gknawjehu9d9dl0jq3yqqvfafg]";

fn write(files: &[(&str, &str)]) -> TempDir {
    let folder = tempfile::tempdir().expect("a temporary folder");
    for (name, text) in files {
        let file = folder.path().join(name);
        std::fs::create_dir_all(file.parent().expect("inside the folder")).expect("writable");
        std::fs::write(file, text).expect("writable");
    }
    folder
}

fn load(folder: &TempDir) -> Config {
    super::load(&folder.path().join("tidekeeper.yaml")).expect("the configuration is right")
}

#[test]
fn little_is_needed() {
    let folder = write(&[("tidekeeper.yaml", "vault: { fs: { path: ./vault } }")]);
    let config = load(&folder);
    assert_eq!(config.vault, Place::Fs { path: folder.path().join("./vault"), single_host: false });
    assert_eq!(config.limits, Limits::default());
    assert_eq!(config.api.listen, SocketAddr::from(([127, 0, 0, 1], 8080)));
    assert!(!config.single_writer);
    assert!(config.sources.is_empty() && config.targets.is_empty() && config.schedules.is_empty());
}

#[test]
fn all_of_it_is_read() {
    let text = format!(
        "vault:
  s3: {{ bucket: b, prefix: /p/q/, region: r, endpoint: 'http://[::1]:9000', path_style: true, kms_key: k,
         object_lock: {{ mode: compliance, keep: 30d }} }}
  single_writer: true
encryption: {{ recipients: {RECIPIENTS}, identity_file: age.key }}
limits: {{ spool_dir: spool, spool_max: 1GiB, upload_rate: 1000000, concurrent_runs: 4 }}
sources: [{{ name: a, redis: &part {{ url: u, password: '${{PASSWORD}}' }} }}]
targets: [{{ name: b, mongodb: *part }}]
api: {{ listen: '[::1]:0' }}
"
    );
    let folder = write(&[("tidekeeper.yaml", &text)]);
    let config = load(&folder);
    let lock = ObjectLock { compliance: true, keep: Duration::from_secs(30 * 86_400) };
    let place = S3Place {
        bucket: "b".into(),
        prefix: "p/q".into(),
        region: Some("r".into()),
        endpoint: Some("http://[::1]:9000".into()),
        path_style: true,
        kms_key: Some("k".into()),
        object_lock: Some(lock),
    };
    assert_eq!(config.vault, Place::S3(place));
    assert_eq!(config.vault.to_string(), "s3://b/p/q");
    let encryption = config.encryption.as_ref().expect("it is configured");
    assert_eq!(encryption.identity_file, Some(folder.path().join("age.key")));
    let spool_dir = folder.path().join("spool");
    let limits = Limits { spool_dir, spool_max: 1 << 30, upload_rate: 1_000_000, concurrent_runs: 4 };
    assert_eq!(config.limits, limits);
    assert_eq!(config.source("a").expect("it is there").kind, "redis");
    assert_eq!(config.target("b").expect("it is there").kind, "mongodb");
    assert_eq!(config.target("a").expect("a source is its own target").kind, "redis");
    let shown = format!("{config:?}");
    assert!(!shown.contains("hunter2"), "a secret shows in {shown}");
}

#[test]
fn a_name_that_is_not_there_gets_the_nearest() {
    let text = "{ vault: { fs: { path: v } }, sources: [{ name: redis-main, redis: { url: u } }] }";
    let config = load(&write(&[("tidekeeper.yaml", text)]));
    let error = config.source("redis-mian").expect_err("it is not there");
    assert_eq!((error.kind(), error.hint_text()), (Kind::NotFound, Some("did you mean `redis-main`?")));
    let error = config.target("x").expect_err("it is not there");
    assert_eq!(error.hint_text(), Some("there are: redis-main"));
}

#[test]
fn a_schedule_is_read() {
    let main =
        "{ vault: { fs: { path: v } }, sources: [{ name: a, redis: { url: u } }], schedules: s/a.yaml }";
    let schedule = "
source: a
time_zone: Europe/Berlin
backup:
  - { name: six-hourly, cron: '0 */6 * * MON-FRI', jitter: 5m, deadline: 2h, missed: skip }
  - { name: often, every: 5s }
retention: { keep_within: 14d, yearly: 2, window: 3d, grace: 36h }
suspend: true
";
    let config = load(&write(&[("tidekeeper.yaml", main), ("s/a.yaml", schedule)]));
    let schedule = config.schedule(&"a".parse().expect("a name")).expect("it has one");
    assert_eq!((schedule.time_zone.to_string(), schedule.suspend), ("Europe/Berlin".to_owned(), true));
    let [first, second] = schedule.backup.as_slice() else { panic!("{:?}", schedule.backup) };
    assert_eq!((first.name.as_str(), first.missed), ("six-hourly", Missed::Skip));
    assert_eq!(first.when, When::Cron("0 */6 * * MON-FRI".parse().expect("an expression")));
    assert_eq!((first.jitter.as_secs(), first.deadline.as_secs()), (300, 7_200));
    assert_eq!((&second.when, second.missed), (&When::Every(Duration::from_secs(5)), Missed::RunOnce));
    assert_eq!((second.jitter.as_secs(), second.deadline.as_secs()), (0, 3_600));
    let expected = Retention {
        keep_within: Duration::from_secs(14 * 86_400),
        yearly: 2,
        window: Duration::from_secs(3 * 86_400),
        grace: Duration::from_secs(36 * 3_600),
        ..Retention::default()
    };
    assert_eq!(schedule.retention, expected);
}

#[test]
fn the_window_of_a_timeline_is_as_long_as_everything_is_kept_unless_it_says_otherwise() {
    let main = "{ vault: { fs: { path: v } }, schedules: s, sources: [{ name: a, redis: { url: u } }] }";
    for (retention, days) in
        [("{ keep_within: 14d }", 14), ("{ keep_within: 14d, window: 0s }", 0), ("{}", 7)]
    {
        let schedule = format!("{{ source: a, retention: {retention} }}");
        let config = load(&write(&[("tidekeeper.yaml", main), ("s/a.yaml", &schedule)]));
        let schedule = config.schedule(&"a".parse().expect("a name")).expect("it has one");
        assert_eq!(schedule.retention.window, Duration::from_secs(days * 86_400), "{retention}");
    }
}

#[test]
fn a_folder_of_schedules_is_read_as_a_mounted_config_map_looks() {
    let main = "{ vault: { fs: { path: v } }, schedules: s, sources: [{ name: a, redis: { url: u } }] }";
    let folder = write(&[("tidekeeper.yaml", main), ("s/..2026/a.yaml", "source: a"), ("s/notes.txt", "[")]);
    let inside = folder.path().join("s");
    std::os::unix::fs::symlink("..2026", inside.join("..data")).expect("links work");
    std::os::unix::fs::symlink("..data/a.yaml", inside.join("a.yaml")).expect("links work");
    assert_eq!(load(&folder).schedules.len(), 1);
}

#[test]
fn what_is_shipped_is_right() {
    let kinds: Vec<&str> = app::KINDS.iter().map(|kind| kind.name()).collect();
    let mut part = |entry: &Entry| {
        let kind = app::KINDS.iter().find(|kind| kind.name() == entry.kind).expect("a kind that is known");
        kind.configure(&entry.name, &entry.part).err().unwrap_or_default()
    };
    let known = Known { kinds: &kinds, env: &|_| None, part: &mut part };
    config::load(Path::new("docs/examples/tidekeeper.yaml"), known).expect("the example is right");
}
