//! Of which moment a dump is: of one, where the server grants that; else of the log's.
//!
//! A server may accept `atClusterTime` and ignore it, so its word is not enough: its answer must repeat the moment that was
//! asked for, and do so for two different ones.

use mongodb::bson::{RawDocumentBuf, rawdoc};
use mongodb::error::Error as DriverError;

use super::client::{Link, Server};
use super::cursor::Cursor;
use super::failure::{code, code_of, failed, is_passing};
use super::optime::OpTime;
use super::ranges::Order;
use super::survey::{Data, Survey};
use crate::error::Result;

/// From this release on, capped collections can be read at a moment of the past.
const CAPPED_SNAPSHOTS: (u32, u32) = (8, 0);

/// A moment that surely is not the other one; histories reach back for minutes.
const EARLIER_S: u32 = 1;

/// The moment at which all collections can be read, if the server grants it: that of `newest`, or one of its own choice.
///
/// # Errors
/// Only what has nothing to do with the moment.
pub async fn snapshot(
    link: &Link,
    server: &Server,
    survey: &Survey,
    newest: Option<OpTime>,
) -> Result<Option<OpTime>> {
    let mut ordinary = survey.collections.iter().filter(|one| !one.is_internal() && one.data.is_some());
    let capped = survey.collections.iter().any(|one| one.is_capped() && !one.is_internal());
    if capped && server.release() < CAPPED_SNAPSHOTS {
        return Ok(None);
    }
    let Some(data) = ordinary.find_map(|one| one.data.as_ref()) else { return Ok(None) };
    let at = match newest {
        Some(newest) => newest,
        None => match echo(link, data, None).await? {
            Echo::Of(at) => at,
            Echo::TooOld | Echo::None => return Ok(None),
        },
    };
    let earlier = OpTime { seconds: at.seconds.saturating_sub(EARLIER_S), ..at };
    let granted = echo(link, data, Some(at)).await? == Echo::Of(at)
        && matches!(echo(link, data, Some(earlier)).await?, echo if echo == Echo::Of(earlier) || echo == Echo::TooOld);
    Ok(granted.then_some(at))
}

/// What a server says to a moment.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Echo {
    /// It has read at this one.
    Of(OpTime),
    /// Its history does not reach so far back: only who heeds the moment says so.
    TooOld,
    /// It reads at no moment.
    None,
}

async fn echo(link: &Link, data: &Data, at: Option<OpTime>) -> Result<Echo> {
    let mut concern = rawdoc! { "level": "snapshot" };
    if let Some(at) = at {
        concern.append(mongodb::bson::raw::cstr!("atClusterTime"), mongodb::bson::Timestamp::from(at));
    }
    let answered = async {
        let mut cursor =
            Cursor::open(link, &data.namespace.db, probe(data, concern), 1, link.reads()).await?;
        let batch = cursor.next().await?;
        let stamp = batch.and_then(|batch| batch.cursor()?.get_timestamp("atClusterTime").ok());
        Ok(stamp.map_or(Echo::None, |stamp| Echo::Of(stamp.into())))
    };
    answered.await.or_else(|error: DriverError| match code_of(&error) {
        Some(code::SNAPSHOT_TOO_OLD) => Ok(Echo::TooOld),
        Some(code::UNAUTHORIZED) => Err(failed(format!("reading {}", data.namespace), error)),
        None if is_passing(&error) => Err(failed(format!("reading {}", data.namespace), error)),
        _ => Ok(Echo::None),
    })
}

/// The moment is in the answer, whatever is found: an `_id` that nobody has costs a look into the index.
fn probe(data: &Data, concern: RawDocumentBuf) -> RawDocumentBuf {
    use mongodb::bson::RawBson;
    let (filter, hint) = match data.order {
        Order::Id => (rawdoc! { "_id": RawBson::MinKey }, rawdoc! { "_id": 1 }),
        Order::Natural => (rawdoc! {}, rawdoc! { "$natural": 1 }),
    };
    rawdoc! {
        "find": data.namespace.collection.as_str(), "filter": filter, "hint": hint, "projection": { "_id": 1 },
        "limit": 1, "singleBatch": true, "readConcern": concern,
    }
}

/// Whether a refusal means that the moment can no longer be read, or never could.
pub fn is_lost(error: &DriverError) -> bool {
    matches!(
        code_of(error),
        Some(code::SNAPSHOT_TOO_OLD | code::SNAPSHOT_UNAVAILABLE | code::INVALID_OPTIONS)
    )
}
