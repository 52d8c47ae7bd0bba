//! The item table on the admin port: what it is, and deltas to it.

use std::sync::Arc;

use http::{HeaderName, Method, Request, StatusCode};
use http_body_util::{BodyExt, LengthLimitError, Limited};
use hyper::body::Incoming;

use super::body::{self, Reply};
use super::state::Serving;
use crate::items::metrics::Outcome;
use crate::model::digest::Digest;
use crate::protocol::ApiError;

/// Digest of the body, `sha256:` and 64 hexadecimal digits.
const DIGEST: HeaderName = HeaderName::from_static("pinnace-digest");

/// The model whose table a path names.
pub fn model(path: &str) -> Option<&str> {
    let model = path.strip_prefix("/v2/models/")?.strip_suffix("/items")?;
    (!model.contains('/')).then_some(model)
}

/// `GET`: revision and number of items. `PUT`: a delta.
pub async fn items(serving: &Serving, model: &str, request: Request<Incoming>) -> Result<Reply, ApiError> {
    let method = request.method().clone();
    let found = table(serving, model, &method);
    let (config, items) = match found {
        Ok(found) => found,
        Err(error) => {
            body::discard(request.into_body()).await;
            return Err(error);
        }
    };
    if method == Method::GET {
        body::discard(request.into_body()).await;
        return Ok(body::json(&items.status()));
    }
    let result = match read(serving, request).await {
        Ok((body, digest)) => {
            let update = tokio::task::spawn_blocking(move || items.update(&config, &body, &digest));
            let updated = update.await;
            updated.unwrap_or_else(|error| Err(ApiError::internal(format!("the update failed: {error}"))))
        }
        Err(error) => Err(error),
    };
    let outcome = match &result {
        Ok(updated) if updated.changed => "applied",
        Ok(_) => "repeated",
        Err(error) => error.outcome,
    };
    let model = model.to_owned();
    let counted = Outcome { model, outcome };
    serving.metrics.item_table.updates.get_or_create(&counted).inc();
    Ok(body::json(&result?))
}

type Table = (
    Arc<crate::model::config::ModelConfig>,
    Arc<crate::items::ItemTable>,
);

fn table(serving: &Serving, model: &str, method: &Method) -> Result<Table, ApiError> {
    let ready = serving.catalog.find(model, None)?;
    if ![Method::GET, Method::PUT].contains(method) {
        let message = format!("{method} is not allowed here; GET the table's revision, or PUT a delta");
        return Err(ApiError::new(
            StatusCode::METHOD_NOT_ALLOWED,
            "not_found",
            message,
        ));
    }
    let served = &ready.model;
    let table = served.items.as_ref().ok_or_else(|| {
        let message = format!("model {model:?} has no item table; declare it as itemTable in config.yaml");
        ApiError::not_found(message)
    })?;
    Ok((Arc::clone(&served.config), Arc::clone(table)))
}

/// The body, if it is what its digest says.
async fn read(serving: &Serving, request: Request<Incoming>) -> Result<(bytes::Bytes, Digest), ApiError> {
    let expected = request
        .headers()
        .get(DIGEST)
        .map(|value| value.to_str().unwrap_or_default().to_owned());
    let (limit, time) = (serving.max_body_bytes, serving.body_timeout);
    let reading = Limited::new(request.into_body(), limit).collect();
    let body = tokio::time::timeout(time, reading)
        .await
        .map_err(|_| body::too_slow(time))?;
    let body = body.map_err(|error| {
        if error.is::<LengthLimitError>() {
            body::too_large(limit)
        } else {
            ApiError::invalid(format!("the body ended early: {error}"))
        }
    })?;
    let body = body.to_bytes();
    let header = "header Pinnace-Digest";
    let Some(expected) = expected else {
        return Err(ApiError::invalid(format!(
            "{header} is missing; send the body's digest, sha256:..."
        )));
    };
    let expected = expected
        .parse::<Digest>()
        .map_err(|error| ApiError::invalid(format!("{header}: {error}")))?;
    let actual = Digest::of(&body);
    if actual != expected {
        return Err(ApiError::invalid(format!(
            "{header} is {expected}, the body has {actual}; send it again"
        )));
    }
    Ok((body, actual))
}
