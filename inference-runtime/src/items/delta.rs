//! Deltas: changed, added and removed items of a table that is serving. All of a delta is taken, or nothing.
//!
//! A delta is a JSON head and behind it the binary tensors that the head names, as in an infer request.

use std::sync::{Arc, PoisonError};
use std::time::Instant;

use http::StatusCode;
use serde::{Deserialize, Serialize};

use super::ItemTable;
use super::snapshot::{Items, Snapshot, Stamp};
use crate::engine::Tensor;
use crate::ids::IdRules;
use crate::model::config::ModelConfig;
use crate::model::digest::Digest;
use crate::protocol::ApiError;
use crate::protocol::request::{Bounded, RawTensor, tensors};

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Head<'a> {
    /// Revision that it changes.
    base: String,
    /// Revision that it leads to.
    target: String,
    /// Ids and rows of items that are changed or added.
    #[serde(borrow, default)]
    inputs: Bounded<RawTensor<'a>>,
    /// Ids of items that go.
    #[serde(default)]
    removed: Vec<i64>,
}

/// What the table is after a delta, or without one.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct Updated {
    pub revision: String,
    pub items: usize,
    /// `false`: the delta had been taken before.
    pub changed: bool,
}

fn conflict(message: String) -> ApiError {
    ApiError::new(StatusCode::CONFLICT, "conflict", message)
}

fn parse<'a>(body: &'a [u8], ids: &IdRules) -> Result<(Head<'a>, Vec<(String, Tensor)>), ApiError> {
    let mut heads = serde_json::Deserializer::from_slice(body).into_iter::<Head<'_>>();
    let mut head = heads
        .next()
        .unwrap_or_else(|| Err(serde::de::Error::custom("it is empty")))
        .map_err(|error| ApiError::invalid(format!("the body is not a delta: {error}")))?;
    let binary = &body[heads.byte_offset()..];
    let given = tensors(std::mem::take(&mut head.inputs), binary, |name| ids.of(name))?;
    if head.target.is_empty() || head.target == head.base {
        return Err(ApiError::invalid(format!(
            "target is {:?}; name a revision other than base",
            head.target
        )));
    }
    Ok((head, given))
}

impl ItemTable {
    pub fn status(&self) -> Updated {
        updated(&self.newest.load(), false)
    }

    /// Applies the delta in `body`, whose digest is `digest`. Requests that have begun keep the state before it. Blocks.
    pub fn update(&self, config: &ModelConfig, body: &[u8], digest: &Digest) -> Result<Updated, ApiError> {
        let (head, given) = parse(body, &self.rules)?;
        let _one_at_a_time = self.updating.lock().unwrap_or_else(PoisonError::into_inner);
        let newest = self.newest();
        let current = &newest.stamp;
        if head.target == current.revision {
            return match &current.digest {
                Some(other) if other != digest => Err(conflict(format!(
                    "revision {:?} is here, made by another delta ({other}); give this one another target",
                    head.target
                ))),
                _ => Ok(updated(&newest, false)),
            };
        }
        if head.base != current.revision {
            return Err(conflict(format!(
                "base is {:?}, the table is at revision {:?}; send the deltas that lead from there",
                head.base, current.revision
            )));
        }
        let items = self.items(config, given)?;
        self.removable(&items, &head.removed)?;
        let stamp = Stamp {
            revision: head.target,
            digest: Some(digest.clone()),
            since: Instant::now(),
        };
        let next = newest.changed(stamp, &items, &head.removed).map_err(|id| {
            ApiError::invalid(format!(
                "removed has id {id}, which is not in the table; leave it out"
            ))
        })?;
        let updated = updated(&next, true);
        self.newest.store(Arc::new(next));
        tracing::info!(
            revision = updated.revision,
            items = updated.items,
            changed = items.ids.len(),
            removed = head.removed.len(),
            "item table updated"
        );
        Ok(updated)
    }

    fn items(&self, config: &ModelConfig, given: Vec<(String, Tensor)>) -> Result<Items, ApiError> {
        if given.is_empty() {
            return Ok(Items {
                ids: Vec::new(),
                rows: vec![Vec::new(); self.fills.len()],
            });
        }
        self.verified(config, given, |name| format!("input {name:?}"))
            .map_err(ApiError::invalid)
    }

    fn removable(&self, items: &Items, removed: &[i64]) -> Result<(), ApiError> {
        let mut seen: std::collections::HashSet<i64> = items.ids.iter().copied().collect();
        for id in removed {
            if !seen.insert(*id) {
                return Err(ApiError::invalid(format!(
                    "removed has id {id}, which is there twice or also among the rows; name it once"
                )));
            }
            if self.default_id == Some(*id) {
                return Err(ApiError::invalid(format!(
                    "removed has id {id}, which stands in for unknown ones (itemTable.defaultId); keep it"
                )));
            }
        }
        Ok(())
    }
}

fn updated(snapshot: &Snapshot, changed: bool) -> Updated {
    Updated {
        revision: snapshot.stamp.revision.clone(),
        items: snapshot.count(),
        changed,
    }
}
