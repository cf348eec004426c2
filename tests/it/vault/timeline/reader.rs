use tidekeeper::error::Kind;
use tidekeeper::vault::layout::log::{self, Position};
use tidekeeper::vault::reader::BackupReader;
use tidekeeper::vault::store::Key;

use super::super::estate::{Estate, SOURCE};
use super::{
    applied, base, beginning, encrypted, framing, keys, push, read, record, source, timelines, writer,
};

/// Segments of two records each, from 0 to 10.
async fn ten(estate: &Estate) {
    let (mut writer, _) = writer(&estate.vault);
    writer.begin(beginning(0)).await.expect("begun");
    for at in 1..=10 {
        push(&mut writer, at).await;
        if at % 2 == 0 {
            writer.seal().await.expect("sealed");
        }
    }
}

#[tokio::test(start_paused = true)]
async fn no_byte_of_a_changed_or_lost_segment_is_handed_out() {
    for (body, words) in [(None, "no such object"), (Some("rot"), "range"), (Some("long"), "SHA-256")] {
        let estate = Estate::new();
        ten(&estate).await;
        let backup = base(&estate, 0).await;
        let opened = BackupReader::open_backup(&estate.vault, &backup).await.expect("opened");
        let task = estate.task();
        let log = opened.log(Position(10), framing, &task).await.expect("a log").expect("not empty");
        let key = Key::new(&keys(&estate).await[2]);
        match body {
            None => estate.remove(&key).await,
            Some("long") => estate.spoil(&key, vec![7; 100_000]).await,
            Some(body) => estate.spoil(&key, body).await,
        }
        log.segment(&log.chain.segments[1], &task).await.expect("this one is whole");
        let error = log.segment(&log.chain.segments[2], &task).await.expect_err("damaged");
        assert_eq!(error.kind(), Kind::Damaged);
        assert!(error.to_string().contains(words), "{error}");
        assert!(error.to_string().contains(&log.chain.segments[2].name.to_string()), "{error}");
    }
}

#[tokio::test(start_paused = true)]
async fn a_break_is_named_with_how_far_one_can_go() {
    let estate = Estate::new();
    ten(&estate).await;
    let backup = base(&estate, 1).await;
    estate.remove(&Key::new(&keys(&estate).await[2])).await;
    assert_eq!(applied(&read(&estate, &estate.vault, &backup, 4).await.expect("read"), 1), [2, 3, 4]);
    let error = read(&estate, &estate.vault, &backup, 9).await.expect_err("5 and 6 are gone");
    assert_eq!(error.kind(), Kind::NotFound);
    let words =
        format!("is unbroken from {} to {} only; it goes on after {}", Position(1), Position(4), Position(6));
    assert!(error.why().contains(&words), "{error}");
    let later = base(&estate, 7).await;
    assert_eq!(applied(&read(&estate, &estate.vault, &later, 9).await.expect("read"), 7)[..2], [8, 9]);
    let error = read(&estate, &estate.vault, &later, 11).await.expect_err("nothing is stored of it");
    assert!(error.why().contains("nothing after it is stored"), "{error}");
    let error = read(&estate, &estate.vault, &later, 6).await.expect_err("it is later");
    assert!(error.why().contains("which is later"), "{error}");
    let between = base(&estate, 5).await;
    let error = read(&estate, &estate.vault, &between, 9).await.expect_err("no segment holds 5");
    assert!(error.why().contains("no timeline of this log holds position"), "{error}");
    let bare = estate.backup("complete").await;
    let error = read(&estate, &estate.vault, &bare, 9).await.expect_err("it is of no log");
    assert!(error.why().contains("does not say of which place in a log"), "{error}");
    let id = timelines(&estate).await[0].id.clone();
    estate.spoil(&log::origin(&source(), &id), "rot").await;
    let error = read(&estate, &estate.vault, &backup, 3).await.expect_err("whose is it?");
    assert!(error.why().contains(&format!("timeline {id} cannot be read")), "{error}");
    assert!(error.hint_text().is_some_and(|hint| hint.contains(SOURCE)));
}

/// The log was replaced below our feet, and nobody noticed: without a private key there was nothing to compare with.
#[tokio::test(start_paused = true)]
async fn a_segment_that_begins_with_another_record_is_a_gap() {
    let dir = tempfile::tempdir().expect("a directory");
    for (len, agrees) in [(20, true), (30, false)] {
        let estate = Estate::new();
        let (with_key, without) = encrypted(&estate, &dir);
        let (mut first, _) = writer(&without);
        first.begin(beginning(0)).await.expect("begun");
        push(&mut first, 1).await;
        first.seal().await.expect("sealed");
        let (mut second, _) = writer(&without);
        second.resume().await.expect("looked").expect("a timeline");
        second.push(record(1, len), Position(1)).await.expect("the record at its beginning");
        push(&mut second, 2).await;
        second.seal().await.expect("sealed");
        let backup = base(&estate, 0).await;
        match read(&estate, &with_key, &backup, 2).await {
            Ok(found) => assert!(agrees && applied(&found, 0) == [1, 2]),
            Err(error) => {
                assert!(!agrees && error.kind() == Kind::Damaged, "{error:?}");
                assert!(error.why().contains("a gap in the log"), "{error}");
            }
        }
    }
}

#[tokio::test(start_paused = true)]
async fn segments_that_overlap_and_do_not_agree_are_a_gap() {
    for (len, agrees) in [(20, true), (30, false)] {
        let estate = Estate::new();
        let (mut first, _) = writer(&estate.vault);
        first.begin(beginning(0)).await.expect("begun");
        let (mut slow, _) = writer(&estate.vault);
        slow.resume().await.expect("looked").expect("a timeline");
        push(&mut first, 1).await;
        first.seal().await.expect("sealed");
        for at in 0..=3 {
            push(&mut slow, at).await;
        }
        slow.seal().await.expect("sealed");
        push(&mut first, 2).await;
        first.push(record(3, len), Position(3)).await.expect("taken");
        push(&mut first, 4).await;
        first.seal().await.expect("sealed");
        let backup = base(&estate, 0).await;
        match read(&estate, &estate.vault, &backup, 4).await {
            Ok(found) => {
                let spans: Vec<_> = found.iter().map(|one| (one[0].0, one[one.len() - 1].0)).collect();
                assert_eq!(spans, [(0, 3), (1, 4)]);
                assert!(agrees && applied(&found, 0) == [1, 2, 3, 4]);
            }
            Err(error) => assert!(!agrees && error.kind() == Kind::Damaged, "{error:?}"),
        }
    }
}
