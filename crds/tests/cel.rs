//! The CEL rules, without an API server: each one is broken by a case here, and the samples break none.

#![allow(clippy::unwrap_used, reason = "a test fails by panicking")]

use std::collections::BTreeSet;

use crds::{GpuPool, ModelDeployment};
use serde_json::{Value, json};

/// JSON pointer, what is written there, and a part of the message that then comes.
type Case = (&'static str, Value, &'static str);

fn sample(name: &str) -> Value {
    let path = format!("{}/../docs/samples/{name}.yaml", env!("CARGO_MANIFEST_DIR"));
    serde_yaml::from_str(&std::fs::read_to_string(path).unwrap()).unwrap()
}

fn autoscaling(change: impl FnOnce(&mut Value)) -> Value {
    let mut autoscaling = json!({"minReplicas": 1, "maxReplicas": 3, "metrics": [
        {"name": "rate", "type": "RequestRate", "requestRate": {"targetPerReplica": 100}}]});
    change(&mut autoscaling);
    autoscaling
}

fn with(pointer: &str, value: Value, sample: &Value) -> Value {
    let mut changed = sample.clone();
    let (parent, key) = pointer.rsplit_once('/').unwrap();
    let parent = changed.pointer_mut(parent).unwrap();
    if value.is_null() {
        parent.as_object_mut().unwrap().remove(key);
    } else {
        parent[key] = value;
    }
    changed
}

fn model_errors(value: Value) -> Vec<String> {
    let model: ModelDeployment = serde_json::from_value(value).unwrap();
    messages(model.validate_cel())
}

fn pool_errors(value: Value) -> Vec<String> {
    let pool: GpuPool = serde_json::from_value(value).unwrap();
    messages(pool.validate_cel())
}

fn messages<E: std::fmt::Display>(result: Result<(), E>) -> Vec<String> {
    result
        .err()
        .map(|errors| errors.to_string())
        .into_iter()
        .collect()
}

fn model_cases() -> Vec<Case> {
    let metric = |metric: Value| autoscaling(|a| a["metrics"] = json!([metric]));
    let wrong = |kind: &str| metric(json!({"name": "m", "type": kind}));
    let zero = metric(json!({"name": "m", "type": "QueueDelay", "queueDelay": {"target": "0s"}}));
    vec![
        (
            "/metadata/name",
            json!("a".repeat(41)),
            "metadata.name: at most 40",
        ),
        (
            "/metadata/name",
            json!("9lives"),
            "metadata.name: a lower case letter",
        ),
        (
            "/spec/replicas",
            Value::Null,
            "exactly one of replicas and autoscaling",
        ),
        (
            "/spec/autoscaling",
            autoscaling(|_| {}),
            "exactly one of replicas and autoscaling",
        ),
        (
            "/spec/autoscaling",
            autoscaling(|a| a["minReplicas"] = json!(4)),
            "minReplicas must not be above",
        ),
        (
            "/spec/autoscaling",
            wrong("RequestRate"),
            "requestRate must be set",
        ),
        ("/spec/autoscaling", wrong("QueueDelay"), "queueDelay must be set"),
        (
            "/spec/autoscaling",
            wrong("GpuUtilization"),
            "gpuUtilization must be set",
        ),
        ("/spec/autoscaling", zero, "queueDelay.target: must be above 0s"),
        (
            "/spec/model/uri",
            json!("ftp://models/x"),
            "model.uri: must start with",
        ),
        (
            "/spec/rollout",
            json!({"maxSurge": "0", "maxUnavailable": "0%"}),
            "cannot both be 0",
        ),
    ]
}

fn pool_cases() -> Vec<Case> {
    vec![
        (
            "/metadata/name",
            json!("a".repeat(41)),
            "metadata.name: at most 40",
        ),
        (
            "/metadata/name",
            json!("a.b"),
            "metadata.name: lower case letters, digits",
        ),
        ("/spec/diskSize", json!("19Gi"), "diskSize: from 20Gi"),
        ("/spec/tags", json!({"aws:x": "1"}), "tags: keys of"),
        ("/spec/labels", json!({"pinnace.dev/x": "1"}), "labels: keys of"),
    ]
}

#[test]
fn the_samples_break_no_rule() {
    let (model, pool) = (sample("modeldeployment"), sample("gpupool"));
    let scaled = with(
        "/spec/autoscaling",
        autoscaling(|_| {}),
        &with("/spec/replicas", Value::Null, &model),
    );
    assert_eq!(model_errors(model), [""; 0]);
    assert_eq!(model_errors(scaled), [""; 0]);
    assert_eq!(pool_errors(pool), [""; 0]);
}

#[test]
fn every_rule_is_broken_by_a_case() {
    let mut said = vec![];
    for (sample, cases, errors) in [
        (
            sample("modeldeployment"),
            model_cases(),
            model_errors as fn(Value) -> Vec<String>,
        ),
        (sample("gpupool"), pool_cases(), pool_errors),
    ] {
        for (pointer, value, expected) in cases {
            let found = errors(with(pointer, value, &sample)).join("\n");
            assert!(
                found.contains(expected),
                "{pointer}: {found:?} lacks {expected:?}"
            );
            said.push(found);
        }
    }
    said.extend(messages(pool_update("purpose", "Training")));
    let said = said.join("\n");
    // With one value in its enum there is no other to change to; the API server's own tests hold for such a rule.
    let untold: Vec<_> = rules()
        .into_iter()
        .filter(|rule| !said.contains(rule.as_str()))
        .collect();
    assert_eq!(untold, ["purchase: immutable; create a second pool instead"]);
}

fn pool_update(field: &str, value: &str) -> Result<(), impl std::fmt::Display> {
    let old = sample("gpupool");
    let new = with(&format!("/spec/{field}"), json!(value), &old);
    let parse = |value| serde_json::from_value::<GpuPool>(value).unwrap();
    parse(new).validate_cel_update(&parse(old))
}

/// Messages of all rules in the generated definitions.
fn rules() -> BTreeSet<String> {
    fn collect(value: &Value, all: &mut BTreeSet<String>) {
        if let Some(rules) = value.get("x-kubernetes-validations").and_then(Value::as_array) {
            all.extend(
                rules
                    .iter()
                    .filter_map(|rule| rule["message"].as_str().map(str::to_owned)),
            );
        }
        match value {
            Value::Object(map) => map.values().for_each(|value| collect(value, all)),
            Value::Array(items) => items.iter().for_each(|value| collect(value, all)),
            _ => {}
        }
    }
    let mut all = BTreeSet::new();
    for (_, yaml) in crds::yaml::all() {
        collect(&serde_yaml::from_str(&yaml).unwrap(), &mut all);
    }
    all
}
