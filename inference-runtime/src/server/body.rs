//! Request bodies in, answers out.

use std::time::Duration;

use bytes::{Bytes, BytesMut};
use http::{HeaderValue, Response, StatusCode, header};
use http_body_util::{BodyExt, Full};
use hyper::body::{Body, Incoming};

use crate::admission::Permit;
use crate::protocol::ApiError;

pub type Reply = Response<Full<Bytes>>;

/// Of a refused request, as much body is read and thrown away as keeps the connection usable: a client that is
/// still sending would see a reset instead of the answer.
const DISCARDED: u64 = 4 << 20;
const DISCARD_TIME: Duration = Duration::from_secs(1);

/// The declared length of a body, if there is one.
pub fn declared(body: &Incoming) -> Option<u64> {
    body.size_hint().exact()
}

pub fn too_large(limit: usize) -> ApiError {
    let message =
        format!("the body is larger than {limit} bytes; split the request, or raise --max-body-bytes");
    ApiError::new(StatusCode::PAYLOAD_TOO_LARGE, "too_large", message)
}

pub fn too_slow(time: Duration) -> ApiError {
    let message = format!("the body did not arrive within {time:?}; send it faster, or in smaller requests");
    ApiError::new(StatusCode::REQUEST_TIMEOUT, "body_timeout", message)
}

/// Reads a body of at most `limit` bytes within `time`; the permit has counted the `declared` bytes already.
pub async fn read(
    mut body: Incoming,
    declared: Option<u64>,
    permit: &Permit,
    limit: usize,
    time: Duration,
) -> Result<Bytes, ApiError> {
    let reading = async {
        let mut bytes = BytesMut::with_capacity(
            declared
                .and_then(|size| size.try_into().ok())
                .unwrap_or(0)
                .min(limit),
        );
        while let Some(frame) = body.frame().await {
            let frame = frame.map_err(|error| ApiError::invalid(format!("the body ended early: {error}")))?;
            let Ok(data) = frame.into_data() else { continue };
            if bytes.len() + data.len() > limit {
                return Err(too_large(limit));
            }
            if declared.is_none() {
                permit.grow(data.len())?;
            }
            bytes.extend_from_slice(&data);
        }
        Ok(bytes.freeze())
    };
    tokio::time::timeout(time, reading)
        .await
        .unwrap_or_else(|_| Err(too_slow(time)))
}

/// Reads the body of a request on the admin port: a few parameters.
pub async fn read_small(body: Incoming) -> Result<Bytes, ApiError> {
    const LIMIT: usize = 64 << 10;
    const TIME: Duration = Duration::from_secs(10);
    let reading = http_body_util::Limited::new(body, LIMIT).collect();
    let read = tokio::time::timeout(TIME, reading)
        .await
        .map_err(|_| too_slow(TIME))?;
    let read = read
        .map_err(|error| ApiError::invalid(format!("the body is not read: {error}; send at most 64 KiB")))?;
    Ok(read.to_bytes())
}

/// Reads the body of a request that is not served, within bounds.
pub async fn discard(mut body: Incoming) {
    if declared(&body).is_some_and(|size| size > DISCARDED) {
        return;
    }
    let mut left = DISCARDED;
    let reading = async {
        while let Some(Ok(frame)) = body.frame().await {
            let size = frame.data_ref().map_or(0, |data| data.len() as u64);
            left = left.saturating_sub(size);
            if left == 0 {
                return;
            }
        }
    };
    let _ = tokio::time::timeout(DISCARD_TIME, reading).await;
}

pub fn reply(status: StatusCode, content_type: &'static str, body: impl Into<Bytes>) -> Reply {
    let mut reply = Response::new(Full::new(body.into()));
    *reply.status_mut() = status;
    reply
        .headers_mut()
        .insert(header::CONTENT_TYPE, HeaderValue::from_static(content_type));
    reply
}

pub fn json(value: &impl serde::Serialize) -> Reply {
    let text = serde_json::to_vec(value).expect("messages have text keys and finite numbers");
    reply(StatusCode::OK, "application/json", text)
}

pub fn error(error: &ApiError) -> Reply {
    let mut reply = reply(error.status, "application/json", error.body());
    if let Some(seconds) = error.retry_after {
        reply
            .headers_mut()
            .insert(header::RETRY_AFTER, HeaderValue::from(seconds));
    }
    // What is left of an unread body must not be taken for the next request.
    if matches!(
        error.status,
        StatusCode::PAYLOAD_TOO_LARGE | StatusCode::REQUEST_TIMEOUT
    ) {
        reply
            .headers_mut()
            .insert(header::CONNECTION, HeaderValue::from_static("close"));
    }
    reply
}
