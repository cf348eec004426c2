use async_trait::async_trait;
use bytes::Bytes;
use tidekeeper::error::Result;
use tidekeeper::vault::deletion::{Deleter, NoNatives};
use tidekeeper::vault::layout::BackupRef;
use tidekeeper::vault::layout::log;
use tidekeeper::vault::scrub::{Finding, Line, Liveness, Repaired, Scrub, Writers};
use tidekeeper::vault::store::{Key, Part, Store};

use super::super::estate::{Estate, HOUR, Leads};
use super::{beginning, keys, push, source, timelines, writer};

struct Dead;

#[async_trait]
impl Writers for Dead {
    async fn liveness(&self, _: &BackupRef) -> Result<Liveness> {
        Ok(Liveness::Dead("its run has ended".to_owned()))
    }
}

async fn inspect(estate: &Estate, deep: bool) -> Vec<Line> {
    let catalog = &estate.catalog();
    let scrub = Scrub { vault: &estate.vault, catalog, writers: &Dead, deep };
    scrub.inspect(&estate.task()).await.expect("a scrub")
}

#[tokio::test(start_paused = true)]
async fn a_scrub_finds_what_is_wrong_with_timelines() {
    let estate = Estate::new();
    let (mut writer, _) = writer(&estate.vault);
    let id = writer.begin(beginning(0)).await.expect("begun");
    for at in 1..=4 {
        push(&mut writer, at).await;
        writer.seal().await.expect("sealed");
    }
    assert_eq!(inspect(&estate, true).await, []);
    let segments = keys(&estate).await;
    estate.remove(&Key::new(&segments[1])).await;
    estate.spoil(&Key::new(&segments[2]), "rot").await;
    estate.put(&Key::new("timelines/notes.txt"), "who was here?").await;
    let shallow = inspect(&estate, false).await;
    let found: Vec<_> = shallow.iter().map(|line| (&line.finding, line.is_damage())).collect();
    assert!(
        matches!(found[..], [(Finding::StrangeKey { .. }, false), (Finding::BrokenTimeline { .. }, true)]),
        "{found:?}"
    );
    let deep = inspect(&estate, true).await;
    let [_, _, Line { finding: Finding::DamagedSegment { key, .. }, repair: None, .. }] = &deep[..] else {
        panic!("{deep:?}")
    };
    assert_eq!(*key, segments[2]);
    estate.spoil(&log::origin(&source(), &id), "rot").await;
    let found = inspect(&estate, false).await;
    assert!(
        found.iter().any(|line| matches!(&line.finding, Finding::UnreadableTimeline { key, .. }
            if key.contains(&id.to_string()))),
        "{found:?}"
    );
    assert!(found.iter().all(|line| line.repair.is_none()), "nothing of a timeline is repaired");
}

#[tokio::test(start_paused = true)]
async fn an_upload_of_a_segment_that_was_never_ended_is_freed() {
    let estate = Estate::new();
    let (mut writer, _) = writer(&estate.vault);
    let id = writer.begin(beginning(0)).await.expect("begun");
    push(&mut writer, 1).await;
    let name = writer.seal().await.expect("sealed").expect("a segment");
    let name = log::SegmentName { to: log::Position(9), ..name };
    let upload = estate.memory.begin_upload(&log::segment(&source(), &id, &name)).await.expect("begun");
    upload.put_part(1, Part::Bytes(Bytes::from_static(b"part"))).await.expect("stored");
    assert_eq!(inspect(&estate, false).await, [], "somebody may be at it");
    estate.pass(2 * HOUR).await;
    let lines = inspect(&estate, false).await;
    assert!(matches!(lines[..], [Line { repair: Some(_), .. }]), "{lines:?}");
    let catalog = &estate.catalog();
    let scrub = Scrub { vault: &estate.vault, catalog, writers: &Dead, deep: false };
    let (vault, clock) = (&estate.vault, &estate.watch);
    let deleter = Deleter { vault, catalog, clock, fence: &Leads, natives: &NoNatives };
    let repairs = scrub.repair(&lines, &deleter).await.expect("a repair");
    assert_eq!(repairs[0].repaired, Repaired::Done);
    assert_eq!(timelines(&estate).await[0].segments.len(), 1);
}
