use std::sync::Mutex;

use opentelemetry::trace::{SpanId, SpanKind, Status, TraceId};
use opentelemetry_sdk::error::{OTelSdkError, OTelSdkResult};
use opentelemetry_sdk::trace::{SpanData, SpanExporter};
use tokio::sync::oneshot;

use super::export::Courier;
use super::*;

const PARENT: &str = "00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01";

fn traces(share: f64, room: usize) -> (Traces, mpsc::Receiver<Ended>) {
    let (ended, receiver) = mpsc::channel(room);
    let counts = TraceCounts::default();
    (Traces { share, ended, counts }, receiver)
}

fn headers(parent: &str) -> HeaderMap {
    HeaderMap::from_iter([("traceparent".parse().unwrap(), parent.parse().unwrap())])
}

fn begin(traces: &Traces, parent: Option<&str>) -> Option<Arc<Trace>> {
    let headers = parent.map(headers).unwrap_or_default();
    traces.begin(Door::Http, &headers, Instant::now())
}

fn ended(trace: Arc<Trace>, outcome: &'static str, status: StatusCode) -> Ended {
    Ended {
        trace,
        took: Duration::from_millis(20),
        model: "m".to_owned(),
        version: "7".to_owned(),
        outcome,
        status,
        pairs: 3,
        items: 2,
    }
}

fn counted(counts: &TraceCounts, outcome: &'static str) -> u64 {
    counts.get_or_create(&TraceLabels { outcome }).get()
}

fn attribute(span: &SpanData, key: &str) -> Option<String> {
    let found = span
        .attributes
        .iter()
        .find(|attribute| attribute.key.as_str() == key)?;
    Some(found.value.to_string())
}

#[test]
fn the_client_decides_and_else_chance() {
    let (never, _never) = traces(0.0, 1);
    let (always, _always) = traces(1.0, 1);
    let unsampled = PARENT.replace("-01", "-00");
    assert!(begin(&never, None).is_none() && begin(&always, None).is_some());
    assert!(begin(&never, Some(PARENT)).is_some() && begin(&always, Some(&unsampled)).is_none());
    // What is no traceparent decides nothing.
    for bad in [
        "",
        "hello",
        "00-0-0-01",
        &PARENT.replace("0af7", "0AF7"),
        &"0".repeat(55),
    ] {
        let bad = Some(bad);
        assert!(
            begin(&never, bad).is_none() && begin(&always, bad).is_some(),
            "{bad:?}"
        );
    }
}

#[test]
fn a_request_has_a_span_and_one_for_each_phase() {
    let (traces, _receiver) = traces(0.0, 1);
    let trace = begin(&traces, Some(PARENT)).unwrap();
    let ms = Duration::from_millis;
    trace.asks(Priority::Low);
    trace.ran(Run {
        model: "m".to_owned(),
        queued: trace.started + ms(1),
        waited: ms(2),
        phases: Phases {
            input: Duration::ZERO,
            infer: ms(5),
            output: ms(1),
        },
        shared_by: 4,
    });
    let at = trace.at;
    let spans = spans::of(&ended(trace, "ok", StatusCode::OK));
    let (server, phases) = spans.split_first().unwrap();
    assert_eq!(
        server.parent_span_id,
        SpanId::from_hex("b7ad6b7169203331").unwrap()
    );
    assert!(server.parent_span_is_remote);
    assert_eq!(
        (&server.span_kind, &server.status),
        (&SpanKind::Server, &Status::Unset)
    );
    assert_eq!((server.start_time, server.end_time), (at, at + ms(20)));
    for (key, value) in [
        ("http.response.status_code", "200"),
        ("pinnace.model", "m"),
        ("pinnace.version", "7"),
        ("pinnace.outcome", "ok"),
        ("pinnace.pairs", "3"),
        ("pinnace.items", "2"),
        ("pinnace.priority", "low"),
    ] {
        assert_eq!(attribute(server, key).as_deref(), Some(value), "{key}");
    }
    let told = |span: &SpanData| {
        let since = |time: SystemTime| time.duration_since(at).unwrap();
        (
            span.name.to_string(),
            since(span.start_time),
            since(span.end_time),
        )
    };
    // It ran alone: there was nothing to join.
    let expected = [("queue", 1, 3), ("compute_infer", 3, 8), ("compute_output", 8, 9)];
    assert_eq!(
        phases.iter().map(told).collect::<Vec<_>>(),
        expected.map(|(name, begins, ends)| (name.to_owned(), ms(begins), ms(ends)))
    );
    let trace_id = TraceId::from_hex("0af7651916cd43dd8448eb211c80319c").unwrap();
    assert!(spans.iter().all(|span| span.span_context.trace_id() == trace_id));
    let own = server.span_context.span_id();
    assert!(
        phases
            .iter()
            .all(|span| span.parent_span_id == own && !span.parent_span_is_remote)
    );
    let requests = |span| attribute(span, "pinnace.run.requests");
    assert!(phases.iter().all(|span| requests(span).as_deref() == Some("4")));
}

#[test]
fn a_cascade_has_the_phases_of_both_models() {
    let (traces, _receiver) = traces(1.0, 1);
    let trace = begin(&traces, None).unwrap();
    for model in ["light", "heavy"] {
        trace.ran(Run {
            model: model.to_owned(),
            queued: trace.started,
            waited: Duration::ZERO,
            phases: Phases {
                infer: Duration::from_millis(1),
                ..Phases::default()
            },
            shared_by: 1,
        });
    }
    let spans = spans::of(&ended(trace, "ok", StatusCode::OK));
    let model = |span| attribute(span, "pinnace.model").unwrap();
    let models: Vec<String> = spans.iter().map(model).collect();
    assert_eq!(models, ["m", "light", "heavy"]);
}

#[test]
fn a_refused_request_has_one_span_and_only_our_faults_are_errors() {
    let (traces, _receiver) = traces(1.0, 1);
    let spans_of = |outcome, status| spans::of(&ended(begin(&traces, None).unwrap(), outcome, status));
    let refused = spans_of("refused_queue", StatusCode::TOO_MANY_REQUESTS);
    assert_eq!((refused.len(), &refused[0].status), (1, &Status::Unset));
    assert_eq!(refused[0].parent_span_id, SpanId::INVALID);
    assert_eq!(attribute(&refused[0], "pinnace.priority"), None);
    let failed = spans_of("failed", StatusCode::INTERNAL_SERVER_ERROR);
    assert_eq!(failed[0].status, Status::error("failed"));
    assert_ne!(
        refused[0].span_context.trace_id(),
        failed[0].span_context.trace_id()
    );
}

#[test]
fn a_full_queue_drops_and_counts() {
    let (traces, _receiver) = traces(1.0, 1);
    for _ in 0..3 {
        traces.end(ended(begin(&traces, None).unwrap(), "ok", StatusCode::OK));
    }
    assert_eq!(counted(&traces.counts, "dropped_queue"), 2);
}

/// Says of each message how many spans it has.
#[derive(Debug)]
struct Collector {
    messages: Arc<Mutex<Vec<usize>>>,
    answer: Answer,
}

#[derive(Clone, Copy, Debug)]
enum Answer {
    Taken,
    Refused,
    Never,
}

impl SpanExporter for Collector {
    async fn export(&self, batch: Vec<SpanData>) -> OTelSdkResult {
        self.messages.lock().unwrap().push(batch.len());
        match self.answer {
            Answer::Taken => Ok(()),
            Answer::Refused => Err(OTelSdkError::InternalFailure("no".to_owned())),
            Answer::Never => std::future::pending().await,
        }
    }
}

/// Ends `count` requests, then stops: the messages, and how traces were counted.
async fn sent(count: usize, answer: Answer) -> (Vec<usize>, TraceCounts) {
    let (traces, receiver) = traces(1.0, 1024);
    let messages = Arc::default();
    let exporter = Collector {
        messages: Arc::clone(&messages),
        answer,
    };
    let (stop, stopping) = oneshot::channel();
    let mut courier = Courier::new(exporter, receiver, stopping, traces.counts.clone());
    courier.patience = Duration::from_millis(10);
    for _ in 0..count {
        traces.end(ended(begin(&traces, None).unwrap(), "ok", StatusCode::OK));
    }
    drop(stop);
    courier.work().await;
    let messages = messages.lock().unwrap().clone();
    (messages, traces.counts)
}

#[tokio::test]
async fn all_that_waits_is_sent_before_the_end() {
    let (messages, counts) = sent(600, Answer::Taken).await;
    assert_eq!(messages, [256, 256, 88]);
    assert_eq!(counted(&counts, "sent"), 600);
}

#[tokio::test]
async fn what_a_collector_does_not_take_is_counted() {
    for answer in [Answer::Refused, Answer::Never] {
        let (messages, counts) = sent(300, answer).await;
        assert_eq!(messages, [256, 44], "{answer:?}");
        assert_eq!(
            (counted(&counts, "dropped_collector"), counted(&counts, "sent")),
            (300, 0)
        );
    }
}

#[tokio::test]
async fn a_flush_does_not_wait_for_ever() {
    let (stop, _stopping) = oneshot::channel();
    let (_never_done, ended) = oneshot::channel();
    let exporter = Exporter { stop, ended };
    let (begun, within) = (Instant::now(), Duration::from_millis(10));
    exporter.flush(within).await;
    assert!(begun.elapsed() >= within);
}
