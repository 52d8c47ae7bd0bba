//! `GET /load` of the runtime's admin port, version 1.

use http_body_util::{BodyExt as _, Empty, Limited};
use hyper::body::Bytes;
use hyper_util::client::legacy::Client;
use hyper_util::client::legacy::connect::HttpConnector;
use hyper_util::rt::TokioExecutor;
use planner::observed::ReplicaLoad;
use serde::Deserialize;

use super::GpuLoad;

/// The answer has under 1 KB.
const MAX_BYTES: usize = 16 << 10;
const VERSION: u32 = 1;

#[derive(Debug, thiserror::Error)]
pub enum LoadError {
    #[error("no answer within 2 s")]
    Timeout,
    #[error("{address} cannot be asked for /load")]
    Unreachable {
        address: String,
        source: Box<dyn std::error::Error + Send + Sync>,
    },
    #[error("{address} answers /load with status {status}")]
    Status { address: String, status: u16 },
    #[error("{address} answers /load with something else than load of version 1: {reason}")]
    Unreadable { address: String, reason: String },
}

impl LoadError {
    /// Static class, for metric labels.
    #[must_use]
    pub fn class(&self) -> &'static str {
        match self {
            Self::Timeout => "timeout",
            Self::Unreachable { .. } => "unreachable",
            Self::Status { .. } => "status",
            Self::Unreadable { .. } => "unreadable",
        }
    }
}

/// Asks over HTTP.
pub struct RuntimeLoad(Client<HttpConnector, Empty<Bytes>>);

impl Default for RuntimeLoad {
    fn default() -> Self {
        let client = Client::builder(TokioExecutor::new())
            .pool_max_idle_per_host(1)
            .build_http();
        Self(client)
    }
}

impl GpuLoad for RuntimeLoad {
    async fn read(&self, address: &str) -> Result<ReplicaLoad, LoadError> {
        let unreachable = |source: Box<dyn std::error::Error + Send + Sync>| LoadError::Unreachable {
            address: address.to_owned(),
            source,
        };
        let uri = format!("http://{address}/load")
            .parse()
            .map_err(|error: hyper::http::uri::InvalidUri| unreachable(error.into()))?;
        let answer = self.0.get(uri).await.map_err(|error| unreachable(error.into()))?;
        if !answer.status().is_success() {
            return Err(LoadError::Status {
                address: address.to_owned(),
                status: answer.status().as_u16(),
            });
        }
        let body = Limited::new(answer.into_body(), MAX_BYTES).collect().await;
        parse(&body.map_err(unreachable)?.to_bytes()).map_err(|reason| LoadError::Unreadable {
            address: address.to_owned(),
            reason,
        })
    }
}

#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
struct Answer {
    version: u32,
    ready: bool,
    draining: bool,
    requests_per_second: Rates,
    queue_delay_counts: [u64; 13],
    busy_percent: Option<f64>,
    gpu: Option<Gpu>,
}

/// Over 6 s and 60 s.
#[derive(Deserialize)]
struct Rates {
    offered: [f64; 2],
    refused: [f64; 2],
    answered: [f64; 2],
}

#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
struct Gpu {
    stale: bool,
    utilization_percent: Option<f64>,
}

/// The body of an answer in the planner's words.
///
/// # Errors
/// Says why it is no load of version 1.
pub fn parse(body: &[u8]) -> Result<ReplicaLoad, String> {
    let answer: Answer = serde_json::from_slice(body).map_err(|error| error.to_string())?;
    if answer.version != VERSION {
        return Err(format!("version {}", answer.version));
    }
    let gpu = answer.gpu.filter(|gpu| !gpu.stale);
    Ok(ReplicaLoad {
        ready: answer.ready && !answer.draining,
        offered: answer.requests_per_second.offered,
        refused: answer.requests_per_second.refused,
        answered: answer.requests_per_second.answered,
        queue_delay_counts: answer.queue_delay_counts,
        busy_percent: answer.busy_percent,
        gpu_percent: gpu.and_then(|gpu| gpu.utilization_percent),
    })
}
