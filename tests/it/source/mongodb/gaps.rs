//! Gaps: each kind that a log can have is made, is shown with its reason, and is named by the restore that it refuses; on both
//! of its sides seconds come back.
//!
//! Not here: that the oplog is empty (a server's first entry stays), and an entry that comes late (no server that was at hand
//! can be made to send one). What a timeline's two ends have in common with these is in the tests of `vault::timeline`.

use std::path::PathBuf;

use jiff::Timestamp;
use serde_json::Value;

use self::scene::{Part, Scene, view};
use crate::harness::cli::Cli;

mod scene;

/// What breaks a timeline, so that another begins.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Break {
    /// A restore wrote to the source: its `end.json` is there.
    Restored,
    /// More was written than the log holds, while nobody followed.
    RolledOver,
    /// Another record stands where the last was read.
    Replaced,
    /// No record stands there any more.
    RolledBack,
    /// It is another replica set.
    AnotherSet,
}

const BREAKS: [Break; 5] =
    [Break::Restored, Break::RolledOver, Break::Replaced, Break::RolledBack, Break::AnotherSet];

impl Break {
    /// Breaks the timeline behind a part; what the gap is told with.
    async fn happen(self, scene: &mut Scene, behind: &Part) -> Vec<String> {
        match self {
            Break::Restored => {
                scene.restore_into_the_source().await;
                vec!["run ".to_owned(), " restored into the source".to_owned()]
            }
            Break::RolledOver => {
                scene.flood().await;
                let gone =
                    format!("the record at {} is gone: the oplog has rolled over, it begins at ", behind.end);
                vec![gone]
            }
            Break::Replaced => {
                let at = scene.read_another_record().await;
                vec![format!("another record stands at {at}: the log was rolled back")]
            }
            Break::RolledBack => {
                let at = scene.roll_back().await;
                vec![format!("no record stands at {at} any more: the log was rolled back")]
            }
            Break::AnotherSet => {
                scene.replace_the_server().await;
                vec!["another replica set: ".to_owned(), " instead of ".to_owned()]
            }
        }
    }
}

/// A gap that was made: of which kind, what it is told with, and the second in which it begins.
struct Made {
    kind: Break,
    words: Vec<String>,
    second: Timestamp,
}

impl Made {
    fn words(&self) -> Vec<&str> {
        self.words.iter().map(String::as_str).collect()
    }
}

/// One history with all of these gaps, a part before, between and after them.
async fn history(scene: &mut Scene) -> (Vec<Part>, Vec<Made>) {
    let (mut parts, mut gaps) = (vec![scene.part().await], Vec::new());
    for kind in BREAKS {
        let before = parts.last().expect("some").clone();
        let words = kind.happen(scene, &before).await;
        // Two of them add to the part before they break it.
        let end = scene.followed_to().await.moment();
        let second = match kind {
            Break::Restored => {
                // Whoever closed the log saw all of that second: the gap begins behind it.
                let marks: Vec<i32> = (1..=before.marks.len() as i32 + 1).collect();
                assert_eq!(scene.restored(&scene.cli, end).await, marks, "before the restore");
                scene.next_second().await;
                scene.now()
            }
            _ => end,
        };
        let gap = Made { kind, words, second };
        // Nobody has backed up since: the gap is known as soon as somebody asks for the log to be stored.
        scene.next_second().await;
        scene.mark().await;
        let words = [&gap.words()[..], &["after the end of it", "`tidekeeper backup mongo-main`"]].concat();
        scene.is_refused(&scene.cli, second, 1, &words).await;
        gaps.push(gap);
        parts.push(scene.part().await);
    }
    (parts, gaps)
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn each_kind_is_shown_and_named_and_ends_at_its_sides() {
    let mut scene = Scene::new().await;
    let (mut parts, gaps) = history(&mut scene).await;
    let (shown, text) = view(&scene.cli).await;
    let count = |field: &str| shown[field].as_array().map(Vec::len);
    assert_eq!((count("windows"), count("gaps")), (Some(parts.len()), Some(gaps.len())), "{text}");
    for (gap, told) in gaps.iter().zip(shown["gaps"].as_array().expect("a list")) {
        for word in gap.words() {
            assert!(told["why"].as_str().is_some_and(|why| why.contains(word)), "{:?}: {told}", gap.kind);
            assert!(text.contains(word), "{:?}: {text}", gap.kind);
        }
        let words =
            [&gap.words()[..], &["lies in the gap between", "`tidekeeper timeline mongo-main`"]].concat();
        scene.is_refused(&scene.cli, gap.second, 1, &words).await;
    }
    let ended: Vec<bool> =
        shown["timelines"].as_array().expect("a list").iter().map(|one| one["ended"].is_object()).collect();
    assert_eq!(ended, [true, false, false, false, false, false], "only a restore closes one: {shown}");
    for part in &parts {
        assert_eq!(scene.restored(&scene.cli, part.good).await, part.marks, "{part:?}");
    }
    parts.push(scene.part().await);
    in_the_vault(&scene, &parts, &shown).await;
}

/// What can happen to the vault: objects that are lost or rotten.
async fn in_the_vault(scene: &Scene, parts: &[Part], shown: &Value) {
    let [.., before, after] = parts else { panic!("parts without a break between them") };
    let timeline = |n: usize| shown["timelines"][n]["timeline"].as_str().expect("an id").to_owned();
    let newest = timeline(BREAKS.len());

    let cli = scene.copy();
    for segment in between(&cli, &newest, before, after) {
        std::fs::remove_file(segment).expect("it is removed");
    }
    let missing = format!("segments of timeline {newest} are missing");
    let (_, text) = view(&cli).await;
    assert!(text.contains(&missing), "{text}");
    scene.is_refused(&cli, before.end.moment(), 1, &[&missing, "lies in the gap between"]).await;
    sides(scene, &cli, [before, after]).await;

    let cli = scene.copy();
    let segments = between(&cli, &newest, before, after);
    let name = segments[0].file_name().expect("a name").to_string_lossy().into_owned();
    spoil(&segments[0]);
    // A listing cannot tell what the bytes are, so neither can the view; a scrub that reads them can.
    says_of_damage(&cli, &name).await;
    scene.is_refused(&cli, before.end.moment(), 5, &[&name, "the SHA-256 of its bytes is"]).await;
    sides(scene, &cli, [before, after]).await;

    for (n, file) in [(0, "end.json"), (1, "origin.json")] {
        let cli = scene.copy();
        let of = timeline(n);
        spoil(&folder(&cli, &of).join(file));
        let unreadable = format!("timeline {of} cannot be read");
        let (_, text) = view(&cli).await;
        assert!(text.contains(&format!("unreadable: timeline {of}")), "{text}");
        if n > 0 {
            assert!(text.contains(&unreadable), "{text}");
            scene.is_refused(&cli, parts[n].end.moment(), 1, &[&unreadable]).await;
            sides(scene, &cli, [&parts[n - 1], &parts[n + 1]]).await;
        } else {
            // There is nothing before it to which it would be a gap.
            scene.is_refused(&cli, parts[n].end.moment(), 1, &["before the first backup"]).await;
        }
    }
}

/// Both sides of a gap can be had: what leads there is read, and that it is brought back as well is shown above.
async fn sides(scene: &Scene, cli: &Cli, parts: [&Part; 2]) {
    for part in parts {
        scene.can_be_had(cli, part.good).await;
    }
}

async fn says_of_damage(cli: &Cli, segment: &str) {
    let ran = cli.run(&["scrub", "--deep"]).await.exits(5);
    assert!(ran.stdout.contains(segment), "{ran:?}");
}

fn folder(cli: &Cli, timeline: &str) -> PathBuf {
    cli.path("vault/timelines/mongo-main").join(timeline)
}

/// The segments that lead from the end of one part towards the backup of the next.
fn between(cli: &Cli, timeline: &str, before: &Part, after: &Part) -> Vec<PathBuf> {
    let position = |at: Timestamp| format!("{:016x}", (at.as_second() as u64) << 32);
    let (from, to) =
        (before.end.position().to_string(), position(after.good + std::time::Duration::from_secs(1)));
    let files =
        std::fs::read_dir(folder(cli, timeline)).expect("it is there").flatten().map(|file| file.path());
    let mut found: Vec<PathBuf> = files
        .filter(|file| {
            let name = file.file_name().expect("a name").to_string_lossy().into_owned();
            let range = name.split('.').next().and_then(|range| range.split_once('-'));
            range.is_some_and(|(begin, end)| *begin >= *from && *end < *to)
        })
        .collect();
    found.sort();
    assert!(!found.is_empty(), "no segment from {from} to {to}");
    found
}

/// The same length, and other bytes.
fn spoil(file: &PathBuf) {
    let length = std::fs::metadata(file).expect("it is there").len() as usize;
    let mut permissions = std::fs::metadata(file).expect("it is there").permissions();
    #[allow(clippy::permissions_set_readonly_false, reason = "of a copy that nobody else sees")]
    permissions.set_readonly(false);
    std::fs::set_permissions(file, permissions).expect("it is ours");
    std::fs::write(file, vec![b'x'; length]).expect("it is written");
}
