//! The spans of a request. They tell names, numbers and times; never what a request or its answer holds.

use std::borrow::Cow;
use std::time::{Instant, SystemTime};

use opentelemetry::trace::{SpanContext, SpanId, SpanKind, Status, TraceFlags, TraceId};
use opentelemetry::{InstrumentationScope, KeyValue};
use opentelemetry_sdk::trace::{SpanData, SpanEvents, SpanLinks};
use rand::RngExt;

use super::{Door, Ended, Run, Trace};
use crate::priority::Priority;

/// The server's span, and below it one for each phase that took time, named as in the protocol's statistics.
pub fn of(ended: &Ended) -> Vec<SpanData> {
    let trace = &*ended.trace;
    let own = context(trace);
    let mut spans = vec![SpanData {
        parent_span_id: trace.parent.span_id(),
        parent_span_is_remote: trace.parent.is_valid(),
        span_kind: SpanKind::Server,
        attributes: attributes(ended),
        status: status(ended),
        ..span(name(trace.door), own.clone(), (trace.at, trace.at + ended.took))
    }];
    for run in trace.runs() {
        phases(&mut spans, (trace, &own), run);
    }
    spans
}

fn phases(spans: &mut Vec<SpanData>, (trace, own): (&Trace, &SpanContext), run: &Run) {
    let phases = [
        ("queue", run.waited),
        ("compute_input", run.phases.input),
        ("compute_infer", run.phases.infer),
        ("compute_output", run.phases.output),
    ];
    let mut begins = run.queued;
    for (name, took) in phases {
        let ends = begins + took;
        if !took.is_zero() {
            let times = (time_of_day(trace, begins), time_of_day(trace, ends));
            spans.push(SpanData {
                parent_span_id: own.span_id(),
                attributes: vec![
                    KeyValue::new("pinnace.model", run.model.clone()),
                    KeyValue::new("pinnace.run.requests", i64::from(run.shared_by)),
                ],
                ..span(name, child(own), times)
            });
        }
        begins = ends;
    }
}

fn name(door: Door) -> &'static str {
    match door {
        Door::Http => "POST /v2/models/{model}/infer",
        Door::Grpc => "inference.GRPCInferenceService/ModelInfer",
    }
}

/// The trace is the client's, if it has one.
fn context(trace: &Trace) -> SpanContext {
    let id = if trace.parent.is_valid() {
        trace.parent.trace_id()
    } else {
        TraceId::from_bytes(rand::rng().random())
    };
    sampled(id, trace.parent.trace_state().clone())
}

fn child(own: &SpanContext) -> SpanContext {
    sampled(own.trace_id(), own.trace_state().clone())
}

fn sampled(id: TraceId, state: opentelemetry::trace::TraceState) -> SpanContext {
    let own = SpanId::from_bytes(rand::rng().random());
    SpanContext::new(id, own, TraceFlags::SAMPLED, false, state)
}

fn span(
    name: &'static str,
    span_context: SpanContext,
    (start_time, end_time): (SystemTime, SystemTime),
) -> SpanData {
    SpanData {
        span_context,
        parent_span_id: SpanId::INVALID,
        parent_span_is_remote: false,
        span_kind: SpanKind::Internal,
        name: Cow::Borrowed(name),
        start_time,
        end_time,
        attributes: Vec::new(),
        dropped_attributes_count: 0,
        events: SpanEvents::default(),
        links: SpanLinks::default(),
        status: Status::Unset,
        instrumentation_scope: InstrumentationScope::builder("pinnace-runtime").build(),
    }
}

fn attributes(ended: &Ended) -> Vec<KeyValue> {
    let count = |number: u64| i64::try_from(number).unwrap_or(i64::MAX);
    let mut attributes = match ended.trace.door {
        Door::Http => vec![
            KeyValue::new("http.request.method", "POST"),
            KeyValue::new("http.route", "/v2/models/{model}/infer"),
            KeyValue::new("http.response.status_code", i64::from(ended.status.as_u16())),
        ],
        Door::Grpc => vec![
            KeyValue::new("rpc.system", "grpc"),
            KeyValue::new("rpc.service", "inference.GRPCInferenceService"),
            KeyValue::new("rpc.method", "ModelInfer"),
        ],
    };
    attributes.extend([
        KeyValue::new("pinnace.model", ended.model.clone()),
        KeyValue::new("pinnace.version", ended.version.clone()),
        KeyValue::new("pinnace.outcome", ended.outcome),
        KeyValue::new("pinnace.pairs", count(ended.pairs)),
        KeyValue::new("pinnace.items", count(ended.items)),
    ]);
    if let Some(priority) = ended.trace.priority.get() {
        attributes.push(KeyValue::new("pinnace.priority", word(*priority)));
    }
    attributes
}

fn word(priority: Priority) -> &'static str {
    match priority {
        Priority::High => "high",
        Priority::Normal => "normal",
        Priority::Low => "low",
    }
}

/// A client's mistake is no error of the server's. The text of an error may quote the request, so its class is told.
fn status(ended: &Ended) -> Status {
    if ended.status.is_server_error() {
        Status::error(ended.outcome)
    } else {
        Status::Unset
    }
}

fn time_of_day(trace: &Trace, moment: Instant) -> SystemTime {
    trace.at + moment.saturating_duration_since(trace.started)
}
