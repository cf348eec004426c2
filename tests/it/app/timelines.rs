//! From a log to windows, from a moment to a backup and a cut, and what is said where that cannot be had.

use std::time::Duration;

use jiff::{SignedDuration, Timestamp};
use tidekeeper::app::{Destination, RestoreWish};
use tidekeeper::clock::Clock;
use tidekeeper::engine::run::{End, Finished};
use tidekeeper::engine::work::{Action, Order};
use tidekeeper::error::Kind;
use tidekeeper::vault::timeline;

use super::stage::Stage;
use crate::vault::estate::Dice;

fn later(at: Timestamp, seconds: u64) -> Timestamp {
    at + Duration::from_secs(seconds)
}

/// A stage with a backup, and so many seconds of words after it.
async fn filled(name: &str, seconds: u32) -> Stage {
    let mut stage = Stage::new(name);
    stage.flow(5).await;
    assert_eq!(stage.back_up().await.outcome, End::Succeeded);
    stage.flow(seconds).await;
    stage
}

#[tokio::test(start_paused = true)]
async fn a_window_begins_with_a_backup_and_grows() {
    let mut stage = Stage::new("brook-window");
    stage.flow(30).await;
    let view = stage.app.timeline(&stage.name).await.unwrap();
    assert!(view.windows.is_empty() && view.stretches.len() == 1, "{view:?}");
    assert!(view.summary.contains("no good backup is in its timeline"), "{}", view.summary);

    assert_eq!(stage.back_up().await.outcome, End::Succeeded);
    let view = stage.app.timeline(&stage.name).await.unwrap();
    let [window] = view.windows.as_slice() else { panic!("{view:?}") };
    let (from, to) = (window.from.unwrap(), window.to.unwrap());
    assert!(stage.clock.now().duration_since(to) < SignedDuration::from_secs(5), "it was sealed: {view:?}");
    assert!(view.summary.starts_with(&format!("brook-window can be restored to {to} alone, ")), "{view:?}");

    stage.flow(60).await;
    let view = stage.app.timeline(&stage.name).await.unwrap();
    assert_eq!((view.windows.len(), view.windows[0].from), (1, Some(from)));
    let to = view.windows[0].to.unwrap();
    assert_eq!(view.summary, format!("brook-window can be restored to any second from {from} to {to}"));
    let lag = view.lag_s.unwrap();
    assert!((0..=23).contains(&lag), "segments are closed after 20 s: {lag}");
    let status = stage.app.status(&stage.engine).await.unwrap();
    let [source] = status.sources.as_slice() else { panic!("{status:?}") };
    assert_eq!(source.window.map(|window| window.from), Some(from));
    assert!(source.rpo_s.unwrap() <= 45, "the window counts, not the backup: {source:?}");
    assert_eq!(stage.app.timelines().await.unwrap().len(), 1);
}

#[tokio::test(start_paused = true)]
async fn a_window_without_a_segment_is_the_moment_of_its_backup() {
    let mut stage = Stage::new("brook-alone");
    stage.rest(2).await;
    assert_eq!(stage.back_up().await.outcome, End::Succeeded);
    let view = stage.app.timeline(&stage.name).await.unwrap();
    let [window] = view.windows.as_slice() else { panic!("{view:?}") };
    assert_eq!((view.segments, window.from_position), (0, window.to_position), "{view:?}");
    let (only, base) = (window.from.unwrap(), window.base.clone().unwrap());
    let said = format!(
        "brook-alone can be restored to {only} alone, the moment of backup {base}; nothing after that second is \
         stored"
    );
    assert_eq!(view.summary, said);
    // It is, even where the log cannot be read any more; and nothing else is.
    stage.bed.break_log(Some("as told"));
    stage.rest(30).await;
    let done = stage.restore(&stage.wish(only)).await;
    assert_eq!(done.outcome, End::Succeeded, "{:?}", done.error);
    assert_eq!(stage.pond.words(), ["spring"]);
    let refused = stage.plan(&stage.wish(later(only, 5))).await.unwrap_err();
    assert!(refused.to_string().contains(&said), "{refused}");
}

#[tokio::test(start_paused = true)]
async fn random_moments_come_back_exactly() {
    let mut stage = filled("brook-moments", 50).await;
    assert_eq!(stage.back_up().await.outcome, End::Succeeded);
    stage.flow(50).await;
    let view = stage.app.timeline(&stage.name).await.unwrap();
    let (from, to) = (view.windows[0].from.unwrap(), view.windows[0].to.unwrap());
    let span = to.duration_since(from).as_secs() as u64;
    let seed = 20_261_121;
    let mut dice = Dice(seed);
    for n in 0..12 {
        let at = later(from, 1 + dice.below(span - 1));
        let wish = stage.wish(at);
        let done = stage.restore(&wish).await;
        assert_eq!(done.outcome, End::Succeeded, "{:?}", done.error);
        assert_eq!(stage.pond.words(), stage.bed.words_at(at), "moment {n}, {at}, seed {seed}");
    }
}

#[tokio::test(start_paused = true)]
async fn a_moment_ago_is_sealed_first() {
    let mut stage = filled("brook-ago", 35).await;
    let at = stage.clock.now() - SignedDuration::from_secs(2);
    let end = stage.app.timeline(&stage.name).await.unwrap().windows[0].to.unwrap();
    assert!(end < at, "it is not stored yet: {end} {at}");
    let wish = stage.wish(at);
    assert_eq!(stage.plan(&wish).await.unwrap().at, Some(at));
    let done = stage.restore(&wish).await;
    assert_eq!(done.outcome, End::Succeeded, "{:?}", done.error);
    assert_eq!(stage.pond.words(), stage.bed.words_at(at));
}

#[tokio::test(start_paused = true)]
async fn where_nothing_was_written_since_the_end_of_the_log_is_that_moment() {
    let mut stage = filled("brook-idle", 10).await;
    stage.rest(100).await;
    for ago in [60, 1] {
        let at = stage.clock.now() - SignedDuration::from_secs(ago);
        let wish = stage.wish(at);
        let hash = stage.plan(&wish).await.unwrap().hash();
        let confirmed = RestoreWish { confirm: Some(hash), ..wish };
        let done = stage.restore(&confirmed).await;
        assert_eq!(done.outcome, End::Succeeded, "{:?}", done.error);
        assert_eq!(stage.pond.words(), stage.bed.words_at(at));
    }
    // Within this very second more may come: it is waited for its end.
    stage.write();
    let now = stage.clock.now();
    let done = stage.restore(&stage.wish(now)).await;
    assert_eq!(done.outcome, End::Succeeded, "{:?}", done.error);
    assert_eq!(stage.pond.words(), stage.bed.words_at(now));
}

#[tokio::test(start_paused = true)]
async fn a_command_without_a_daemon_seals_itself() {
    let mut stage = filled("brook-command", 30).await;
    stage.end_daemon().await;
    for _ in 0..3 {
        stage.write();
        stage.clock.sleep(Duration::from_secs(1)).await;
    }
    stage.clock.sleep(Duration::from_secs(3)).await;
    let at = stage.clock.now() - SignedDuration::from_secs(4);
    let (app, engine) = stage.process("command");
    let task = app.task("plan", Duration::from_secs(300));
    let plan = app.plan_restore(&stage.wish(at), &engine, &task).await.unwrap();
    assert_eq!(plan.at, Some(at));
    let end = app.timeline(&stage.name).await.unwrap().windows[0].to.unwrap();
    assert!(end.as_second() >= at.as_second(), "{end}");
}

/// What is wrong with the log, as `status` says it, in the daemon's process or in another.
async fn told(stage: &Stage, elsewhere: Option<&str>) -> String {
    let (app, engine) = match elsewhere {
        Some(process) => stage.process(process),
        None => (stage.app.clone(), stage.engine.clone()),
    };
    format!("{:?}", app.status(&engine).await.unwrap().sources.remove(0).problems)
}

#[tokio::test(start_paused = true)]
async fn status_tells_what_keeps_the_log_and_a_gap_until_a_backup_lies_after_it() {
    let mut stage = filled("brook-told", 30).await;
    let says = |told: String, words: &[&str]| {
        assert!(words.iter().all(|words| told.contains(words)), "{words:?}: {told}");
    };
    stage.bed.break_log(Some("as told"));
    stage.flow(70).await;
    stage.bed.roll_over(5);
    let here = told(&stage, None).await;
    says(here.clone(), &["its log is not followed since", "as told", "it is stored up to"]);
    assert!(!here.contains("daemon"), "the cause is known: {here}");
    // From another process only the vault is seen, and where to ask.
    says(told(&stage, Some("far")).await, &["its log was last heard of at", "`tidekeeper --server http://"]);
    stage.bed.break_log(None);
    stage.flow(90).await;
    says(told(&stage, None).await, &["no good backup lies after it: the log has rolled over", "take one"]);
    stage.back_up().await;
    stage.flow(30).await;
    let view = stage.app.timeline(&stage.name).await.unwrap();
    assert_eq!((view.windows.len(), view.gaps.len()), (2, 1), "it is still drawn: {view:?}");
    let mended = told(&stage, None).await;
    assert!(!mended.contains("nothing between"), "nothing can be done about it any more: {mended}");
    stage.end_daemon().await;
    stage.flow(60).await;
    says(told(&stage, Some("far")).await, &["no daemon leads, so nobody follows it"]);
}

#[tokio::test(start_paused = true)]
async fn what_cannot_be_had_is_refused_with_what_can() {
    let mut stage = Stage::new("brook-refused");
    stage.flow(30).await;
    let before = stage.clock.now() - SignedDuration::from_secs(20);
    let none = stage.plan(&stage.wish(before)).await.unwrap_err();
    assert!(none.to_string().contains("no good backup is in its timeline"), "{none}");
    stage.back_up().await;
    stage.flow(30).await;
    // The log cannot be read for a while, and forgets.
    stage.bed.break_log(Some("as told"));
    stage.flow(70).await;
    stage.bed.roll_over(5);
    let lost = stage.clock.now() - SignedDuration::from_secs(30);
    let after = stage.plan(&stage.wish(lost)).await.unwrap_err();
    let window = stage.app.timeline(&stage.name).await.unwrap().windows[0].clone();
    let whole = window.to.unwrap() - SignedDuration::from_secs(1);
    for words in ["after the end of it", &format!("the last second that is stored to its end is {whole}")] {
        assert!(after.to_string().contains(words), "{after}");
    }
    assert!(stage.plan(&stage.wish(whole)).await.is_ok(), "what is said holds, though nobody can seal");
    let hint = after.hint_text().unwrap();
    for words in ["is not stored, and could not be", "as told", "`tidekeeper timeline brook-refused`"] {
        assert!(hint.contains(words), "{words}: {hint}");
    }

    stage.bed.break_log(None);
    stage.flow(90).await;
    // The log goes on, but from no backup yet: then the gap is the reason.
    let behind = stage.plan(&stage.wish(lost)).await.unwrap_err();
    assert!(behind.to_string().contains("the log has rolled over"), "{behind}");
    assert!(
        behind.hint_text().unwrap().contains("tidekeeper backup brook-refused"),
        "{:?}",
        behind.hint_text()
    );
    stage.back_up().await;
    stage.flow(30).await;
    let view = stage.app.timeline(&stage.name).await.unwrap();
    assert_eq!((view.windows.len(), view.gaps.len()), (2, 1), "{view:?}");

    for (at, words) in [
        (before, "before the first backup"),
        (lost, "lies in the gap between"),
        (lost, "the log has rolled over"),
    ] {
        let refused = stage.plan(&stage.wish(at)).await.unwrap_err();
        assert_eq!(refused.kind(), Kind::NotFound);
        let text = refused.to_string();
        assert!(text.contains(words), "{words}: {text}");
        for window in &view.windows {
            assert!(text.contains(&window.from.unwrap().to_string()), "{text}");
        }
    }
    let future = stage.plan(&stage.wish(later(stage.clock.now(), 60))).await.unwrap_err();
    assert_eq!(future.kind(), Kind::Usage);
    assert!(future.to_string().contains(&format!("it is {} now", stage.clock.now())), "{future}");
    let until = view.windows[1].to.unwrap().to_string();
    assert!(future.hint_text().is_some_and(|hint| hint.contains(&until)), "{future:?}");
    let half = stage.plan(&stage.wish(whole + SignedDuration::from_millis(500))).await.unwrap_err();
    assert_eq!(half.kind(), Kind::Usage);
    assert!(half.hint_text().is_some_and(|hint| hint.contains(&format!("{whole} is with all"))), "{half:?}");
}

#[tokio::test(start_paused = true)]
async fn a_restore_into_the_source_ends_its_timeline() {
    let mut stage = filled("brook-closed", 40).await;
    stage.bed.slow_restores(Duration::from_secs(60));
    let at = stage.clock.now() - SignedDuration::from_secs(20);
    let expected = stage.bed.words_at(at);
    let wish = RestoreWish { target: None, ..stage.wish(at) };
    let done = stage.restore(&wish).await;
    assert_eq!(done.outcome, End::Succeeded, "{:?}", done.error);
    assert_eq!(stage.bed.words(), expected);
    assert!(
        done.summary.ends_with(
            "; the window of brook-closed starts anew with its next backup: `tidekeeper backup brook-closed`"
        ),
        "{}",
        done.summary
    );
    assert!(done.summary.contains(&format!(", as of {at}: ")), "{}", done.summary);
    let said = done.detail["plan"]["findings"].to_string();
    assert!(
        said.contains("the target is brook-closed itself") && said.contains("its timeline ends"),
        "{said}"
    );

    stage.flow(60).await;
    let timelines = timeline::list(&stage.app.vault, &stage.name).await.unwrap();
    assert_eq!(timelines.len(), 2, "another began");
    let end = timelines[0].end.clone().unwrap().expect("it was closed");
    assert!(end.why.contains("restored into the source"), "{}", end.why);
    let begun = timelines[1].origin.clone().unwrap().at;
    assert!(begun >= done.finished_at - SignedDuration::from_secs(1), "only after the restore: {begun}");
    let view = stage.app.timeline(&stage.name).await.unwrap();
    assert_eq!(view.windows.len(), 1);
    assert_eq!(view.timelines[0].ended.as_ref().map(|ended| &ended.why), Some(&end.why));
    // What the window held can still be had, and the next backup begins the next.
    assert!(stage.plan(&stage.wish(at)).await.is_ok());
    stage.back_up().await;
    assert_eq!(stage.app.timeline(&stage.name).await.unwrap().windows.len(), 2);

    // A restore into another place leaves it alone.
    let elsewhere = stage.restore(&stage.wish(at)).await;
    assert_eq!(elsewhere.outcome, End::Succeeded);
    let timelines = timeline::list(&stage.app.vault, &stage.name).await.unwrap();
    assert!(timelines.len() == 2 && timelines[1].end == Ok(None));
}

/// A command restores into the source, while the daemon follows it and others go on writing.
async fn restored_by_a_command(stage: &mut Stage, at: Timestamp) -> Finished {
    let wish = RestoreWish { target: None, ..stage.wish(at) };
    let work = stage.commanded("command", &wish);
    let mut work = std::pin::pin!(work);
    loop {
        tokio::select! {
            biased;
            done = &mut work => return done,
            () = stage.flow(1) => {}
        }
    }
}

#[tokio::test(start_paused = true)]
async fn a_command_has_the_log_stored_before_it_restores_into_the_source() {
    let mut stage = filled("brook-command-closes", 50).await;
    stage.bed.slow_restores(Duration::from_secs(60));
    let began = stage.clock.now();
    let done = restored_by_a_command(&mut stage, began - SignedDuration::from_secs(30)).await;
    assert_eq!(done.outcome, End::Succeeded, "{:?}", done.error);
    assert!(done.summary.contains("starts anew with its next backup"), "{}", done.summary);
    let view = stage.app.timeline(&stage.name).await.unwrap();
    let end = view.windows[0].to.unwrap();
    assert!(
        end >= began - SignedDuration::from_secs(1),
        "nothing from before the restore is lost: {end} {began}"
    );

    // Where that cannot be had it is said.
    let mut stage = filled("brook-command-blind", 50).await;
    let at = stage.clock.now() - SignedDuration::from_secs(30);
    stage.bed.break_log(Some("as told"));
    let done = restored_by_a_command(&mut stage, at).await;
    assert_eq!(done.outcome, End::Succeeded, "{:?}", done.error);
    for words in ["the one before may end with its last segment", "as told"] {
        assert!(done.summary.contains(words), "{words}: {}", done.summary);
    }
}

#[tokio::test(start_paused = true)]
async fn a_seal_tells_up_to_where() {
    let mut stage = filled("brook-seal", 3).await;
    let done = stage.run(Order::new(Action::Seal, Some(stage.name.clone()))).await;
    assert_eq!(done.outcome, End::Succeeded, "{:?}", done.error);
    let end = stage.app.timeline(&stage.name).await.unwrap().windows[0].clone();
    assert_eq!(done.detail["position"], end.to_position.to_string());
    assert_eq!(done.detail["moment"], end.to.unwrap().to_string());
    let unknown = stage.run(Order::new(Action::Seal, Some("brook-nowhere".parse().unwrap()))).await;
    assert_eq!(unknown.error.unwrap().code, "not-found");
}

#[tokio::test(start_paused = true)]
async fn a_stream_is_extracted_into_a_new_file_only() {
    let stage = filled("brook-extract", 1).await;
    let listing = stage.app.catalog.list(None).await.unwrap();
    let backup = &listing.rows[0].backup;
    let folder = tempfile::tempdir().unwrap();
    let file = folder.path().join("words.txt");
    let task = stage.app.task("extract", Duration::from_secs(60));
    let extract = async |format: &str, to| stage.app.extract(backup, Some(format), to, &task).await;
    let files = extract("words", Destination::Path(&file)).await.unwrap();
    assert_eq!((files.len(), files[0].path.as_str()), (1, ""));
    assert!(std::fs::read_to_string(&file).unwrap().starts_with("spring\nword-1\n"));
    let again = extract("words", Destination::Path(&file)).await.unwrap_err();
    assert_eq!(again.kind(), Kind::Refused);
    let refused = extract("directory", Destination::Stdout).await.unwrap_err();
    assert_eq!(refused.kind(), Kind::Usage);
    assert!(refused.hint_text().unwrap().contains("a stream: words"), "{:?}", refused.hint_text());
}
