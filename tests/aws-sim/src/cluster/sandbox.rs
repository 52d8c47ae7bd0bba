//! The sandbox's control socket: HTTP over a unix socket that starts and stops real nodes.

use std::path::Path;
use std::time::Duration;

use axum::http::{Method, Request, StatusCode};
use http_body_util::{BodyExt as _, Full};
use hyper::body::Bytes;
use hyper_util::rt::TokioIo;
use serde_json::json;
use tokio::net::UnixStream;

use crate::node::NodeSpec;

/// A kubelet and a containerd start in seconds; this is for a machine under load.
const DEADLINE: Duration = Duration::from_secs(120);

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Started {
    /// Nothing was answered yet.
    Unknown,
    Real,
    /// No real node to be had: KWOK.
    NoRoom,
}

#[derive(Debug, thiserror::Error)]
pub enum SandboxError {
    #[error("connect to the control socket")]
    Connect(#[source] std::io::Error),
    #[error("talk to the control socket")]
    Http(#[from] hyper::Error),
    #[error("{method} {path} answered {status}: {body}")]
    Refused {
        method: Method,
        path: String,
        status: StatusCode,
        body: String,
    },
    #[error("{method} {path} was not answered in time")]
    Slow { method: Method, path: String },
}

pub async fn start(socket: &Path, spec: &NodeSpec) -> Result<Started, SandboxError> {
    if !socket.exists() {
        return Ok(Started::NoRoom);
    }
    let taints: Vec<_> = spec
        .taints
        .iter()
        .map(|t| json!({ "key": t.key, "value": t.value, "effect": t.effect }))
        .collect();
    let order = json!({
        "name": spec.name,
        "providerId": spec.provider_id,
        "labels": spec.labels,
        "taints": taints,
        "gpus": spec.instance_type.gpu.map_or(0, |g| g.count),
    });
    let (status, body) = call(socket, Method::POST, "/nodes", order.to_string()).await?;
    match status {
        StatusCode::OK | StatusCode::CREATED => Ok(Started::Real),
        StatusCode::TOO_MANY_REQUESTS => Ok(Started::NoRoom),
        status => Err(SandboxError::Refused {
            method: Method::POST,
            path: "/nodes".to_owned(),
            status,
            body,
        }),
    }
}

/// Stops a node; one that does not run is stopped already.
pub async fn stop(socket: &Path, name: &str) -> Result<(), SandboxError> {
    if !socket.exists() {
        return Ok(());
    }
    let path = format!("/nodes/{name}");
    let (status, body) = call(socket, Method::DELETE, &path, String::new()).await?;
    if status.is_success() || status == StatusCode::NOT_FOUND {
        return Ok(());
    }
    Err(SandboxError::Refused {
        method: Method::DELETE,
        path,
        status,
        body,
    })
}

async fn call(
    socket: &Path,
    method: Method,
    path: &str,
    body: String,
) -> Result<(StatusCode, String), SandboxError> {
    let late = || SandboxError::Slow {
        method: method.clone(),
        path: path.to_owned(),
    };
    match tokio::time::timeout(DEADLINE, exchange(socket, method.clone(), path, body)).await {
        Ok(outcome) => outcome,
        Err(_) => Err(late()),
    }
}

async fn exchange(
    socket: &Path,
    method: Method,
    path: &str,
    body: String,
) -> Result<(StatusCode, String), SandboxError> {
    let stream = UnixStream::connect(socket).await.map_err(SandboxError::Connect)?;
    let (mut sender, connection) = hyper::client::conn::http1::handshake(TokioIo::new(stream)).await?;
    // The connection is driven beside the request, and ends with it.
    let driver = tokio::spawn(connection);
    let request = Request::builder()
        .method(method)
        .uri(path)
        .header("host", "sandbox")
        .header("content-type", "application/json")
        .body(Full::new(Bytes::from(body)))
        .expect("method, path and headers are valid");
    let response = sender.send_request(request).await?;
    let status = response.status();
    let bytes = response.into_body().collect().await?.to_bytes();
    driver.abort();
    Ok((status, String::from_utf8_lossy(&bytes).into_owned()))
}
