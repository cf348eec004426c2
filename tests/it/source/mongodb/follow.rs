use std::time::Duration;

use tidekeeper::error::{Kind, Result};
use tidekeeper::source::Until;
use tidekeeper::source::mongodb::client::Server;
use tidekeeper::source::mongodb::follow::follow;
use tidekeeper::source::mongodb::oplog::entry::record_length;
use tidekeeper::source::mongodb::oplog::records::Records;
use tidekeeper::source::mongodb::optime::OpTime;
use tidekeeper::task::Task;
use tidekeeper::vault::layout::{BackupId, BackupRef, random};
use tidekeeper::vault::manifest::Status;
use tidekeeper::vault::reader::BackupReader;
use tidekeeper::vault::timeline::chain::stretches;
use tidekeeper::vault::timeline::writer::{Bounds, Sealer, TimelineWriter};
use tidekeeper::vault::timeline::{End, Timeline, close, list};
use tidekeeper::vault::writer::{BackupWriter, Capture, LogPoint};

use super::ground::{Ground, Leads, assert_same, insert, log, transaction};
use crate::harness::mongodb::MongoServer;
use crate::harness::{wait_for, within};

const LIMIT: Duration = Duration::from_secs(120);

pub const OFTEN: Bounds = Bounds { age: Duration::from_millis(300), plain_bytes: 40_000 };

pub fn writer(ground: &Ground, bounds: Bounds) -> (TimelineWriter<'static>, Sealer) {
    let source = "mongo-main".parse().expect("a name");
    TimelineWriter::new(&ground.vault, &source, "mongodb", &Leads, bounds, record_length)
}

pub async fn to_newest(ground: &Ground, server: &MongoServer) -> Result<()> {
    let (mut out, _) = writer(ground, OFTEN);
    let settings = server.settings();
    let done = follow(&settings, Until::Newest, &ground.task, &mut out);
    within("it reaches the newest record", LIMIT, done).await
}

pub async fn timelines(ground: &Ground) -> Vec<Timeline> {
    list(&ground.vault, &"mongo-main".parse().expect("a name")).await.expect("they are listed")
}

/// Why each began.
async fn whys(ground: &Ground) -> Vec<String> {
    timelines(ground).await.into_iter().map(|timeline| timeline.origin.expect("an origin").why).collect()
}

/// A backup without data, of a place in the log.
async fn base(ground: &Ground, server: &MongoServer, position: OpTime) -> BackupReader {
    let source = "mongo-main".parse().expect("a name");
    let backup = BackupRef { source, id: BackupId::new(ground.clock.now(), None, random() as u32) };
    let out = BackupWriter::new(&ground.vault, backup.clone(), "mongodb", &ground.task, ground.clock.now());
    let server = Server::ask(&ground.link(server).await).await.expect("it tells");
    let identity = server.log_identity().expect("it has a log");
    let log = Some(LogPoint { identity, position: position.position() });
    out.commit(Capture { log, ..Capture::default() }, Status::Complete, None).await.expect("it is committed");
    BackupReader::open_backup(&ground.vault, &backup).await.expect("it is there")
}

/// What a restore reads of the log, from a base to a place.
async fn replayed(ground: &Ground, base: &BackupReader, to: OpTime) -> Result<Vec<u8>> {
    let log = base.log(to.position(), record_length, &ground.task).await?;
    let mut records = Records::of(base, log.as_ref(), &ground.task).until(to);
    let mut plain = Vec::new();
    let from = OpTime::from(base.manifest.log_position.expect("a position"));
    while let Some((at, record)) = records.next().await? {
        if at > from {
            plain.extend_from_slice(&record);
        }
    }
    Ok(plain)
}

pub async fn assert_kept(ground: &Ground, server: &MongoServer, from: OpTime, to: OpTime) {
    let base = base(ground, server, from).await;
    let found = replayed(ground, &base, to).await.expect("the chain is whole");
    assert_same(&found, &log(server, from, to).await);
}

#[tokio::test]
async fn the_first_timeline_begins_at_the_newest_record_and_is_gone_on_with() {
    let (server, ground) = (MongoServer::start(&[]).await, Ground::new());
    insert(&server, 0, 100).await;
    let from = ground.head(&server).await;
    to_newest(&ground, &server).await.expect("it begins");
    for round in 0..3 {
        insert(&server, 1000 + round * 200, 150).await;
        transaction(&server, 10_000 + round * 3).await;
        to_newest(&ground, &server).await.expect("it goes on");
    }
    assert_eq!(whys(&ground).await, ["the first"]);
    assert_kept(&ground, &server, from, ground.head(&server).await).await;
}

#[tokio::test]
async fn killed_at_any_moment_it_goes_on_without_a_gap() {
    let (server, ground) = (MongoServer::start(&["--oplog-max-entries", "20000"]).await, Ground::new());
    insert(&server, 0, 10).await;
    let from = ground.head(&server).await;
    to_newest(&ground, &server).await.expect("it begins");
    let settings = server.settings();
    let mut writes = std::pin::pin!(async {
        for round in 0..40 {
            insert(&server, 100 + round * 30, 30).await;
            transaction(&server, 10_000 + round * 3).await;
        }
    });
    let mut kills = 0;
    loop {
        let (mut out, _) = writer(&ground, OFTEN);
        let patience = Duration::from_millis(100 + 170 * (kills % 20));
        tokio::select! {
            biased;
            () = &mut writes => break,
            ended = follow(&settings, Until::Cancelled, &ground.task, &mut out) => panic!("{ended:?}"),
            () = ground.clock.sleep(patience) => kills += 1,
        }
    }
    to_newest(&ground, &server).await.expect("it goes on");
    let found = timelines(&ground).await;
    println!("killed {kills} times, {} segments", found[0].segments.len());
    assert_eq!(found.len(), 1, "{:?}", whys(&ground).await);
    assert_eq!(stretches(&found[0]).len(), 1);
    assert_kept(&ground, &server, from, ground.head(&server).await).await;
}

#[tokio::test]
async fn seals_when_asked_and_at_the_end() {
    let (server, ground) = (MongoServer::start(&[]).await, Ground::new());
    insert(&server, 0, 10).await;
    let (mut out, sealer) = writer(&ground, Bounds { age: Duration::from_secs(3600), ..OFTEN });
    let settings = server.settings();
    let task = Task { cancel: Default::default(), ..ground.task.clone() };
    let from = ground.head(&server).await;
    to_newest(&ground, &server).await.expect("it begins");
    let asks = async {
        let mut heads = Vec::new();
        for round in 0..3 {
            insert(&server, 100 + round * 20, 20).await;
            let head = ground.head(&server).await;
            let sealed = within("it is sealed", LIMIT, sealer.seal()).await.expect("it is sealed");
            assert!(sealed >= head.position(), "{sealed} is before {head}");
            heads.push(head);
        }
        insert(&server, 1000, 20).await;
        let last = ground.head(&server).await;
        // What the follower has read by then is stored at its end.
        ground.clock.sleep(Duration::from_secs(3)).await;
        task.cancel.cancel();
        last
    };
    let (ended, last) = tokio::join!(follow(&settings, Until::Cancelled, &task, &mut out), asks);
    ended.expect("it ends well");
    let to = stretches(&timelines(&ground).await[0])[0].to;
    assert_eq!(OpTime::from(to), last);
    assert_kept(&ground, &server, from, last).await;
}

#[tokio::test]
async fn a_log_that_rolled_over_shows_its_gap() {
    let (server, ground) = (MongoServer::start(&["--oplog-max-entries", "50"]).await, Ground::new());
    insert(&server, 0, 10).await;
    let from = ground.head(&server).await;
    to_newest(&ground, &server).await.expect("it begins");
    insert(&server, 100, 20).await;
    to_newest(&ground, &server).await.expect("it goes on");
    let before = ground.head(&server).await;
    let kept = log(&server, from, before).await;
    insert(&server, 1000, 4000).await;
    let meanwhile = ground.head(&server).await;
    to_newest(&ground, &server).await.expect("it begins anew");
    insert(&server, 9000, 20).await;
    to_newest(&ground, &server).await.expect("it goes on");
    let whys = whys(&ground).await;
    assert_eq!(whys.len(), 2, "{whys:?}");
    assert!(
        whys[1].starts_with(&format!("the record at {before} is gone: the oplog has rolled over")),
        "{whys:?}"
    );
    // The new one begins as early as the log reaches, so that a backup made meanwhile has a window.
    let origin = timelines(&ground).await[1].origin.clone().expect("an origin");
    assert!(OpTime::from(origin.from) < meanwhile);
    let head = ground.head(&server).await;
    assert_kept(&ground, &server, meanwhile, head).await;
    let base = base(&ground, &server, from).await;
    assert_same(&replayed(&ground, &base, before).await.expect("the chain is whole"), &kept);
    let refused = replayed(&ground, &base, head).await.expect_err("there is a gap");
    assert_eq!(refused.kind(), Kind::NotFound, "{refused}");
}

#[tokio::test]
async fn another_replica_set_begins_another_timeline() {
    let (one, other, ground) = (MongoServer::start(&[]).await, MongoServer::start(&[]).await, Ground::new());
    insert(&one, 0, 10).await;
    insert(&other, 0, 10).await;
    to_newest(&ground, &one).await.expect("it begins");
    to_newest(&ground, &other).await.expect("it begins anew");
    let whys = whys(&ground).await;
    assert!(whys.len() == 2 && whys[1].starts_with("another replica set: "), "{whys:?}");
}

#[tokio::test]
async fn a_closed_timeline_ends_where_it_was_closed_and_the_next_says_why() {
    let (server, ground) = (MongoServer::start(&[]).await, Ground::new());
    insert(&server, 0, 10).await;
    let from = ground.head(&server).await;
    let settings = server.settings();
    let (mut out, _sealer) = writer(&ground, OFTEN);
    let closing = async {
        wait_for("it begins", LIMIT, async || !timelines(&ground).await.is_empty()).await;
        insert(&server, 100, 30).await;
        let position = ground.head(&server).await.position();
        let end =
            End { position, why: "a restore wrote to it".into(), writer: "w".into(), at: ground.clock.now() };
        let timeline = timelines(&ground).await.remove(0);
        let source = "mongo-main".parse().expect("a name");
        close(&ground.vault, &source, &timeline.id, end).await.expect("it is closed");
        insert(&server, 500, 30).await;
        OpTime::from(position)
    };
    let follows = follow(&settings, Until::Cancelled, &ground.task, &mut out);
    let (ended, closed_at) = within("it ends", LIMIT, async { tokio::join!(follows, closing) }).await;
    ended.expect("it ends well");
    let stretch = stretches(&timelines(&ground).await[0]).remove(0);
    assert_eq!(OpTime::from(stretch.to), closed_at);
    assert_kept(&ground, &server, from, closed_at).await;
    to_newest(&ground, &server).await.expect("the next begins");
    assert_eq!(whys(&ground).await, ["the first", "a restore wrote to it"]);
}

#[tokio::test]
async fn a_timeline_that_was_closed_while_nobody_followed_gets_what_the_log_still_holds() {
    let (server, ground) = (MongoServer::start(&[]).await, Ground::new());
    insert(&server, 0, 10).await;
    let from = ground.head(&server).await;
    to_newest(&ground, &server).await.expect("it begins");
    insert(&server, 100, 30).await;
    let closed_at = ground.head(&server).await;
    let (position, at) = (closed_at.position(), ground.clock.now());
    let end = End { position, why: "a restore wrote to it".into(), writer: "w".into(), at };
    let source = "mongo-main".parse().expect("a name");
    let id = timelines(&ground).await.remove(0).id;
    close(&ground.vault, &source, &id, end).await.expect("it is closed");
    insert(&server, 500, 30).await;
    to_newest(&ground, &server).await.expect("it is completed, and the next begins");
    let stretch = stretches(&timelines(&ground).await[0]).remove(0);
    assert_eq!(OpTime::from(stretch.to), closed_at, "all up to its end, and nothing beyond");
    assert_kept(&ground, &server, from, closed_at).await;
    assert_eq!(whys(&ground).await, ["the first", "a restore wrote to it"]);
}

#[tokio::test]
async fn a_standalone_server_is_refused_with_the_way_out() {
    let (server, ground) = (MongoServer::start(&["--standalone"]).await, Ground::new());
    let error = to_newest(&ground, &server).await.expect_err("it has no log");
    assert_eq!(error.kind(), Kind::Unsupported);
    assert!(error.hint_text().expect("a hint").contains("rs.initiate()"), "{error:?}");
}
