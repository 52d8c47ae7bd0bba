//! The accept loop: timers and bounds that a plain `serve` does not have.

use std::convert::Infallible;
use std::future::Future;
use std::sync::Arc;
use std::time::{Duration, Instant};

use http::{HeaderValue, Request, header};
use hyper::body::Incoming;
use hyper::server::conn::http1;
use hyper::service::service_fn;
use hyper_util::rt::{TokioIo, TokioTimer};
use rand::RngExt;
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::{OwnedSemaphorePermit, Semaphore, watch};

use super::Serving;
use super::body::Reply;

/// Request heads are small; more is refused with 431.
const MAX_HEAD_BYTES: usize = 32 << 10;
/// After an accept that failed for want of descriptors, trying at once would spin.
const ACCEPT_PAUSE: Duration = Duration::from_millis(50);

#[derive(Clone, Copy, Debug)]
pub struct Limits {
    pub connections: usize,
    pub header_timeout: Duration,
    pub max_age: Duration,
}

/// Serves `listener` until `stop` says so, then until every connection has ended.
pub async fn run<H, F>(
    listener: TcpListener,
    serving: Arc<Serving>,
    limits: Limits,
    stop: watch::Receiver<bool>,
    handle: H,
) where
    H: Fn(Arc<Serving>, Request<Incoming>) -> F + Clone + Send + Sync + 'static,
    F: Future<Output = Reply> + Send + 'static,
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
        tokio::spawn(connection.serve(stream, handle.clone()));
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

struct Connection {
    serving: Arc<Serving>,
    limits: Limits,
    stop: watch::Receiver<bool>,
    place: OwnedSemaphorePermit,
}

impl Connection {
    async fn serve<H, F>(mut self, stream: TcpStream, handle: H)
    where
        H: Fn(Arc<Serving>, Request<Incoming>) -> F + Clone + Send + Sync + 'static,
        F: Future<Output = Reply> + Send + 'static,
    {
        self.serving.metrics.connections.inc();
        let age = self.limits.max_age.mul_f64(rand::rng().random_range(0.75..1.0));
        let close_at = Instant::now() + age;
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
            .header_read_timeout(self.limits.header_timeout)
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
        if let Err(error) = result {
            tracing::debug!(%error, "connection ended");
        }
        self.serving.metrics.connections.dec();
        drop(self.place);
    }
}
