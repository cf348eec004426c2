//! The wrapper does what its plan says, once and where it says.

use std::sync::Arc;
use std::time::Duration;

use futures_util::{StreamExt, TryStreamExt};
use jiff::Timestamp;
use serde::{Deserialize, Serialize};
use tidekeeper::clock::{Clock, TestClock};
use tidekeeper::error::Kind;
use tidekeeper::vault::decide::{Deciding, Decision, decide};
use tidekeeper::vault::store::faults::{Fault, Faults, Method, Plan};
use tidekeeper::vault::store::memory::MemoryStore;
use tidekeeper::vault::store::{Create, Key, Part, Store};

use super::cases::pattern;

struct Faulty {
    clock: Arc<TestClock>,
    plan: Arc<Plan>,
    store: Faults,
}

fn faulty() -> Faulty {
    let clock = TestClock::starting_at(Timestamp::UNIX_EPOCH);
    let plan = Plan::new(clock.clone());
    let store = Faults::around(Arc::new(MemoryStore::new(clock.clone())), plan.clone());
    Faulty { clock, plan, store }
}

#[tokio::test(start_paused = true)]
async fn a_failure_before_leaves_nothing_and_one_after_leaves_the_object() {
    let Faulty { plan, store, .. } = faulty();
    plan.on(Method::Create, 1, Fault::Before(Kind::Throttled));
    plan.on(Method::Create, 2, Fault::After(Kind::Undecided));
    let key = Key::new("a.json");
    assert_eq!(store.create(&key, "x".into()).await.unwrap_err().kind(), Kind::Throttled);
    assert!(store.get(&key).await.unwrap().is_none());
    assert_eq!(store.create(&key, "x".into()).await.unwrap_err().kind(), Kind::Undecided);
    assert_eq!(store.get(&key).await.unwrap().unwrap(), "x");
    assert_eq!(store.create(&key, "x".into()).await.unwrap(), Create::Exists);
}

#[derive(Serialize, Deserialize)]
struct Vote {
    nonce: String,
}

impl Deciding for Vote {
    fn nonce(&self) -> &str {
        &self.nonce
    }
}

#[tokio::test(start_paused = true)]
async fn a_decision_survives_lost_replies() {
    let Faulty { clock, plan, store } = faulty();
    plan.on(Method::Create, 1, Fault::After(Kind::Undecided));
    plan.on(Method::Get, 1, Fault::Before(Kind::Unreachable));
    plan.on(Method::Create, 3, Fault::Before(Kind::Timeout));
    let vote = Vote { nonce: "own".into() };
    let decision = decide(&store, &*clock, &Key::new("vote.json"), &vote).await.unwrap();
    assert!(matches!(decision, Decision::Ours));
    assert_eq!(store.count(Method::Create), 4);
}

#[tokio::test(start_paused = true)]
async fn a_cut_stream_yields_what_came_before_the_cut() {
    let Faulty { plan, store, .. } = faulty();
    let (key, body) = (Key::new("a"), pattern(3 << 20));
    assert_eq!(store.create(&key, body.clone()).await.unwrap(), Create::Created);
    plan.on(Method::Read, 1, Fault::Cut(1_500_000));
    let stream = store.read(&key, 0..3 << 20).await.unwrap();
    let items: Vec<_> = stream.collect().await;
    let (last, came) = items.split_last().unwrap();
    assert_eq!(last.as_ref().unwrap_err().kind(), Kind::Unreachable);
    let came: Vec<u8> = came.iter().flat_map(|chunk| chunk.as_ref().unwrap().to_vec()).collect();
    assert!(came == body[..1_500_000]);
    let whole: Vec<_> = store.read(&key, 0..3 << 20).await.unwrap().try_collect().await.unwrap();
    assert!(whole.concat() == body, "the second read is not cut");
}

#[tokio::test(start_paused = true)]
async fn a_torn_part_fails_and_is_replaced_by_its_repetition() {
    let Faulty { plan, store, .. } = faulty();
    plan.on(Method::PutPart, 2, Fault::Cut(3));
    let key = Key::new("a");
    let upload = store.begin_upload(&key).await.unwrap();
    upload.put_part(1, Part::Bytes("first ".into())).await.unwrap();
    let torn = upload.put_part(2, Part::Bytes("second".into())).await;
    assert_eq!(torn.unwrap_err().kind(), Kind::Unreachable);
    upload.put_part(2, Part::Bytes("second".into())).await.unwrap();
    assert_eq!(upload.finish().await.unwrap(), Create::Created);
    assert_eq!(store.get(&key).await.unwrap().unwrap(), "first second");
}

#[tokio::test(start_paused = true)]
async fn a_delay_takes_its_time() {
    let Faulty { clock, plan, store } = faulty();
    plan.on(Method::List, 1, Fault::Delay(Duration::from_secs(90)));
    let began = clock.monotonic();
    assert!(store.list("", None).await.unwrap().entries.is_empty());
    assert_eq!((clock.monotonic() - began).as_secs(), 90);
}

#[tokio::test(start_paused = true)]
async fn every_method_can_fail_and_all_calls_are_logged() {
    let Faulty { plan, store, .. } = faulty();
    let key = Key::new("a");
    let upload = store.begin_upload(&key).await.unwrap();
    let open = store.open_uploads("").await.unwrap().remove(0);
    for method in Method::ALL {
        plan.on(method, store.count(method) + 1, Fault::Before(Kind::Unready));
    }
    let failures = [
        (Method::Create, store.create(&key, "x".into()).await.err()),
        (Method::BeginUpload, store.begin_upload(&key).await.err()),
        (Method::PutPart, upload.put_part(1, Part::Bytes("x".into())).await.err()),
        (Method::Finish, upload.finish().await.err()),
        (Method::Abort, upload.abort().await.err()),
        (Method::Get, store.get(&key).await.err()),
        (Method::Read, store.read(&key, 0..1).await.err()),
        (Method::Stat, store.stat(&key).await.err()),
        (Method::List, store.list("", None).await.err()),
        (Method::Delete, store.delete(&key).await.err()),
        (Method::OpenUploads, store.open_uploads("").await.err()),
        (Method::AbortUpload, store.abort_upload(&open).await.err()),
        (Method::Now, store.now().await.err()),
        (Method::Inspect, store.inspect().await.err()),
    ];
    let logged: Vec<_> = store.calls().iter().skip(2).map(|call| call.method).collect();
    assert_eq!(logged, Method::ALL);
    for (method, error) in failures {
        assert_eq!(error.map(|error| error.kind()), Some(Kind::Unready), "{method:?}");
    }
}
