//! What the data path costs: a file (or noise) into a directory vault and back, beside the stock tools.
//!
//! `cargo bench --bench codec -- FILE|noise:MIB [--encrypt]` prints a line for each pass: wall and CPU seconds, MB/s of plain
//! bytes, and the highest resident memory of this process so far. Run it once for each size: the peak does not fall.
//! The stock tools read the same bytes from a pipe: `tee >(sha256sum) | zstd -3 -T0`.
#![allow(missing_docs)]

use std::fs::File;
use std::io::Read;
use std::os::fd::OwnedFd;
use std::process::{Command, Stdio};
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use tidekeeper::clock::{SharedClock, SystemClock};
use tidekeeper::config::Encryption;
use tidekeeper::task::{Limits, Spool, Task};
use tidekeeper::vault::Vault;
use tidekeeper::vault::layout::{BackupId, BackupRef};
use tidekeeper::vault::manifest::Status;
use tidekeeper::vault::reader::BackupReader;
use tidekeeper::vault::store::fs::FsStore;
use tidekeeper::vault::writer::{BackupWriter, Capture};

/// As a socket gives them.
const CHUNK: usize = 128 << 10;

fn main() {
    let arguments: Vec<String> = std::env::args().skip(1).filter(|argument| argument != "--bench").collect();
    let Some(input) = arguments.first() else {
        return eprintln!("usage: codec FILE|noise:MIB [--encrypt]");
    };
    let runtime = tokio::runtime::Builder::new_multi_thread().enable_all().build().expect("a runtime");
    let dir = tempfile::tempdir_in(".").expect("a directory");
    let clock = SystemClock::shared();
    let input = Input::open(input, dir.path());
    if arguments.iter().all(|argument| argument != "--only-us") {
        stock(&input, dir.path(), &clock);
    }
    let encrypt = arguments.iter().any(|argument| argument == "--encrypt");
    runtime.block_on(ours(&input, dir.path(), &clock, encrypt));
}

struct Input {
    path: std::path::PathBuf,
    bytes: u64,
}

impl Input {
    /// Noise becomes a file, so that both sides read the same.
    fn open(name: &str, dir: &std::path::Path) -> Input {
        let path = match name.strip_prefix("noise:") {
            Some(mib) => {
                let path = dir.join("noise");
                let mut noise =
                    File::open("/dev/urandom").expect("noise").take(mib.parse::<u64>().expect("MiB") << 20);
                std::io::copy(&mut noise, &mut File::create(&path).expect("a file")).expect("written");
                path
            }
            None => name.into(),
        };
        let bytes = std::fs::metadata(&path).expect("a file").len();
        Input { path, bytes }
    }

    fn file(&self) -> File {
        File::open(&self.path).expect("it was there")
    }
}

/// Times one pass and prints its line.
struct Pass<'a> {
    clock: &'a SharedClock,
    began: Duration,
    cpu: f64,
}

impl<'a> Pass<'a> {
    fn begin(clock: &'a SharedClock) -> Pass<'a> {
        Pass { clock, began: clock.monotonic(), cpu: cpu_seconds() }
    }

    fn end(self, name: &str, plain: u64, stored: u64) {
        let wall = (self.clock.monotonic() - self.began).as_secs_f64();
        let cpu = cpu_seconds() - self.cpu;
        let mb = plain as f64 / 1e6;
        let peak = status("VmHWM:") / 1024;
        println!(
            "{name:<28} {wall:6.2} s {cpu:6.2} s CPU {:7.0} MB/s {:7.0} MB/s per core {:6.1} % stored, peak {peak} MiB",
            mb / wall,
            mb / cpu,
            stored as f64 / plain as f64 * 100.0
        );
    }
}

/// User and system seconds of this process and of its children that have ended.
fn cpu_seconds() -> f64 {
    let stat = std::fs::read_to_string("/proc/self/stat").expect("procfs");
    let after_name = stat.rsplit_once(')').expect("a name").1;
    let ticks = after_name.split_whitespace().skip(11).take(4);
    ticks.map(|ticks| ticks.parse::<f64>().expect("a number")).sum::<f64>() / 100.0
}

/// A line of `/proc/self/status`, in KiB.
fn status(field: &str) -> u64 {
    let status = std::fs::read_to_string("/proc/self/status").expect("procfs");
    let line = status.lines().find(|line| line.starts_with(field)).expect("a field");
    line.split_whitespace().nth(1).and_then(|number| number.parse().ok()).expect("a number")
}

fn stock(input: &Input, dir: &std::path::Path, clock: &SharedClock) {
    let pass = Pass::begin(clock);
    let out = dir.join("stock.zst");
    // What is stored goes through a second file, as ours goes through the spool.
    let script = format!(
        "cat | tee >(sha256sum >/dev/null) | zstd -q -3 -T0 -c > {0}.part && cp {0}.part {0}",
        out.display()
    );
    let mut shell = Command::new("bash");
    let status = shell.args(["-c", &script]).stdin(Stdio::from(OwnedFd::from(input.file()))).status();
    assert!(status.expect("bash").success(), "the stock tools failed");
    pass.end("tee, sha256sum, zstd -3 -T0", input.bytes, std::fs::metadata(&out).expect("written").len());
    std::fs::remove_file(&out).expect("removed");
}

async fn ours(input: &Input, dir: &std::path::Path, clock: &SharedClock, encrypt: bool) {
    let limits = Limits { spool_dir: dir.join("spool"), ..Limits::default() };
    let task = Task {
        run: "bench".into(),
        clock: clock.clone(),
        deadline: Duration::from_secs(36_000),
        cancel: Default::default(),
        progress: Default::default(),
        spool: Spool::new(&limits, clock.clone()).expect("a spool"),
        limits: Arc::new(limits),
    };
    let encryption = encrypt.then(|| {
        let identity = age::x25519::Identity::generate();
        let file = dir.join("age.key");
        let text = age::secrecy::ExposeSecret::expose_secret(&identity.to_string()).to_owned();
        std::fs::write(&file, text).expect("written");
        Encryption { recipients: vec![identity.to_public().to_string()], identity_file: Some(file) }
    });
    let store = FsStore::connect(&dir.join("vault"), false).expect("a store");
    let vault = Vault::new(Arc::new(store), clock.clone(), encryption);
    let id = BackupId::new(clock.now(), None, 1);
    let backup = BackupRef { source: "bench".parse().expect("a name"), id };

    let pass = Pass::begin(clock);
    let writer = BackupWriter::new(&vault, backup.clone(), "file", &task, clock.now());
    let mut out = writer.artifact("file", "application/octet-stream").expect("begun");
    let mut file = tokio::fs::File::from_std(input.file());
    let mut buffer = bytes::BytesMut::new();
    loop {
        buffer.reserve(CHUNK);
        if tokio::io::AsyncReadExt::read_buf(&mut file, &mut buffer).await.expect("read") == 0 {
            break;
        }
        let chunk: Bytes = buffer.split().freeze();
        out.write(chunk).await.expect("written");
    }
    let artifact = out.finish().await.expect("finished");
    writer.commit(Capture::default(), Status::Complete, None).await.expect("committed");
    pass.end("backup", input.bytes, artifact.stored.bytes);

    let pass = Pass::begin(clock);
    let reader = BackupReader::open_backup(&vault, &backup).await.expect("opened");
    let verified = reader.verify(reader.artifact("file").expect("it"), &task).await.expect("whole");
    assert_eq!(verified.plain_bytes, Some(input.bytes));
    pass.end("verify", input.bytes, artifact.stored.bytes);
}
