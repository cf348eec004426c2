use std::cell::Cell;
use std::time::Duration;

use bytes::Bytes;
use mongodb::bson::{Document, doc};
use tidekeeper::error::Result;
use tidekeeper::source::mongodb::oplog::tail::{Lost, Opened, Tail, newest, oldest, open_since};
use tidekeeper::source::mongodb::optime::OpTime;

use super::ground::{Ground, assembler, assert_same, entries, insert, log, transaction, units};
use crate::harness::mongodb::MongoServer;
use crate::harness::{wait_for, within};

const LIMIT: Duration = Duration::from_secs(90);

async fn open(ground: &Ground, server: &MongoServer, from: OpTime) -> Tail {
    let link = ground.link(server).await;
    match Tail::open(&link, from, &ground.task).await.expect("the server answers") {
        Opened::Here(tail) => tail,
        Opened::Gone { oldest } => panic!("{from} is gone, the log begins at {oldest:?}"),
    }
}

/// Reads up to `to`; the first record apart from the others.
async fn read_to(tail: &mut Tail, to: OpTime) -> Result<Vec<(OpTime, Bytes)>> {
    let mut all = Vec::new();
    while all.last().is_none_or(|(at, _)| *at < to) {
        all.extend(tail.next().await?);
    }
    Ok(all)
}

fn ascend(records: &[(OpTime, Bytes)]) -> bool {
    records.windows(2).all(|pair| pair[0].0 < pair[1].0)
}

#[tokio::test]
async fn begins_with_the_record_itself_and_follows_what_is_written() {
    let (server, ground) = (MongoServer::start(&[]).await, Ground::new());
    insert(&server, 0, 100).await;
    let from = ground.head(&server).await;
    insert(&server, 100, 300).await;
    let mut tail = open(&ground, &server, from).await;
    let mut records = read_to(&mut tail, ground.head(&server).await).await.expect("it is read");
    assert_eq!(records[0].0, from);
    insert(&server, 400, 50).await;
    transaction(&server, 1000).await;
    let head = ground.head(&server).await;
    records.extend(within("it follows", LIMIT, read_to(&mut tail, head)).await.expect("it is read"));
    assert!(ascend(&records));
    let plain: Vec<u8> = records[1..].iter().flat_map(|(_, record)| record.to_vec()).collect();
    assert_same(&plain, &log(&server, from, head).await);

    // The transaction is one record, and one unit.
    let last = records.pop().expect("some").1;
    assert_eq!(entries(last.clone()).expect("entries").len(), 3);
    let units = units(&mut assembler(OpTime::ZERO), last).await.expect("a unit");
    assert_eq!((units.len(), units[0].ops.len(), units[0].is_transaction), (1, 3, true));
    tail.prove().await.expect("nothing was overwritten");
}

#[tokio::test]
async fn loses_nothing_when_dropped_at_any_await_while_others_write() {
    let (server, ground) = (MongoServer::start(&["--oplog-max-entries", "20000"]).await, Ground::new());
    insert(&server, 0, 10).await;
    let from = ground.head(&server).await;
    let mut tail = open(&ground, &server, from).await;
    let mut records = Vec::new();
    let dropped = Cell::new(0);
    // A fast server would be through before a slow reader was dropped often enough.
    let mut writes = std::pin::pin!(async {
        let mut round = 0;
        while round < 30 || dropped.get() <= 10 {
            insert(&server, 100 + round * 20, 20).await;
            transaction(&server, 100_000 + round * 3).await;
            round += 1;
        }
    });
    let reads = async {
        loop {
            tokio::select! {
                biased;
                () = &mut writes => break,
                more = tail.next() => records.extend(more.expect("it is read")),
                () = ground.clock.sleep(Duration::from_millis(dropped.get() % 23)) => dropped.set(dropped.get() + 1),
            }
        }
    };
    within("it is dropped often enough", LIMIT, reads).await;
    let dropped = dropped.get();
    let head = ground.head(&server).await;
    if records.last().is_none_or(|(at, _): &(OpTime, Bytes)| *at < head) {
        records.extend(within("it follows", LIMIT, read_to(&mut tail, head)).await.expect("it is read"));
    }
    println!("{} records, dropped {dropped} times", records.len());
    assert!(dropped > 10 && ascend(&records));
    let plain: Vec<u8> = records[1..].iter().flat_map(|(_, record)| record.to_vec()).collect();
    assert_same(&plain, &log(&server, from, head).await);
}

#[tokio::test]
async fn misses_nothing_of_what_is_written_while_it_opens() {
    let (server, ground) = (MongoServer::start(&[]).await, Ground::new());
    insert(&server, 0, 10).await;
    let client = server.client().await;
    let write = async |collection: &str| {
        let collection = client.database("shop").collection::<Document>(collection);
        for id in 1000.. {
            collection.insert_one(doc! { "_id": id }).await.expect("it is inserted");
        }
    };
    let mut writes = std::pin::pin!(async { tokio::join!(write("carts"), write("orders")) });
    let reads = async {
        for round in 0..20 {
            let from = ground.head(&server).await;
            let mut tail = open(&ground, &server, from).await;
            let mut records = Vec::new();
            while records.len() < 150 {
                records.extend(tail.next().await.expect("it is read"));
            }
            let to = records.last().expect("some").0;
            let plain: Vec<u8> = records[1..].iter().flat_map(|(_, record)| record.to_vec()).collect();
            println!("round {round}: {} records", records.len());
            assert_same(&plain, &log(&server, from, to).await);
        }
    };
    let both = async {
        tokio::select! {
            () = reads => {}
            _ = &mut writes => unreachable!("it writes for ever"),
        }
    };
    within("twenty times", LIMIT, both).await;
}

#[tokio::test]
async fn goes_on_over_a_killed_server() {
    let (mut server, ground) = (MongoServer::start(&[]).await, Ground::new());
    insert(&server, 0, 50).await;
    let from = ground.head(&server).await;
    let mut tail = open(&ground, &server, from).await;
    insert(&server, 100, 50).await;
    let mut records = read_to(&mut tail, ground.head(&server).await).await.expect("it is read");
    let (more, ()) = tokio::join!(tail.next(), async {
        server.restart().await;
        insert(&server, 200, 50).await;
    });
    records.extend(more.expect("it goes on"));
    let head = ground.head(&server).await;
    if records.last().expect("some").0 < head {
        records.extend(within("it follows", LIMIT, read_to(&mut tail, head)).await.expect("it is read"));
    }
    let plain: Vec<u8> = records[1..].iter().flat_map(|(_, record)| record.to_vec()).collect();
    assert_same(&plain, &log(&server, from, head).await);
}

#[tokio::test]
async fn a_log_that_has_rolled_over_is_told_apart() {
    let (server, ground) = (MongoServer::start(&["--oplog-max-entries", "50"]).await, Ground::new());
    insert(&server, 0, 10).await;
    let from = ground.head(&server).await;
    let mut tail = open(&ground, &server, from).await;
    tail.next().await.expect("the record itself");
    insert(&server, 100, 4000).await;
    let link = ground.link(&server).await;
    wait_for("the log rolls over", LIMIT, async || {
        oldest(&link, &ground.task).await.expect("it tells").is_some_and(|oldest| oldest > from)
    })
    .await;
    match Tail::open(&link, from, &ground.task).await.expect("it tells") {
        Opened::Gone { oldest: Some(oldest) } => assert!(oldest > from),
        other => panic!("{other:?}"),
    }
    let error = within("it is lost", LIMIT, async {
        loop {
            if let Err(error) = tail.next().await {
                break error;
            }
            if let Err(error) = tail.prove().await {
                break error;
            }
        }
    })
    .await;
    assert!(matches!(Lost::of(&error), Some(Lost::RolledOver { .. })), "{error:?}");
    assert!(error.to_string().contains("the oplog has rolled over, it begins at"), "{error}");
}

/// Puts a whole folder where another was.
fn copy_data(from: &std::path::Path, to: &std::path::Path) {
    let _ = std::fs::remove_dir_all(to);
    let done = std::process::Command::new("cp").arg("-a").arg(from).arg(to).status();
    assert!(done.expect("cp runs").success());
}

#[tokio::test]
async fn a_log_that_was_rolled_back_is_told_apart() {
    let (mut server, ground) = (MongoServer::start(&[]).await, Ground::new());
    let (data, old) = (server.folder.path().join("data"), server.folder.path().join("old"));
    insert(&server, 0, 50).await;
    server.stop().await;
    copy_data(&data, &old);
    server.start_again(&[]).await;
    insert(&server, 100, 50).await;
    let from = ground.head(&server).await;
    let mut tail = open(&ground, &server, from).await;
    tail.next().await.expect("the record itself");
    server.stop().await;
    copy_data(&old, &data);
    server.start_again(&[]).await;
    let error = within("it is lost", LIMIT, tail.next()).await.expect_err("the record is no more");
    assert_eq!(Lost::of(&error), Some(&Lost::RolledBack { at: from }), "{error:?}");
}

#[tokio::test]
async fn a_standalone_server_has_no_log() {
    let (server, ground) = (MongoServer::start(&["--standalone"]).await, Ground::new());
    let link = ground.link(&server).await;
    assert_eq!(newest(&link, &ground.task).await.expect("it tells"), None);
    assert_eq!(oldest(&link, &ground.task).await.expect("it tells"), None);
    assert_eq!(open_since(&link, &ground.task).await.expect("it tells"), None);
}
