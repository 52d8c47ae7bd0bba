//! Paths of both ports.

use std::sync::Arc;
use std::time::Instant;

use http::{Method, Request, StatusCode};
use hyper::body::Incoming;

use super::body::{self, Reply};
use super::{Serving, infer, items};
use crate::load::State;
use crate::protocol::{ApiError, metadata};

/// The serving port.
pub async fn serve(serving: Arc<Serving>, request: Request<Incoming>) -> Reply {
    let path = request.uri().path().to_owned();
    let parts: Vec<&str> = path.split('/').skip(1).collect();
    let method = request.method().clone();
    let answer = match (&method, parts.as_slice()) {
        (&Method::POST, ["v2", "models", model, "infer"]) => {
            return answer(infer::infer(&serving, model, None, request).await);
        }
        (&Method::POST, ["v2", "models", model, "versions", version, "infer"]) => {
            return answer(infer::infer(&serving, model, Some(version), request).await);
        }
        (&Method::POST, ["v2", "repository", "index"]) => {
            let ready = serving.is_ready();
            let index = metadata::index(&serving.model_name, &serving.model_version, ready);
            let reply = body::json(&index.models);
            body::discard(request.into_body()).await;
            return reply;
        }
        (&Method::GET, parts) => get(&serving, parts),
        (_, parts) if known(parts) => {
            let message = format!("{method} is not allowed on {path}");
            Err(ApiError::new(
                StatusCode::METHOD_NOT_ALLOWED,
                "not_found",
                message,
            ))
        }
        _ => Err(ApiError::not_found(format!("{path} is no path of the protocol"))),
    };
    body::discard(request.into_body()).await;
    self::answer(answer)
}

fn answer(answer: Result<Reply, ApiError>) -> Reply {
    answer.unwrap_or_else(|error| body::error(&error))
}

fn known(parts: &[&str]) -> bool {
    matches!(
        parts,
        ["v2"]
            | ["v2", "health", "live" | "ready"]
            | ["v2", "repository", "index"]
            | ["v2", "models", _]
            | ["v2", "models", _, "ready" | "config" | "stats" | "infer"]
            | ["v2", "models", _, "versions", _]
            | [
                "v2",
                "models",
                _,
                "versions",
                _,
                "ready" | "config" | "stats" | "infer"
            ]
    )
}

/// Answers GET on a path of the serving port, given as its parts.
pub fn get(serving: &Serving, parts: &[&str]) -> Result<Reply, ApiError> {
    let (model, version, what) = match parts {
        ["v2"] | ["v2", ""] => return Ok(body::json(&metadata::server())),
        ["v2", "health", probe @ ("live" | "ready")] => return Ok(health(serving, probe)),
        ["v2", "models", model, "versions", version] => (model, Some(*version), ""),
        ["v2", "models", "stats"] if serving.model_name != "stats" => return Ok(statistics(serving)),
        ["v2", "models", model] => (model, None, ""),
        ["v2", "models", model, what @ ("ready" | "config" | "stats")] => (model, None, *what),
        [
            "v2",
            "models",
            model,
            "versions",
            version,
            what @ ("ready" | "config" | "stats"),
        ] => (model, Some(*version), *what),
        parts if known(parts) => {
            let message = "this path takes POST";
            return Err(ApiError::new(
                StatusCode::METHOD_NOT_ALLOWED,
                "not_found",
                message,
            ));
        }
        _ => {
            return Err(ApiError::not_found(format!(
                "/{} is no path of the protocol",
                parts.join("/")
            )));
        }
    };
    check_name(serving, model, version)?;
    if what == "ready" {
        return Ok(health(serving, "ready"));
    }
    let model = &serving.model().ok_or_else(loading)?.model;
    Ok(match what {
        "config" => body::json(&metadata::config(model)),
        "stats" => statistics(serving),
        _ => body::json(&metadata::model(model)),
    })
}

fn statistics(serving: &Serving) -> Reply {
    let counts = serving.statistics.snapshot();
    body::json(&metadata::statistics(
        &serving.model_name,
        &serving.model_version,
        &counts,
    ))
}

fn health(serving: &Serving, probe: &str) -> Reply {
    let good = probe == "live" || serving.is_ready();
    let status = if good {
        StatusCode::OK
    } else {
        StatusCode::SERVICE_UNAVAILABLE
    };
    body::reply(status, "application/json", "")
}

pub fn loading() -> ApiError {
    let message = "the model is not loaded yet; wait for /v2/health/ready";
    ApiError {
        retry_after: Some(1),
        ..ApiError::new(StatusCode::SERVICE_UNAVAILABLE, "loading", message)
    }
}

/// Whether a path names the model, and its version, that are served here.
pub fn check_name(serving: &Serving, model: &str, version: Option<&str>) -> Result<(), ApiError> {
    if model != serving.model_name {
        return Err(ApiError::not_found(format!(
            "model {model:?} is not served here; {:?} is",
            serving.model_name
        )));
    }
    match version {
        Some(version) if version != serving.model_version => Err(ApiError::not_found(format!(
            "model {model:?} has no version {version:?} here; {:?} is served",
            serving.model_version
        ))),
        _ => Ok(()),
    }
}

/// The admin port.
pub async fn admin(serving: Arc<Serving>, request: Request<Incoming>) -> Reply {
    const TEXT: &str = "application/openmetrics-text; version=1.0.0; charset=utf-8";
    if let Some(model) = items::model(request.uri().path()) {
        let model = model.to_owned();
        return answer(items::items(&serving, &model, request).await);
    }
    match (request.method(), request.uri().path()) {
        (&Method::GET, "/v2/health/live") => health(&serving, "live"),
        (&Method::GET, "/v2/health/ready") => health(&serving, "ready"),
        (&Method::GET, "/metrics") => {
            let metrics = &serving.metrics;
            metrics.admitted.set(gauge(serving.admission.requests()));
            metrics.admitted_bytes.set(gauge(serving.admission.bytes()));
            metrics.waiting.set(gauge(
                serving.model().map_or(0, |ready| ready.workers.queue.len()),
            ));
            if let Some(ready) = serving.model() {
                metrics.item_table.observe(&ready.model);
            }
            body::reply(StatusCode::OK, TEXT, metrics.encode())
        }
        (&Method::GET, "/load") => load(&serving),
        _ => body::error(&ApiError::not_found(
            "this port has /v2/health/live, /v2/health/ready, /load, /metrics and /v2/models/NAME/items",
        )),
    }
}

fn load(serving: &Serving) -> Reply {
    let gpus = serving.gpus.newest();
    let state = State {
        ready: serving.is_ready(),
        draining: serving.is_draining(),
        in_flight: serving.admission.requests(),
        gpus: gpus.as_deref(),
    };
    let report = serving.load.report(&state, Instant::now());
    match serde_json::to_vec(&report) {
        Ok(text) => body::reply(StatusCode::OK, "application/json", text),
        Err(error) => body::error(&ApiError::internal(format!("/load is not encoded: {error}"))),
    }
}

fn gauge(value: usize) -> i64 {
    i64::try_from(value).unwrap_or(i64::MAX)
}
