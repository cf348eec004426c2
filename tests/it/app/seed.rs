//! A vault in a folder that holds timelines, for those who only read them.

use std::path::Path;

use jiff::Timestamp;
use tidekeeper::clock::SystemClock;
use tidekeeper::config::{Place, SourceName};
use tidekeeper::engine::leader::Fence;
use tidekeeper::vault::decide::decide;
use tidekeeper::vault::layout::log::Position;
use tidekeeper::vault::layout::{self, BackupId, BackupRef};
use tidekeeper::vault::manifest::{Manifest, Status};
use tidekeeper::vault::timeline::writer::{Beginning, Bounds, TimelineWriter};
use tidekeeper::vault::{Vault, place};

/// Two timelines of a MongoDB, from six to ten past six and from seven to half past seven, each with a backup.
pub async fn timelines(folder: &Path, source: &SourceName) {
    let clock = SystemClock::shared();
    let place = Place::Fs { path: folder.into(), single_host: false };
    let store = place::open_store(&place, clock.clone()).await.expect("the vault is there");
    let vault = Vault::new(store, clock.clone(), None);
    let spans = [
        ("the first", "06:00:00", "06:10:00", "06:00:00"),
        ("the log has rolled over", "07:00:00", "07:30:00", "07:05:00"),
    ];
    for (why, begin, end, base) in spans {
        let fence = Fence::none();
        let (mut out, _) =
            TimelineWriter::new(&vault, source, "mongodb", &fence, Bounds::default(), |_| None);
        let beginning = Beginning {
            identity: "rs0".to_owned(),
            record: "record".into(),
            at: position(begin),
            why: why.to_owned(),
        };
        out.begin(beginning).await.expect("it begins");
        out.push("record".into(), position(end)).await.expect("it goes on");
        out.seal().await.expect("it is stored");
        let id = BackupId::new(moment(base), None, 7);
        let backup = BackupRef { source: source.clone(), id };
        let manifest = Manifest {
            timeline: Some("rs0".to_owned()),
            log_position: Some(position(base)),
            ..Manifest::bare(&backup, "mongodb", Status::Complete, moment(base))
        };
        commit(&vault, &manifest).await;
    }
}

/// A backup from which no log goes on.
pub async fn backup(folder: &Path, source: &SourceName, kind: &str) {
    let clock = SystemClock::shared();
    let place = Place::Fs { path: folder.into(), single_host: false };
    let store = place::open_store(&place, clock.clone()).await.expect("the vault is there");
    let backup = BackupRef { source: source.clone(), id: BackupId::new(moment("06:00:00"), None, 7) };
    let manifest = Manifest::bare(&backup, kind, Status::Complete, moment("06:00:00"));
    commit(&Vault::new(store, clock, None), &manifest).await;
}

async fn commit(vault: &Vault, manifest: &Manifest) {
    let key = layout::manifest(&manifest.backup());
    let _ = decide(vault.store.as_ref(), vault.clock.as_ref(), &key, manifest).await.expect("it is made");
}

fn moment(time: &str) -> Timestamp {
    format!("2026-11-21T{time}Z").parse().expect("a time")
}

fn position(time: &str) -> Position {
    Position((moment(time).as_second() as u64) << 32 | 1)
}
