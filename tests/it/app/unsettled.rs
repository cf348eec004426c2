//! A restore that began to write and did not come to its end: what there is to see, what backups are worth, what ends it.

use std::pin::pin;
use std::time::Duration;

use jiff::{SignedDuration, Timestamp};
use tidekeeper::app::RestoreWish;
use tidekeeper::clock::Clock;
use tidekeeper::engine::run::{End, Finished, RunId};
use tidekeeper::engine::views::source::SourceView;
use tidekeeper::engine::work::Grade;
use tidekeeper::error::Kind;
use tidekeeper::vault::manifest::Status;

use super::stage::Stage;

/// How a restore comes to no end.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Fall {
    Killed,
    Cancelled,
}

/// A stage with a backup, a minute of words and some rest, and a restore to that rest, into the source, that fell when it had
/// begun to write.
async fn half_restored(name: &str, fall: Fall) -> (Stage, RestoreWish, RunId) {
    let mut stage = Stage::new(name);
    stage.flow(5).await;
    assert_eq!(stage.back_up().await.outcome, End::Succeeded);
    stage.flow(60).await;
    stage.rest(20).await;
    stage.bed.slow_restores(Duration::from_secs(100));
    let at = stage.clock.now() - SignedDuration::from_secs(5);
    let wish = RestoreWish { target: None, ..stage.wish(at) };
    let restore = stage.commanded("command", &wish);
    let mut restore = pin!(restore);
    tokio::select! {
        biased;
        _ = &mut restore => panic!("it takes longer"),
        () = stage.flow(20) => {}
    }
    let status = view(&stage).await;
    assert!(status.unsettled.is_empty(), "it is under way: {status:?}");
    if fall == Fall::Cancelled {
        let touches = stage.engine.unsettled().await.unwrap();
        stage.engine.cancel(&touches[0].claim.run, "ada").await.unwrap();
        assert_eq!(stage.meanwhile(restore).await.outcome, End::Cancelled);
    }
    stage.kill("command");
    stage.flow(70).await;
    let status = view(&stage).await;
    let [run] = status.unsettled.as_slice() else { panic!("{status:?}") };
    stage.bed.slow_restores(Duration::from_secs(1));
    (stage, wish, run.clone())
}

async fn view(stage: &Stage) -> SourceView {
    stage.app.status(&stage.engine).await.unwrap().sources.remove(0)
}

fn is_suspect(done: &Finished, words: &str) {
    assert_eq!((done.outcome, done.status), (End::Succeeded, Some(Grade::Suspect)), "{done:?}");
    assert!(done.summary.contains(words), "{}", done.summary);
}

fn command(name: &str, at: Timestamp) -> String {
    format!("`tidekeeper restore {name} --at {at} --to {name}`")
}

#[tokio::test(start_paused = true)]
async fn no_backup_counts_until_it_is_done_again() {
    let (mut stage, wish, run) = half_restored("brook-half", Fall::Killed).await;
    let good = view(&stage).await.last_good.unwrap();
    let again = command("brook-half", wish.at.unwrap());
    let status = view(&stage).await;
    let first = &status.problems[0];
    assert!(first.what.contains(run.as_str()) && first.what.contains("was interrupted"), "{first:?}");
    assert!(
        first.advice.contains(&again) && first.advice.contains(&format!("runs cancel {run}")),
        "{first:?}"
    );
    let others = format!("{:?}", &status.problems[1..]);
    assert!(!others.contains("tidekeeper backup"), "nobody is told to make it worse: {others}");
    let hint = stage.engine.run(&run).await.unwrap().error.unwrap().hint.unwrap();
    assert!(hint.contains(&again), "{hint}");

    is_suspect(&stage.back_up().await, &format!("run {run} began to restore into the source"));
    let status = view(&stage).await;
    assert_eq!(status.last_backup.unwrap().status, Some(Status::Suspect));
    assert_eq!(status.last_good.unwrap(), good, "it displaces nothing");

    let done = stage.restore(&wish).await;
    assert_eq!(done.outcome, End::Succeeded, "{:?}", done.error);
    assert_eq!(stage.bed.words().last().map(String::as_str), Some("word-195"), "the last before the rest");
    assert!(view(&stage).await.unsettled.is_empty());
    // Another timeline begins once the restore has ended, and its follower knows.
    stage.flow(40).await;
    assert_eq!(stage.back_up().await.status, Some(Grade::Succeeded));
    stage.flow(30).await;
    let status = view(&stage).await;
    assert!(status.last_good.unwrap().at > good.at);
    let what: Vec<_> = status.problems.iter().map(|one| one.what.as_str()).collect();
    assert_eq!(what, ["it has no schedule: it is never backed up by itself"]);
}

#[tokio::test(start_paused = true)]
async fn or_until_it_is_given_up() {
    for (name, fall) in [("brook-given-up", Fall::Killed), ("brook-cancelled", Fall::Cancelled)] {
        given_up(name, fall).await;
    }
}

async fn given_up(name: &str, fall: Fall) {
    let (mut stage, _, run) = half_restored(name, fall).await;
    stage.engine.cancel(&run, "ada").await.unwrap();
    assert!(view(&stage).await.unsettled.is_empty());
    assert_eq!(stage.back_up().await.status, Some(Grade::Succeeded));
    let again = stage.engine.cancel(&run, "ada").await;
    assert_eq!(
        again.err().map(|error| error.kind()),
        Some(Kind::Conflict),
        "there is nothing left to give up"
    );
}
