//! `/v1/backups`: what is in the vault, and the wish for one more.

use axum::Json;
use axum::extract::{Path, State};
use axum::response::Response;
use serde::{Deserialize, Serialize};
use serde_json::Value;

use super::Api;
use super::input::{Body, IdempotencyKey, Params};
use super::problem::Problem;
use crate::app::BackupView;
use crate::config::SourceName;
use crate::engine::work::{Action, Order};

/// How many backups a page has unless the caller says how many, and at most.
const USUALLY: usize = 100;
const AT_MOST: usize = 1_000;

/// Which backups are wanted.
#[derive(Clone, Debug, Default, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Wanted {
    source: Option<SourceName>,
    status: Option<String>,
    limit: Option<usize>,
    /// `SOURCE/ID`, the last of the page before.
    after: Option<String>,
}

/// A page.
#[derive(Clone, Debug, Serialize)]
pub struct Page {
    /// By source, then newest first.
    pub backups: Vec<BackupView>,
    /// What `after` must be for the next page; none on the last.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub next: Option<String>,
}

/// `GET /v1/backups?source=&status=&limit=&after=`
pub async fn list(State(api): State<Api>, Params(wanted): Params<Wanted>) -> Result<Json<Page>, Problem> {
    let listing = api.app.catalog.list(wanted.source.as_ref()).await?;
    let now = api.app.clock.now();
    let views = listing.rows.iter().map(|row| BackupView::of(row, now)).collect();
    Ok(Json(page(views, &wanted)))
}

/// The page that is wanted of all backups, which come by source, then newest first.
fn page(mut views: Vec<BackupView>, wanted: &Wanted) -> Page {
    if let Some((source, id)) = wanted.after.as_deref().and_then(|after| after.split_once('/')) {
        // By place in the order, not by search: the one that it names may be gone since.
        views
            .retain(|view| view.source.as_str() > source || (view.source == source && view.id.as_str() < id));
    }
    if let Some(status) = &wanted.status {
        views.retain(|view| view.status == *status);
    }
    let limit = wanted.limit.unwrap_or(USUALLY).clamp(1, AT_MOST);
    let more = views.len() > limit;
    views.truncate(limit);
    let next = views.last().filter(|_| more).map(|view| view.backup.clone());
    Page { backups: views, next }
}

/// `GET /v1/backups/{source}/{id}`; `latest` is an id too.
pub async fn show(
    State(api): State<Api>,
    Path((source, id)): Path<(String, String)>,
) -> Result<Json<Value>, Problem> {
    let backup = api.app.catalog.resolve(&format!("{source}/{id}")).await?;
    Ok(Json(api.app.show(&backup).await?))
}

/// The body of `POST /v1/backups`.
#[derive(Clone, Debug, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Wish {
    source: SourceName,
}

/// `POST /v1/backups`: 202 and the run.
pub async fn create(
    State(api): State<Api>,
    key: IdempotencyKey,
    Body(wish): Body<Wish>,
) -> Result<Response, Problem> {
    let order = async {
        api.app.source(&wish.source)?;
        Ok(Order::new(Action::Backup, Some(wish.source.clone())))
    };
    api.ask("POST /v1/backups", key, &wish, order).await
}
