//! Errors as the protocol gives them: a status and `{"error": "what is wrong and what to do"}`.

use http::StatusCode;

#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("{message}")]
pub struct ApiError {
    pub status: StatusCode,
    pub message: String,
    /// Seconds after which another try makes sense.
    pub retry_after: Option<u64>,
    /// A short static class for metrics.
    pub outcome: &'static str,
}

impl ApiError {
    pub fn new(status: StatusCode, outcome: &'static str, message: impl Into<String>) -> Self {
        Self {
            status,
            message: message.into(),
            retry_after: None,
            outcome,
        }
    }

    /// The client's mistake, which the message names.
    pub fn invalid(message: impl Into<String>) -> Self {
        Self::new(StatusCode::BAD_REQUEST, "invalid", message)
    }

    /// A request is larger than `maxBatchSize`.
    pub fn too_many_rows(rows: usize, limit: usize) -> Self {
        Self::invalid(format!(
            "{rows} rows; at most {limit} are taken (maxBatchSize in config.yaml): split the request"
        ))
    }

    /// Not now: the client may come again.
    pub fn refused(outcome: &'static str, message: impl Into<String>) -> Self {
        Self {
            retry_after: Some(1),
            ..Self::new(StatusCode::TOO_MANY_REQUESTS, outcome, message)
        }
    }

    pub fn internal(message: impl Into<String>) -> Self {
        Self::new(StatusCode::INTERNAL_SERVER_ERROR, "failed", message)
    }

    pub fn not_found(message: impl Into<String>) -> Self {
        Self::new(StatusCode::NOT_FOUND, "not_found", message)
    }

    pub fn body(&self) -> Vec<u8> {
        serde_json::json!({"error": self.message})
            .to_string()
            .into_bytes()
    }
}
