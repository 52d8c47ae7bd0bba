//! The admin port: probes, metrics, load, and the repository. Models are loaded here only, never by clients.

use std::sync::Arc;
use std::time::Instant;

use http::{Method, Request, StatusCode};
use hyper::body::Incoming;

use super::Serving;
use super::body::{self, Reply};
use super::items;
use super::route::{health, index};
use crate::load::State;
use crate::metrics::{EngineLabels, ModelLabels};
use crate::protocol::ApiError;
use crate::repository::Repository;
use crate::repository::request::{self, Ask};

const TEXT: &str = "application/openmetrics-text; version=1.0.0; charset=utf-8";

pub async fn admin(repository: Arc<Repository>, request: Request<Incoming>) -> Reply {
    let serving = repository.serving();
    if let Some(model) = items::model(request.uri().path()) {
        let model = model.to_owned();
        let answer = items::items(serving, &model, request).await;
        return answer.unwrap_or_else(|error| body::error(&error));
    }
    let path = request.uri().path().to_owned();
    let parts: Vec<&str> = path.split('/').skip(1).collect();
    let method = request.method().clone();
    let answer = match (&method, parts.as_slice()) {
        (&Method::GET, ["v2", "health", probe @ ("live" | "ready")]) => return health(serving, probe),
        (&Method::GET, ["metrics"]) => return body::reply(StatusCode::OK, TEXT, metrics(serving)),
        (&Method::GET, ["load"]) => return load(serving),
        (&Method::POST, ["v2", "repository", "index"]) => Ok(index(serving)),
        (&Method::POST, ["v2", "repository", "models", model, what @ ("load" | "unload")]) => {
            return change(&repository, model, what, request).await;
        }
        _ => Err(ApiError::not_found(
            "this port has GET /v2/health/live, /v2/health/ready, /load, /metrics and /v2/models/NAME/items, POST /v2/repository/index and \
             /v2/repository/models/NAME/load and /unload",
        )),
    };
    body::discard(request.into_body()).await;
    answer.unwrap_or_else(|error| body::error(&error))
}

async fn change(repository: &Arc<Repository>, model: &str, what: &str, request: Request<Incoming>) -> Reply {
    let ask = match body::read_small(request.into_body()).await {
        Ok(bytes) => Ask::parse(&bytes),
        Err(error) => Err(error),
    };
    let ask = match ask {
        Ok(ask) => ask,
        Err(error) => return body::error(&error),
    };
    let (repository, model, unload) = (Arc::clone(repository), model.to_owned(), what == "unload");
    // It goes on when the client leaves: half a load helps nobody.
    let task = tokio::spawn(async move {
        match unload {
            true => repository
                .unload(&model)
                .await
                .map(|()| body::json(&serde_json::json!({}))),
            false => repository
                .load(&model, &ask)
                .await
                .map(|loaded| body::json(&loaded)),
        }
    });
    match task.await {
        Ok(answer) => answer.unwrap_or_else(|failure| body::error(&request::refusal(&failure))),
        Err(error) => body::error(&ApiError::internal(format!("the load ended early: {error}"))),
    }
}

fn metrics(serving: &Serving) -> String {
    let metrics = &serving.metrics;
    metrics.admitted.set(gauge(serving.admission.requests()));
    metrics.admitted_bytes.set(gauge(serving.admission.bytes()));
    metrics.waiting.set(gauge(serving.queue.len()));
    metrics.ready.set(i64::from(serving.is_ready()));
    metrics.model_ready.clear();
    metrics.engine.clear();
    metrics.item_table.clear();
    for ready in serving.catalog.ready(None) {
        let (model, version) = (ready.model.name.clone(), ready.model.version.clone());
        metrics.item_table.observe(&ready.model);
        metrics.observe_ids(&ready.model);
        let chosen = &ready.model.chosen;
        let labels = EngineLabels {
            model: model.clone(),
            version: version.clone(),
            engine: chosen.engine.as_str(),
            not_rank: chosen.not_rank.as_ref().map_or("", |not| not.class.as_str()),
        };
        metrics.engine.get_or_create(&labels).set(1);
        metrics
            .model_ready
            .get_or_create(&ModelLabels { model, version })
            .set(1);
    }
    metrics.encode()
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
