//! The door of the gRPC port: admission by the head of a request, and bounds on its message while it arrives.

use std::convert::Infallible;
use std::pin::Pin;
use std::sync::{Arc, OnceLock};
use std::task::{Context, Poll, ready};
use std::time::{Duration, Instant};

use bytes::Bytes;
use futures::future::BoxFuture;
use http::{HeaderMap, Request, Response};
use hyper::body::{Body, Frame, Incoming};
use tokio::time::Sleep;
use tonic::codegen::Service as _;
use tonic::{Code, Status};

use super::{Inference, Serving, status};
use crate::admission::Permit;
use crate::catalog::loading;
use crate::protocol::ApiError;
use crate::protocol::pb::grpc_inference_service_server::GrpcInferenceServiceServer;
use crate::server::body::{Due, too_large};
use crate::server::score::{self, Counts};
use crate::trace::{self, Trace};

const INFER: &str = "/inference.GRPCInferenceService/ModelInfer";
/// Messages of all other methods: names and flags.
const SMALL_MESSAGE: usize = 64 << 10;
/// Compressed flag and length, before each message.
const PREFIX: usize = 5;

/// An admitted infer request: what the door knows of it, and what came of it.
pub struct Ticket {
    pub permit: Arc<Permit>,
    pub started: Instant,
    pub timeout: Duration,
    pub trace: Option<Arc<Trace>>,
    counts: OnceLock<Counts>,
    result: OnceLock<Result<(), ApiError>>,
}

impl Ticket {
    /// What its counts are, once the service was called.
    pub fn counted(&self, counts: Counts) {
        let _ = self.counts.set(counts);
    }

    /// The first word counts: a message that broke off ends the request, whatever the decoder says then.
    pub fn end(&self, result: Result<(), ApiError>) {
        let _ = self.result.set(result);
    }
}

#[derive(Clone)]
pub struct Door {
    serving: Arc<Serving>,
    service: GrpcInferenceServiceServer<Inference>,
}

impl Door {
    pub fn new(serving: Arc<Serving>) -> Self {
        let limit = serving.max_body_bytes.max(SMALL_MESSAGE);
        let service = GrpcInferenceServiceServer::new(Inference::new(Arc::clone(&serving)));
        Self {
            serving,
            service: service.max_decoding_message_size(limit),
        }
    }

    pub async fn enter(mut self, request: Request<Incoming>) -> Response<tonic::body::Body> {
        if request.uri().path() == INFER {
            return self.infer(request).await;
        }
        let message = |body| Message::new(body, SMALL_MESSAGE, self.serving.body_timeout, None);
        let Ok(response) = self.service.call(request.map(message)).await;
        // No other method fails by itself.
        if is_internal(&response) {
            return status(&undecoded()).into_http();
        }
        response
    }

    async fn infer(mut self, request: Request<Incoming>) -> Response<tonic::body::Body> {
        let started = Instant::now();
        self.serving.load.offered();
        let trace = self.serving.trace(trace::Door::Grpc, request.headers(), started);
        let ticket = match self.admit(request.headers(), started, trace.clone()) {
            Ok(ticket) => Arc::new(ticket),
            Err(error) => {
                score::count(&self.serving, Err(&error), &Counts::of(trace), started);
                return status(&error).into_http();
            }
        };
        let (limit, time) = (self.serving.max_body_bytes, self.serving.body_timeout);
        let message = |body| Message::new(body, limit, time, Some(Arc::clone(&ticket)));
        let mut request = request.map(message);
        request.extensions_mut().insert(Arc::clone(&ticket));
        let Ok(mut response) = self.service.call(request).await;
        // The service was not called: what came is no message.
        if ticket.result.get().is_none() && is_internal(&response) {
            response = status(&undecoded()).into_http();
        }
        let result = ticket.result.get_or_init(|| Err(undecoded())).as_ref().copied();
        let counts = ticket.counts.get_or_init(|| Counts::of(trace));
        score::count(&self.serving, result, counts, started);
        response
    }

    fn admit(
        &self,
        headers: &HeaderMap,
        started: Instant,
        trace: Option<Arc<Trace>>,
    ) -> Result<Ticket, ApiError> {
        let serving = &self.serving;
        if !serving.catalog.any_ready() {
            return Err(loading());
        }
        let timeout = match headers.get("grpc-timeout") {
            Some(value) => {
                let own = value.to_str().ok().and_then(grpc_timeout);
                own.ok_or_else(|| ApiError::invalid(format!("grpc-timeout {value:?} is not a time")))?
            }
            None => serving.request_timeout,
        };
        let timeout = timeout.min(serving.request_timeout);
        Ok(Ticket {
            permit: serving.admission.admit(0, timeout)?,
            started,
            timeout,
            trace,
            counts: OnceLock::new(),
            result: OnceLock::new(),
        })
    }
}

impl hyper::service::Service<Request<Incoming>> for Door {
    type Response = Response<tonic::body::Body>;
    type Error = Infallible;
    type Future = BoxFuture<'static, Result<Self::Response, Infallible>>;

    fn call(&self, request: Request<Incoming>) -> Self::Future {
        let door = self.clone();
        Box::pin(async move { Ok(door.enter(request).await) })
    }
}

/// The library calls a message that is cut short, or has a wrong prefix, an internal error.
fn is_internal(response: &Response<tonic::body::Body>) -> bool {
    let code = response.headers().get(Status::GRPC_STATUS);
    code.is_some_and(|code| Code::from_bytes(code.as_bytes()) == Code::Internal)
}

fn undecoded() -> ApiError {
    ApiError::invalid("the body is not one gRPC message: a prefix of 5 bytes, and as many bytes as it says")
}

/// At most eight digits and a unit, as gRPC has it.
fn grpc_timeout(text: &str) -> Option<Duration> {
    let (digits, unit) = text.split_at_checked(text.len().checked_sub(1)?)?;
    if digits.is_empty() || digits.len() > 8 || !digits.bytes().all(|byte| byte.is_ascii_digit()) {
        return None;
    }
    let number: u64 = digits.parse().ok()?;
    Some(match unit {
        "H" => Duration::from_secs(3600 * number),
        "M" => Duration::from_secs(60 * number),
        "S" => Duration::from_secs(number),
        "m" => Duration::from_millis(number),
        "u" => Duration::from_micros(number),
        "n" => Duration::from_nanos(number),
        _ => return None,
    })
}

/// The body of a request, bounded in size and time, its bytes counted by the permit.
struct Message {
    body: Incoming,
    read: usize,
    limit: usize,
    due: Due,
    late: Pin<Box<Sleep>>,
    ticket: Option<Arc<Ticket>>,
}

impl Message {
    fn new(body: Incoming, limit: usize, time: Duration, ticket: Option<Arc<Ticket>>) -> Self {
        let due = Due::new(time);
        Self {
            body,
            read: 0,
            limit,
            late: Box::pin(tokio::time::sleep_until(due.at().into())),
            due,
            ticket,
        }
    }

    fn check(&mut self, data: &[u8]) -> Result<(), ApiError> {
        // The length that the first frame announces, so that a large message is refused before it is read.
        let announced = data
            .get(1..PREFIX)
            .filter(|_| self.read == 0)
            .and_then(|length| Some(u32::from_be_bytes(length.try_into().ok()?)));
        self.read = self.read.saturating_add(data.len());
        let announced = announced.map_or(0, |length| length as usize);
        if announced > self.limit || self.read > self.limit.saturating_add(PREFIX) {
            return Err(too_large(self.limit));
        }
        if self.due.read(self.read) {
            self.late.as_mut().reset(self.due.at().into());
        }
        match &self.ticket {
            Some(ticket) => ticket.permit.grow(data.len()),
            None => Ok(()),
        }
    }

    fn fail(&self, error: &ApiError) -> Status {
        if let Some(ticket) = &self.ticket {
            ticket.end(Err(error.clone()));
        }
        status(error)
    }
}

impl Body for Message {
    type Data = Bytes;
    type Error = Status;

    fn poll_frame(
        self: Pin<&mut Self>,
        context: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, Status>>> {
        let this = self.get_mut();
        let frame = match Pin::new(&mut this.body).poll_frame(context) {
            Poll::Ready(frame) => frame,
            Poll::Pending => {
                ready!(this.late.as_mut().poll(context));
                return Poll::Ready(Some(Err(this.fail(&this.due.missed()))));
            }
        };
        let result = match frame {
            Some(Ok(frame)) => this
                .check(frame.data_ref().map_or(&[], Bytes::as_ref))
                .map(|()| frame),
            Some(Err(error)) => Err(ApiError::invalid(format!("the message ended early: {error}"))),
            None => return Poll::Ready(None),
        };
        Poll::Ready(Some(result.map_err(|error| this.fail(&error))))
    }

    fn is_end_stream(&self) -> bool {
        self.body.is_end_stream()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn timeouts() {
        for (text, timeout) in [
            ("1H", Some(Duration::from_secs(3600))),
            ("2M", Some(Duration::from_secs(120))),
            ("3S", Some(Duration::from_secs(3))),
            ("99999999m", Some(Duration::from_millis(99_999_999))),
            ("5u", Some(Duration::from_micros(5))),
            ("6n", Some(Duration::from_nanos(6))),
            ("S", None),
            ("", None),
            ("1", None),
            ("-1S", None),
            ("1.5S", None),
            ("123456789S", None),
            ("1\u{e9}", None),
        ] {
            assert_eq!(grpc_timeout(text), timeout, "{text}");
        }
    }
}
