//! Every store call of following fails once in every way, and the process dies before and after every one of them, or is
//! dropped while it waits. The next writer goes on: the chain has no gap, and nothing comes twice.

use std::sync::OnceLock;
use std::task::Poll;

use bytes::Bytes;
use tidekeeper::vault::Vault;
use tidekeeper::vault::layout::log::Position;
use tidekeeper::vault::timeline::chain::stretches;

use super::super::deletion::crash::{BLOWS, Blow, Strike};
use super::super::estate::Estate;
use super::{applied, base, beginning, noise, read, record, timelines, writer};

const LAST: u64 = 9;

/// The log: one record is long, so that its segment is uploaded in parts.
fn entry(at: u64) -> Bytes {
    static LONG: OnceLock<Bytes> = OnceLock::new();
    if at == 4 { LONG.get_or_init(|| noise(4, 9 << 20)).clone() } else { record(at, 20) }
}

/// Follows the log up to [`LAST`], as a source does: goes on, or begins; a segment for every third record.
async fn follow(vault: &Vault) -> tidekeeper::error::Result<()> {
    let (mut writer, _sealer) = writer(vault);
    let mut to = 0;
    match writer.resume().await? {
        Some(reach) => {
            to = reach.to.0;
            match reach.record {
                Some(found) if to > 0 => assert_eq!(found, entry(to)),
                Some(found) => assert_eq!(found, record(0, 20)),
                None => writer.push(record(0, 20), Position(0)).await?,
            }
        }
        None => drop(writer.begin(beginning(0)).await?),
    }
    for at in to + 1..=LAST {
        writer.push(entry(at), Position(at)).await?;
        if at % 3 == 0 {
            writer.seal().await?;
        }
    }
    Ok(())
}

async fn assert_whole(estate: &Estate, say: &str) {
    let all = timelines(estate).await;
    let [timeline] = &all[..] else { panic!("{say}: {all:?}") };
    let spans: Vec<_> = stretches(timeline).iter().map(|one| (one.from.0, one.to.0)).collect();
    assert_eq!(spans, [(0, LAST)], "{say}");
    let backup = base(estate, 0).await;
    let found = read(estate, &estate.vault, &backup, LAST).await.expect("read");
    assert_eq!(applied(&found, 0), (1..=LAST).collect::<Vec<_>>(), "{say}");
    let own: Vec<u64> = found.iter().flat_map(|segment| segment[1..].iter().map(|(at, _)| *at)).collect();
    assert_eq!(own, (1..=LAST).collect::<Vec<_>>(), "{say}: nothing comes twice");
    assert!(found.iter().flatten().all(|(at, bytes)| *at == 0 || *bytes == entry(*at)), "{say}");
}

async fn survive(at: u64, blow: Blow) -> bool {
    let say = format!("call {at}, {blow:?}");
    let estate = Estate::new();
    let strike = Strike::new(at, blow);
    let (vault, _) = estate.through(strike.clone());
    let _ = follow(&vault).await;
    follow(&estate.vault).await.unwrap_or_else(|error| panic!("{say}: {error:?}"));
    assert_whole(&estate, &say).await;
    strike.has_struck()
}

#[tokio::test(start_paused = true)]
async fn a_blow_to_any_call_costs_no_record() {
    for blow in BLOWS {
        let mut at = 1;
        while survive(at, blow).await {
            at += 1;
        }
        assert!(at > 12, "{blow:?} fell on {at} calls only: following has more");
    }
}

#[tokio::test(start_paused = true)]
async fn a_writer_that_is_dropped_while_it_waits_costs_no_record() {
    let mut polls = 1;
    loop {
        let estate = Estate::new();
        let ended = {
            let mut work = Box::pin(follow(&estate.vault));
            let mut left = polls;
            std::future::poll_fn(|context| {
                left -= 1;
                match work.as_mut().poll(context) {
                    Poll::Ready(done) => Poll::Ready(Some(done)),
                    Poll::Pending if left == 0 => Poll::Ready(None),
                    Poll::Pending => Poll::Pending,
                }
            })
            .await
        };
        follow(&estate.vault).await.expect("the next one");
        assert_whole(&estate, &format!("dropped at poll {polls}")).await;
        if ended.is_some() {
            break;
        }
        polls += 1;
    }
    assert!(polls > 3, "it waits more often than {polls} times");
}
