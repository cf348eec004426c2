use bytes::Bytes;
use mongodb::bson::doc;
use tidekeeper::error::{Kind, Result};
use tidekeeper::source::mongodb::facts::Facts;
use tidekeeper::source::mongodb::oplog::entry::record_length;
use tidekeeper::source::mongodb::oplog::records::Records;
use tidekeeper::source::mongodb::optime::OpTime;

use super::follow::to_newest;
use super::ground::{self, Ground, assert_same, at, entry, log, transaction};
use super::stage::Stage;
use crate::harness::mongodb::MongoServer;
use crate::vault::estate::Dice;

fn insert(increment: u32) -> Bytes {
    entry(increment, doc! { "op": "i", "o": { "_id": increment } })
}

fn part(increments: impl IntoIterator<Item = u32>) -> Bytes {
    increments.into_iter().map(insert).collect::<Vec<_>>().concat().into()
}

async fn read(mut records: Records) -> Result<Vec<(OpTime, Bytes)>> {
    let mut read = Vec::new();
    while let Some(record) = records.next().await? {
        read.push(record);
    }
    Ok(read)
}

#[tokio::test]
async fn parts_that_overlap_give_each_record_once() {
    let ground = Ground::new();
    let parts = vec![part(1..=5), part(5..=7), part([3, 4, 5, 6, 7, 8])];
    let all = read(Records::given(parts, &ground.task)).await.expect("they agree");
    let expected: Vec<_> = (1..=8).map(|n| (at(100, n), insert(n))).collect();
    assert_eq!(all, expected);
}

#[tokio::test]
async fn nothing_after_the_cut_is_handed_out() {
    let ground = Ground::new();
    let records = Records::given(vec![part(1..=5), part(5..=9)], &ground.task).until(at(100, 6));
    let last = read(records).await.expect("they agree").pop().expect("some");
    assert_eq!(last.0, at(100, 6));
}

#[tokio::test]
async fn entries_of_one_place_are_one_record() {
    let ground = Ground::new();
    let pair = Bytes::from([insert(2), entry(2, doc! { "op": "d", "o": { "_id": 2 } })].concat());
    let one = Bytes::from([part([1]), pair.clone()].concat());
    let two = Bytes::from([pair.clone(), part([3])].concat());
    let all = read(Records::given(vec![one, two], &ground.task)).await.expect("they agree");
    assert_eq!(all, [(at(100, 1), insert(1)), (at(100, 2), pair), (at(100, 3), insert(3))]);
}

#[tokio::test]
async fn a_hole_a_quarrel_and_a_cut_are_damage() {
    let ground = Ground::new();
    let other = entry(5, doc! { "op": "i", "o": { "_id": "another" } });
    let cut = part(5..=6);
    for (second, why) in [
        (part(6..=9), "is not in it"),
        (other, "is another"),
        (part([5, 7, 6]), "stands after"),
        (cut.slice(..cut.len() - 2), "end inside"),
    ] {
        let parts = vec![part(1..=5), second];
        let error = read(Records::given(parts, &ground.task)).await.expect_err("it must not pass");
        assert_eq!(error.kind(), Kind::Damaged);
        assert!(error.to_string().contains(why), "{error}");
    }
}

/// A dump while somebody writes keeps its own part of the log, which the timeline beside it has too: both together are what
/// the server's log holds, each record once, whether all of it is wanted or up to any place.
#[tokio::test]
async fn a_backups_own_log_and_its_timeline_are_the_servers_log() {
    let (stage, server) = (Stage::new(), MongoServer::start(&[]).await);
    let followed = Ground::of(stage.vault.clone());
    ground::insert(&server, 0, 500).await;
    to_newest(&followed, &server).await.expect("it begins");
    let writes = async {
        for round in 0..12 {
            ground::insert(&server, 1000 + round * 20, 20).await;
            transaction(&server, 10_000 + round * 3).await;
        }
    };
    let settings = server.settings();
    let (backup, ()) = tokio::join!(stage.back_up(&settings, 2 << 10), writes);
    let (_, backup) = backup.expect("it is backed up");
    ground::insert(&server, 2000, 100).await;
    to_newest(&followed, &server).await.expect("it goes on");
    let (exact, head) =
        (Facts::of(&backup.manifest).exact_at.expect("a place"), followed.head(&server).await);

    let own = read(Records::of(&backup, None, &stage.task)).await.expect("it is whole");
    let from = own.first().expect("some").0;
    assert!(
        from < exact && own.last().is_some_and(|(at, _)| *at == exact),
        "from {from} to {exact}: {}",
        own.len()
    );
    let plain: Vec<u8> = own[1..].iter().flat_map(|(_, record)| record.to_vec()).collect();
    assert_same(&plain, &log(&server, from, exact).await);

    let leads = backup.log(head.position(), record_length, &stage.task).await.expect("it leads on");
    let all = || Records::of(&backup, leads.as_ref(), &stage.task);
    let whole = read(all()).await.expect("it is whole");
    assert!(whole.windows(2).all(|pair| pair[0].0 < pair[1].0));
    let began = whole.iter().position(|(at, _)| *at == from).expect("it is there");
    let plain: Vec<u8> = whole[began + 1..].iter().flat_map(|(_, record)| record.to_vec()).collect();
    assert_same(&plain, &log(&server, from, head).await);
    let seed = tidekeeper::vault::layout::random();
    let mut dice = Dice(seed);
    for _ in 0..20 {
        let n = dice.below(whole.len() as u64) as usize;
        let cut = read(all().until(whole[n].0)).await.expect("it is whole");
        assert!(cut == whole[..=n], "seed {seed}, up to {}", whole[n].0);
    }
}
