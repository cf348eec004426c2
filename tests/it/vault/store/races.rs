//! The promises about several callers at once. A vault with two writers rests on the first two.

use futures_util::FutureExt;
use futures_util::future::join_all;
use tidekeeper::vault::store::{Create, Key, Part};
use tokio::task::JoinSet;

use super::suite::{Case, Stage};

const RACERS: usize = 16;

pub fn all() -> Vec<Case> {
    vec![
        Case { promise: "of 16 racing creators exactly one wins", test: |stage| creators(stage).boxed() },
        Case { promise: "of 16 racing uploads exactly one wins", test: |stage| uploads(stage).boxed() },
        Case {
            promise: "creators survive deletions beside them",
            test: |stage| beside_deletions(stage).boxed(),
        },
    ]
}

async fn creators(stage: Stage) {
    for n in 0..40 {
        let key = stage.key(format!("race-{n}.json"));
        let mut racers = JoinSet::new();
        for racer in 0..RACERS {
            let (store, key) = (stage.store.clone(), key.clone());
            racers.spawn(async move { (racer, store.create(&key, format!("racer {racer}").into()).await) });
        }
        let winners = winners(racers.join_all().await);
        assert_eq!(winners.len(), 1, "{key}: {winners:?} were told that they won");
        let found = stage.store.get(&key).await.unwrap().unwrap();
        assert_eq!(found, format!("racer {}", winners[0]));
    }
}

async fn uploads(stage: Stage) {
    for n in 0..10 {
        let key = stage.key(format!("race-{n}.zst"));
        let begun = (0..RACERS).map(|racer| {
            let (stage, key) = (stage.clone(), key.clone());
            async move {
                let upload = stage.store.begin_upload(&key).await.unwrap();
                upload.put_part(1, Part::Bytes(format!("racer {racer}").into())).await.unwrap();
                (racer, upload)
            }
        });
        let mut racers = JoinSet::new();
        for (racer, upload) in join_all(begun).await {
            racers.spawn(async move { (racer, upload.finish().await) });
        }
        let winners = winners(racers.join_all().await);
        assert_eq!(winners.len(), 1, "{key}: {winners:?} were told that they won");
        let found = stage.store.get(&key).await.unwrap().unwrap();
        assert_eq!(found, format!("racer {}", winners[0]));
    }
    assert!(stage.store.open_uploads(&stage.room).await.unwrap().is_empty(), "losers leave nothing");
}

/// Who was told to have won. That nobody knows who won is legal; the winner is then whoever is read back.
fn winners(outcomes: Vec<(usize, tidekeeper::error::Result<Create>)>) -> Vec<usize> {
    let won = |(racer, outcome): (usize, tidekeeper::error::Result<Create>)| match outcome {
        Ok(Create::Created) => Some(racer),
        Ok(Create::Exists) => None,
        Err(error) => panic!("racer {racer}: {error:?}"),
    };
    outcomes.into_iter().filter_map(won).collect()
}

/// Creates as every writer does: what may succeed when it is asked again is asked again.
async fn create(stage: &Stage, key: &Key) {
    loop {
        match stage.store.create(key, "x".into()).await {
            Err(error) if error.is_retryable() => tokio::task::yield_now().await,
            created => return assert_eq!(created.unwrap(), Create::Created),
        }
    }
}

/// A directory removes a folder that became empty, just when somebody creates in it.
async fn beside_deletions(stage: Stage) {
    let mut racers = JoinSet::new();
    for racer in 0..8 {
        let stage = stage.clone();
        racers.spawn(async move {
            for n in 0..30 {
                let key = stage.key(format!("shared/deep/{racer}-{n}"));
                create(&stage, &key).await;
                stage.store.delete(&key).await.unwrap();
            }
        });
    }
    while let Some(ended) = racers.join_next().await {
        ended.expect("no creator fails");
    }
    assert_eq!(stage.listed("").await, Vec::<String>::new());
}
