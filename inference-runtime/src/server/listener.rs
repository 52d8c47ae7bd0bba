//! The accept loop, and connections in HTTP/1 and HTTP/2: timers and bounds that a plain `serve` does not have.

use std::convert::Infallible;
use std::future::Future;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

use http::{HeaderValue, Request, header};
use hyper::body::Incoming;
use hyper::server::conn::{http1, http2};
use hyper::service::{Service, service_fn};
use hyper_util::rt::{TokioExecutor, TokioIo, TokioTimer};
use rand::RngExt;
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::{OwnedSemaphorePermit, Semaphore, watch};

use super::Serving;
use super::body::{Reply, spread};
use super::grpc::door::Door;

/// Request heads are small; more is refused with 431.
const MAX_HEAD_BYTES: usize = 32 << 10;
/// Requests in flight on one HTTP/2 connection: clients that send all they have over one connection must be able to
/// fill the queue's better part.
const MAX_STREAMS: u32 = 1024;
/// A client that does not answer a ping for so long is gone.
const KEEP_ALIVE_TIMEOUT: Duration = Duration::from_secs(20);
/// How long a connection without a request may take to end when it is asked to.
const SILENCE: Duration = Duration::from_secs(1);
/// After an accept that failed for want of descriptors, trying at once would spin.
const ACCEPT_PAUSE: Duration = Duration::from_millis(50);

#[derive(Clone, Copy, Debug)]
pub struct Limits {
    pub connections: usize,
    pub header_timeout: Duration,
    pub max_age: Duration,
}

/// Serves `listener` until `stop` says so, then until every connection has ended.
pub async fn run<S, F>(
    listener: TcpListener,
    serving: Arc<Serving>,
    limits: Limits,
    stop: watch::Receiver<bool>,
    serve: S,
) where
    S: Fn(Connection, TcpStream) -> F,
    F: Future<Output = ()> + Send + 'static,
{
    let places = Arc::new(Semaphore::new(limits.connections));
    let mut stopping = stop.clone();
    loop {
        let accepted = tokio::select! {
            () = stopped(&mut stopping) => break,
            accepted = accept(&listener, &places) => accepted,
        };
        let Some((stream, place)) = accepted else { continue };
        let connection = Connection {
            serving: Arc::clone(&serving),
            limits,
            stop: stop.clone(),
            place,
        };
        tokio::spawn(serve(connection, stream));
    }
    drop(listener);
    // All places back: all connections have ended.
    let all = u32::try_from(limits.connections).unwrap_or(u32::MAX);
    let _ = places.acquire_many(all).await;
}

async fn stopped(stop: &mut watch::Receiver<bool>) {
    // A closed channel means that the process is ending too.
    let _ = stop.wait_for(|stop| *stop).await;
}

async fn accept(
    listener: &TcpListener,
    places: &Arc<Semaphore>,
) -> Option<(TcpStream, OwnedSemaphorePermit)> {
    let place = Arc::clone(places).acquire_owned().await.ok()?;
    match listener.accept().await {
        Ok((stream, _)) => {
            let _ = stream.set_nodelay(true);
            Some((stream, place))
        }
        Err(error) => {
            tracing::debug!(%error, "connection not accepted");
            tokio::time::sleep(ACCEPT_PAUSE).await;
            None
        }
    }
}

/// An accepted connection, counted while it is open.
pub struct Connection {
    serving: Arc<Serving>,
    limits: Limits,
    stop: watch::Receiver<bool>,
    place: OwnedSemaphorePermit,
}

impl Connection {
    /// Answers HTTP/1 requests until the connection ends.
    pub async fn http<H, F>(mut self, stream: TcpStream, handle: H)
    where
        H: Fn(Arc<Serving>, Request<Incoming>) -> F + Clone + Send + Sync + 'static,
        F: Future<Output = Reply> + Send + 'static,
    {
        self.serving.metrics.connections.inc();
        let close_at = Instant::now() + self.age();
        let serving = Arc::clone(&self.serving);
        let service = service_fn(move |request| {
            let (serving, handle) = (Arc::clone(&serving), handle.clone());
            async move {
                let mut reply = handle(Arc::clone(&serving), request).await;
                // Asked to close with an answer, a client never loses a request to a closing connection.
                if serving.is_draining() || Instant::now() >= close_at {
                    reply
                        .headers_mut()
                        .insert(header::CONNECTION, HeaderValue::from_static("close"));
                }
                Ok::<_, Infallible>(reply)
            }
        });
        let mut builder = http1::Builder::new();
        builder
            .timer(TokioTimer::new())
            .header_read_timeout(spread(self.limits.header_timeout))
            .max_header_size(MAX_HEAD_BYTES);
        let connection = builder.serve_connection(TokioIo::new(stream), service);
        let mut connection = std::pin::pin!(connection);
        let result = tokio::select! {
            result = connection.as_mut() => result,
            () = stopped(&mut self.stop) => {
                connection.as_mut().graceful_shutdown();
                connection.await
            }
        };
        self.end(result);
    }

    /// Answers gRPC requests until the connection ends. It is asked to end (GOAWAY, and nothing is lost) at its age,
    /// when no request came in time, and when the process stops.
    pub async fn grpc(mut self, stream: TcpStream, door: Door) {
        self.serving.metrics.connections.inc();
        let used = Arc::new(AtomicBool::new(false));
        let seen = Arc::clone(&used);
        let service = service_fn(move |request| {
            seen.store(true, Ordering::Relaxed);
            door.call(request)
        });
        let mut builder = http2::Builder::new(TokioExecutor::new());
        builder
            .timer(TokioTimer::new())
            .max_concurrent_streams(MAX_STREAMS)
            .max_header_list_size(MAX_HEAD_BYTES as u32)
            .keep_alive_interval(self.limits.header_timeout)
            .keep_alive_timeout(KEEP_ALIVE_TIMEOUT);
        let connection = builder.serve_connection(TokioIo::new(stream), service);
        let mut connection = std::pin::pin!(connection);
        let age = tokio::time::sleep(self.age());
        let first_request = async {
            tokio::time::sleep(spread(self.limits.header_timeout)).await;
            if used.load(Ordering::Relaxed) {
                std::future::pending::<()>().await;
            }
        };
        let asked_to_end = async {
            tokio::select! {
                () = stopped(&mut self.stop) => {}
                () = age => {}
                () = first_request => {}
            }
        };
        let mut result = tokio::select! {
            result = connection.as_mut() => Some(result),
            () = asked_to_end => None,
        };
        if result.is_none() {
            connection.as_mut().graceful_shutdown();
            // One that never said anything would not hear that either.
            result = tokio::time::timeout(SILENCE, connection.as_mut()).await.ok();
        }
        let result = match result {
            Some(result) => result,
            None if used.load(Ordering::Relaxed) => connection.await,
            None => Ok(()),
        };
        self.end(result);
    }

    /// Connections that were opened together are not closed together.
    fn age(&self) -> Duration {
        self.limits.max_age.mul_f64(rand::rng().random_range(0.75..1.0))
    }

    fn end(self, result: Result<(), hyper::Error>) {
        if let Err(error) = result {
            tracing::debug!(%error, "connection ended");
        }
        self.serving.metrics.connections.dec();
        drop(self.place);
    }
}
