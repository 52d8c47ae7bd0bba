//! The thread that sends traces to the collector.

use std::time::Duration;

use http::Uri;
use opentelemetry::{Key, KeyValue};
use opentelemetry_otlp::{ExporterBuildError, Protocol, WithExportConfig};
use opentelemetry_sdk::Resource;
use opentelemetry_sdk::trace::SpanExporter;
use tokio::sync::{mpsc, oneshot};
use tokio::time::{Instant, timeout, timeout_at};

use super::{Ended, TraceCounts, Traces, count, spans};

/// Traces that wait for the thread.
const QUEUE: usize = 2048;
/// Traces in one message.
const BATCH: usize = 256;
/// How long a trace waits for others to be sent with.
const INTERVAL: Duration = Duration::from_secs(1);
/// How long a collector may take over a message, tries after a failure included.
const PATIENCE: Duration = Duration::from_secs(10);

const PROTOCOL_VARIABLE: &str = "OTEL_EXPORTER_OTLP_PROTOCOL";
const SERVICE: &str = "pinnace-runtime";

#[derive(Debug, thiserror::Error)]
pub enum StartError {
    #[error(
        "{PROTOCOL_VARIABLE} is {0:?}: only http/protobuf is spoken, as a rule on port 4318 of a collector"
    )]
    Protocol(String),
    #[error("traces cannot be sent as OTEL_EXPORTER_OTLP_* say")]
    Settings { source: ExporterBuildError },
    #[error("cannot start the thread that sends traces")]
    Thread { source: std::io::Error },
}

/// The thread, as its owner sees it.
pub struct Exporter {
    pub(super) stop: oneshot::Sender<()>,
    pub(super) ended: oneshot::Receiver<()>,
}

impl Exporter {
    /// Ends the thread when it has sent what waits, or leaves it behind when that takes too long.
    pub async fn flush(self, within: Duration) {
        drop(self.stop);
        if timeout(within, self.ended).await.is_err() {
            tracing::warn!("leaving with traces that the collector did not take in time");
        }
    }
}

/// Starts the thread. `share` is of requests whose client has not decided whether they are traced.
pub fn start(collector: &Uri, share: f64, counts: &TraceCounts) -> Result<(Traces, Exporter), StartError> {
    match std::env::var(PROTOCOL_VARIABLE) {
        Ok(other) if !matches!(other.as_str(), "" | "http/protobuf") => {
            return Err(StartError::Protocol(other));
        }
        _ => {}
    }
    let exporter = opentelemetry_otlp::SpanExporter::builder()
        .with_http()
        .with_endpoint(traces_url(collector))
        .with_protocol(Protocol::HttpBinary)
        .build();
    let mut exporter = exporter.map_err(|source| StartError::Settings { source })?;
    exporter.set_resource(&resource());
    // A reactor of its own: making and sending messages takes no time of those that serve.
    let reactor = tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build()
        .map_err(|source| StartError::Thread { source })?;
    let (sender, receiver) = mpsc::channel(QUEUE);
    let ((stop, stopping), (done, ended)) = (oneshot::channel(), oneshot::channel());
    let courier = Courier::new(exporter, receiver, stopping, counts.clone());
    std::thread::Builder::new()
        .name("traces".to_owned())
        .spawn(move || {
            reactor.block_on(courier.work());
            let _ = done.send(());
        })
        .map_err(|source| StartError::Thread { source })?;
    let traces = Traces {
        share,
        ended: sender,
        counts: counts.clone(),
    };
    Ok((traces, Exporter { stop, ended }))
}

/// The endpoint is the collector's, for all that it takes.
fn traces_url(collector: &Uri) -> String {
    format!("{}/v1/traces", collector.to_string().trim_end_matches('/'))
}

/// OTEL_SERVICE_NAME and OTEL_RESOURCE_ATTRIBUTES, with a name where they give none.
fn resource() -> Resource {
    let version = KeyValue::new("service.version", env!("CARGO_PKG_VERSION"));
    let named = Resource::builder().build();
    let name = named.get(&Key::new("service.name"));
    let builder = Resource::builder().with_attribute(version);
    match name {
        Some(name) if !name.as_str().starts_with("unknown_service") => builder.build(),
        _ => builder.with_service_name(SERVICE).build(),
    }
}

/// Takes ended traces to the collector, some at a time.
pub(super) struct Courier<E> {
    exporter: E,
    ended: mpsc::Receiver<Ended>,
    stop: oneshot::Receiver<()>,
    stopped: bool,
    counts: TraceCounts,
    pub(super) patience: Duration,
    /// Whether the last message was taken: the log tells of changes.
    refused: bool,
}

impl<E: SpanExporter> Courier<E> {
    pub(super) fn new(
        exporter: E,
        ended: mpsc::Receiver<Ended>,
        stop: oneshot::Receiver<()>,
        counts: TraceCounts,
    ) -> Self {
        Self {
            exporter,
            ended,
            stop,
            stopped: false,
            counts,
            patience: PATIENCE,
            refused: false,
        }
    }

    /// Until it is stopped, and nothing waits.
    pub(super) async fn work(mut self) {
        while let Some(first) = self.next().await {
            let batch = self.gather(first).await;
            self.send(&batch).await;
        }
    }

    async fn next(&mut self) -> Option<Ended> {
        if !self.stopped {
            tokio::select! {
                ended = self.ended.recv() => return ended,
                _ = &mut self.stop => {}
            }
            self.stopped = true;
            self.ended.close();
        }
        self.ended.recv().await
    }

    async fn gather(&mut self, first: Ended) -> Vec<Ended> {
        let (mut batch, leaves) = (vec![first], Instant::now() + INTERVAL);
        while batch.len() < BATCH {
            match timeout_at(leaves, self.next()).await {
                Ok(Some(ended)) => batch.push(ended),
                Ok(None) | Err(_) => break,
            }
        }
        batch
    }

    async fn send(&mut self, batch: &[Ended]) {
        let spans = batch.iter().flat_map(spans::of).collect();
        let problem = match timeout(self.patience, self.exporter.export(spans)).await {
            Ok(Ok(())) => None,
            Ok(Err(error)) => Some(error.to_string()),
            Err(_) => Some(format!("no answer within {:?}", self.patience)),
        };
        let outcome = if problem.is_none() {
            "sent"
        } else {
            "dropped_collector"
        };
        count(&self.counts, outcome, batch.len());
        match (problem, self.refused) {
            (Some(problem), false) => {
                tracing::warn!(problem, "the collector does not take traces: they are dropped")
            }
            (None, true) => tracing::info!("the collector takes traces again"),
            _ => return,
        }
        self.refused = !self.refused;
    }
}

#[cfg(test)]
mod tests {
    use super::traces_url;

    #[test]
    fn traces_have_a_path_below_the_endpoint() {
        for (endpoint, url) in [
            ("http://localhost:4318", "http://localhost:4318/v1/traces"),
            ("http://localhost:4318/", "http://localhost:4318/v1/traces"),
            (
                "https://otel.example/tenant",
                "https://otel.example/tenant/v1/traces",
            ),
        ] {
            assert_eq!(traces_url(&endpoint.parse().unwrap()), url);
        }
    }
}
