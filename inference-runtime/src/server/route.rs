//! Paths of the serving port.

use std::sync::Arc;

use http::{Method, Request, StatusCode};
use hyper::body::Incoming;

use super::body::{self, Reply};
use super::{Serving, grpc, infer};
use crate::cascade::Stages;
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
            let reply = index(&serving);
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
        ["v2", "models", "stats"] if serving.catalog.get("stats").is_none() => {
            return Ok(body::json(&grpc::statistics(serving, "", "")?));
        }
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
    let ready = serving.catalog.find(model, version);
    Ok(match what {
        "ready" => {
            Stages::of(&serving.catalog, ready?)?;
            probed(!serving.is_draining())
        }
        "config" => body::json(&metadata::config(
            Stages::known(&serving.catalog, ready?).models(),
        )),
        "stats" => body::json(&grpc::statistics(serving, model, version.unwrap_or_default())?),
        _ => body::json(&metadata::model(
            Stages::known(&serving.catalog, ready?).models(),
            &serving.catalog.ready(Some(model)),
        )),
    })
}

pub fn index(serving: &Serving) -> Reply {
    body::json(&metadata::index(serving.catalog.index()).models)
}

pub fn health(serving: &Serving, probe: &str) -> Reply {
    probed(probe == "live" || serving.is_ready())
}

fn probed(good: bool) -> Reply {
    let status = if good {
        StatusCode::OK
    } else {
        StatusCode::SERVICE_UNAVAILABLE
    };
    body::reply(status, "application/json", "")
}
