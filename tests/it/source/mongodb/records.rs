use bytes::Bytes;
use mongodb::bson::doc;
use tidekeeper::error::{Kind, Result};
use tidekeeper::source::mongodb::oplog::records::Records;
use tidekeeper::source::mongodb::optime::OpTime;

use super::ground::{Ground, at, entry};

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
