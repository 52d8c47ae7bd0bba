//! Request bodies in, answers out.

use std::time::{Duration, Instant};

use bytes::{Bytes, BytesMut};
use http::{HeaderValue, Response, StatusCode, header};
use http_body_util::{BodyExt, Full};
use hyper::body::{Body, Incoming};
use rand::RngExt;

use crate::admission::Permit;
use crate::protocol::ApiError;

pub type Reply = Response<Full<Bytes>>;

/// Of a refused request, as much body is read and thrown away as keeps the connection usable: a client that is
/// still sending would see a reset instead of the answer.
const DISCARDED: u64 = 4 << 20;
const DISCARD_TIME: Duration = Duration::from_secs(1);

/// Memory that is set aside for a declared body before its bytes are here.
const FIRST_BYTES: usize = 1 << 20;

/// A body that has come so far has to go on: so many bytes more in each [`STRIDE_TIME`], until it is whole. One that holds
/// less may take its time: as many as there may be connections hold half of the memory for bodies, by default.
const STRIDE: usize = 32 << 10;
const STRIDE_TIME: Duration = Duration::from_secs(2);

/// Until when the next bytes of a body have to be here.
pub struct Due {
    /// The time for the whole body, and its end.
    time: Duration,
    end: Instant,
    /// The end of this stride, and the bytes that end it.
    stride_end: Option<Instant>,
    bytes: usize,
}

impl Due {
    /// A body that has `time` from now on.
    pub fn new(time: Duration) -> Self {
        Self {
            time,
            end: Instant::now() + spread(time),
            stride_end: None,
            bytes: STRIDE,
        }
    }

    pub fn at(&self) -> Instant {
        self.stride_end.map_or(self.end, |stride| stride.min(self.end))
    }

    /// So many bytes are here, all in all; says whether that changed when the next are due.
    pub fn read(&mut self, bytes: usize) -> bool {
        let moved = bytes >= self.bytes;
        if moved {
            self.stride_end = Some(Instant::now() + STRIDE_TIME);
            self.bytes = bytes.saturating_add(STRIDE);
        }
        moved
    }

    /// They were not here in time.
    pub fn missed(&self) -> ApiError {
        match self.stride_end {
            Some(stride) if stride < self.end => {
                let message = format!(
                    "{STRIDE} bytes of the body did not arrive within {STRIDE_TIME:?}; send it faster, or in smaller requests"
                );
                late(message)
            }
            _ => too_slow(self.time),
        }
    }
}

/// At least the time, and up to a quarter more: clients that stalled together are not ended together, which would be a
/// burst of work that others wait for.
pub fn spread(time: Duration) -> Duration {
    time.mul_f64(rand::rng().random_range(1.0..1.25))
}

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
    late(format!(
        "the body did not arrive within {time:?}; send it faster, or in smaller requests"
    ))
}

fn late(message: String) -> ApiError {
    ApiError::new(StatusCode::REQUEST_TIMEOUT, "body_timeout", message)
}

/// Reads a body of at most `limit` bytes within `time`, counted by the permit as they arrive.
pub async fn read(
    mut body: Incoming,
    permit: &Permit,
    limit: usize,
    time: Duration,
) -> Result<Bytes, ApiError> {
    let read = read_frames(&mut body, permit, limit, time).await;
    match &read {
        Ok(_) => permit.arrived(),
        // There is no room for the rest of it: its sender is to hear that.
        Err(error) if error.retry_after.is_some() => {
            permit.give_back();
            discard(body).await;
        }
        Err(_) => {}
    }
    read
}

async fn read_frames(
    body: &mut Incoming,
    permit: &Permit,
    limit: usize,
    time: Duration,
) -> Result<Bytes, ApiError> {
    let mut due = Due::new(time);
    let declared = declared(body).and_then(|size| usize::try_from(size).ok());
    let mut bytes = BytesMut::new();
    loop {
        let frame = tokio::time::timeout_at(due.at().into(), body.frame()).await;
        let Some(frame) = frame.map_err(|_| due.missed())? else {
            return Ok(bytes.freeze());
        };
        let frame = frame.map_err(|error| ApiError::invalid(format!("the body ended early: {error}")))?;
        let Ok(data) = frame.into_data() else { continue };
        let read = bytes.len() + data.len();
        if read > limit {
            return Err(too_large(limit));
        }
        permit.grow(data.len())?;
        due.read(read);
        if bytes.is_empty() {
            // As a rule a short body comes whole.
            if body.is_end_stream() {
                return Ok(data);
            }
            bytes.reserve(declared.unwrap_or(0).clamp(read, FIRST_BYTES.max(read)));
        }
        bytes.extend_from_slice(&data);
    }
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

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_holds_memory_has_to_go_on_until_its_time_is_over() {
        let minute = Duration::from_secs(60);
        let mut due = Due::new(minute);
        let end = due.at();
        assert!(!due.read(STRIDE - 1));
        assert_eq!(due.at(), end);
        assert!(due.read(STRIDE));
        assert!(due.at() < end && due.missed().message.contains("within 2s"));
        assert!(!due.read(2 * STRIDE - 1));
        assert!(due.read(2 * STRIDE));
        let mut short = Due::new(Duration::from_millis(1));
        short.read(STRIDE);
        assert!(short.missed().message.contains("within 1ms"));
    }
}
