//! Every store call of a repair fails once in every way; nothing good is touched, and the next repair finishes.

use super::{Runs, begin_upload, inspect, repair_as, uncommitted, uploads};
use crate::vault::deletion::crash::{BLOWS, Blow, Strike};
use crate::vault::estate::{Estate, Leads};

/// A vault with something of everything to repair, repaired by a process that is struck. Tells whether the blow fell.
async fn survive(at: u64, blow: Blow) -> bool {
    let say = format!("call {at}, {blow:?}");
    let estate = Estate::new();
    let good = estate.backup("complete").await;
    let lost = uncommitted(&estate).await;
    estate.data(&good, "attempt1").await;
    begin_upload(&estate, &good).await;
    let runs = Runs::all_dead();
    let lines = inspect(&estate, &runs, false).await;
    assert_eq!(lines.len(), 4, "{lines:?}");

    let strike = Strike::new(at, blow);
    let (vault, faults) = estate.through(strike.clone());
    let _ = repair_as(&estate, &vault, &runs, &Leads, &lines).await;
    let say = format!("{say}: {:?}", faults.calls().get(at as usize - 1));
    let traces = estate.traces(&lost).await;
    let committed = traces.iter().any(|key| key.starts_with("manifests/"));
    let data = traces.iter().any(|key| key.starts_with("data/"));
    assert!(committed || data, "{say}: data went before its manifest was there");

    for _ in 0..2 {
        let lines = inspect(&estate, &runs, false).await;
        repair_as(&estate, &estate.vault, &runs, &Leads, &lines).await.expect("a repair");
    }
    assert_eq!(inspect(&estate, &runs, true).await, [], "{say}");
    assert_eq!(uploads(&estate).await, 0, "{say}");
    assert_eq!(estate.traces(&good).await.len(), 2, "{say}");
    strike.has_struck()
}

#[tokio::test(start_paused = true)]
async fn a_blow_to_any_call_of_a_repair_loses_nothing_and_leaves_nothing() {
    for blow in BLOWS {
        let mut at = 1;
        while survive(at, blow).await {
            at += 1;
        }
        assert!(at > 15, "{blow:?} fell on {at} calls only: the repair has more");
    }
}
