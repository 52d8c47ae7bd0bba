//! What clients ask besides scores: metadata, the model's configuration, its statistics, the repository index. The
//! same messages go out over gRPC and, as JSON, over HTTP.

use std::collections::HashMap;
use std::sync::Arc;

use super::declared::BYTES;
use super::pb;
use crate::cascade::Models;
use crate::catalog::Listed;
use crate::engine::TensorSpec;
use crate::engine::layout::Place;
use crate::ids::InputRules;
use crate::model::ServedModel;
use crate::priority::Priority;
use crate::ready::Ready;
use crate::statistics::{Counts, PhaseTotals, Total};
use pb::model_metadata_response::TensorMetadata;
use pb::repository_index_response::ModelIndex;

/// `pinnace_rank` is our own: what belongs to the request is sent once. `schedule_policy` is the one with the parameters `priority` and `timeout`.
const EXTENSIONS: [&str; 6] = [
    "binary_tensor_data",
    "model_configuration",
    "model_repository",
    "pinnace_rank",
    "schedule_policy",
    "statistics",
];

/// In Triton's words: who runs it, and what it is.
fn platform(model: &ServedModel) -> String {
    format!("{}_onnx", model.chosen.engine.as_str())
}

pub fn server() -> pb::ServerMetadataResponse {
    pb::ServerMetadataResponse {
        name: "pinnace".to_owned(),
        version: env!("CARGO_PKG_VERSION").to_owned(),
        extensions: EXTENSIONS.map(str::to_owned).to_vec(),
    }
}

/// A version's metadata; `versions` are those of the model that are served.
pub fn model<'a>(models: impl Into<Models<'a>>, versions: &[Arc<Ready>]) -> pb::ModelMetadataResponse {
    let models = models.into();
    let model = models.model;
    let tensor = |spec: &TensorSpec, datatype: &str| TensorMetadata {
        name: spec.name.clone(),
        datatype: datatype.to_owned(),
        shape: spec.protocol_shape(),
    };
    let input = |spec: &TensorSpec| match takes_text(models, spec) {
        true => tensor(spec, BYTES),
        false => tensor(spec, spec.datatype.name()),
    };
    let output = |spec: &TensorSpec| tensor(spec, spec.datatype.name());
    pb::ModelMetadataResponse {
        name: model.name.clone(),
        versions: versions.iter().map(|ready| ready.model.version.clone()).collect(),
        platform: platform(model),
        inputs: inputs(models).into_iter().map(input).collect(),
        outputs: model.signature.outputs.iter().map(output).collect(),
    }
}

/// The inputs as clients send them; of a cascade those of both models, one of the same name once.
pub fn inputs(models: Models<'_>) -> Vec<&TensorSpec> {
    let mut specs = own_inputs(models.model);
    for spec in models.light.map(own_inputs).unwrap_or_default() {
        if specs.iter().all(|own| own.name != spec.name) {
            specs.push(spec);
        }
    }
    specs
}

/// The model's own, or with an item table its ids instead of what it has.
fn own_inputs(model: &ServedModel) -> Vec<&TensorSpec> {
    let Some(items) = &model.items else {
        return model.signature.inputs.iter().collect();
    };
    let mut specs = Vec::with_capacity(model.signature.inputs.len() + 1);
    for (spec, place) in model.signature.inputs.iter().zip(&model.layout.places) {
        match place {
            Place::Whole(slot) if items.has(*slot) => {}
            Place::Split { user, item } if items.has(*item) => specs.push(&model.layout.slots[*user].spec),
            _ => specs.push(spec),
        }
    }
    specs.push(items.ids());
    specs
}

/// Whether an input's values are hashed: text is what clients are told to send, though numbers are taken too.
fn takes_text(models: Models<'_>, spec: &TensorSpec) -> bool {
    let rules = models.id_rules(&spec.name);
    rules.is_some_and(InputRules::takes_text)
}

/// The model's configuration in Triton's terms: `dims` without the batch when there is one.
pub fn config<'a>(models: impl Into<Models<'a>>) -> pb::ModelConfig {
    let models = models.into();
    let model = models.model;
    let batched = model.signature.batched();
    let dims = |spec: &TensorSpec| spec.protocol_shape()[usize::from(batched)..].to_vec();
    let input = |spec: &TensorSpec| pb::ModelInput {
        name: spec.name.clone(),
        data_type: match takes_text(models, spec) {
            true => pb::DataType::TypeString.into(),
            false => data_type(spec).into(),
        },
        dims: dims(spec),
    };
    let output = |spec: &TensorSpec| pb::ModelOutput {
        name: spec.name.clone(),
        data_type: data_type(spec).into(),
        dims: dims(spec),
    };
    // Of a cascade, what a request may send is the light model's to take.
    let rows = models.light.unwrap_or(model).config.max_batch_size;
    let rows = if batched { rows } else { 0 };
    let joins = model.batching.max_rows > 1;
    let delay = model.batching.max_delay.as_micros();
    pb::ModelConfig {
        name: model.name.clone(),
        platform: platform(model),
        backend: model.chosen.engine.as_str().to_owned(),
        parameters: parameters(model),
        max_batch_size: i32::try_from(rows).unwrap_or(i32::MAX),
        input: inputs(models).into_iter().map(input).collect(),
        output: model.signature.outputs.iter().map(output).collect(),
        dynamic_batching: joins.then(|| pb::ModelDynamicBatching {
            max_queue_delay_microseconds: u64::try_from(delay).unwrap_or(u64::MAX),
            priority_levels: Priority::ALL.len() as u64,
            default_priority_level: Priority::DEFAULT_LEVEL,
        }),
    }
}

/// The engine, why it is not `rank`, or in what it computes; what may come once, what is named by id, and what feeds it.
fn parameters(model: &ServedModel) -> HashMap<String, pb::ModelParameter> {
    let mut parameters = vec![("engine", model.chosen.engine.as_str().to_owned())];
    match &model.chosen.not_rank {
        Some(not) => parameters.push(("not_rank", not.reason.clone())),
        None => {
            parameters.push(("instruction_set", model.config.instruction_set.to_string()));
            parameters.push(("precision", model.config.precision.to_string()));
        }
    }
    let once = model.config.request_inputs.written();
    if !once.is_empty() {
        parameters.push(("request_inputs", once.join(" ")));
    }
    if let Some(items) = &model.items {
        let filled: Vec<&str> = items.filled().collect();
        parameters.push((
            "item_table",
            format!("{}: {}", items.ids().name, filled.join(" ")),
        ));
    }
    if let Some(cascade) = &model.config.cascade {
        parameters.push(("cascade", format!("{}: {}", cascade.model, cascade.keep)));
    }
    let parameter =
        |(name, string_value): (&str, String)| (name.to_owned(), pb::ModelParameter { string_value });
    parameters.into_iter().map(parameter).collect()
}

fn data_type(spec: &TensorSpec) -> pb::DataType {
    let name = format!("TYPE_{}", spec.datatype.name());
    pb::DataType::from_str_name(&name).unwrap_or(pb::DataType::TypeInvalid)
}

/// A data type in JSON.
pub fn type_name<S: serde::Serializer>(number: &i32, serializer: S) -> Result<S::Ok, S::Error> {
    let data_type = pb::DataType::try_from(*number).unwrap_or(pb::DataType::TypeInvalid);
    serializer.serialize_str(data_type.as_str_name())
}

pub fn index(listed: Vec<Listed>) -> pb::RepositoryIndexResponse {
    let model = |listed: Listed| ModelIndex {
        name: listed.name,
        version: listed.version,
        state: listed.state.to_owned(),
        reason: listed.reason,
    };
    pb::RepositoryIndexResponse {
        models: listed.into_iter().map(model).collect(),
    }
}

pub fn statistics(models: &[Arc<Ready>]) -> pb::ModelStatisticsResponse {
    let of = |ready: &Arc<Ready>| counted(&ready.model, &ready.statistics.snapshot());
    pb::ModelStatisticsResponse {
        model_stats: models.iter().map(of).collect(),
    }
}

fn counted(model: &ServedModel, counts: &Counts) -> pb::ModelStatistics {
    // There is no response cache: nothing was looked up.
    let none = || duration(Total::default());
    let inference = pb::InferStatistics {
        success: duration(counts.success),
        fail: duration(counts.fail),
        queue: duration(counts.queue),
        compute_input: duration(counts.phases.input),
        compute_infer: duration(counts.phases.infer),
        compute_output: duration(counts.phases.output),
        cache_hit: none(),
        cache_miss: none(),
    };
    let by_rows = |(rows, totals): (&usize, &PhaseTotals)| pb::InferBatchStatistics {
        batch_size: *rows as u64,
        compute_input: duration(totals.input),
        compute_infer: duration(totals.infer),
        compute_output: duration(totals.output),
    };
    pb::ModelStatistics {
        name: model.name.clone(),
        version: model.version.clone(),
        last_inference: counts.last_inference_ms,
        inference_count: counts.rows,
        execution_count: counts.runs,
        inference_stats: Some(inference),
        batch_stats: counts.by_rows.iter().map(by_rows).collect(),
    }
}

fn duration(total: Total) -> Option<pb::StatisticDuration> {
    Some(pb::StatisticDuration {
        count: total.count,
        ns: total.ns,
    })
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use rank::plan::InstructionSet;
    use serde_json::json;

    use crate::protocol::request::tests::{hashed, model};
    use crate::queue::Batching;
    use crate::ready::tests::named;
    use crate::statistics::{Phases, Statistics};

    #[test]
    fn shapes_and_types() {
        let served = named("m", "3", Batching::NONE);
        let metadata = json!(super::model(&model(), &[served]));
        assert_eq!(metadata["inputs"][0]["shape"], json!([-1, 2]));
        assert_eq!(metadata["versions"], json!(["3"]));
        let config = json!(super::config(&model()));
        assert_eq!(config["max_batch_size"], 3);
        assert_eq!(config["input"][1]["data_type"], "TYPE_INT64");
        assert_eq!(config["input"][0]["data_type"], "TYPE_FP32");
        assert_eq!(config["input"][0]["dims"], json!([2]));
        assert_eq!(config["output"][0]["dims"], json!([]));
        assert_eq!(
            (&config["backend"], &config["platform"]),
            (&json!("rank"), &json!("rank_onnx"))
        );
        let parameter = |name: &str| config["parameters"][name]["string_value"].as_str();
        assert_eq!(
            (parameter("engine"), parameter("precision")),
            (Some("rank"), Some("f32"))
        );
        let set: InstructionSet = parameter("instruction_set").unwrap().parse().unwrap();
        assert_eq!(set, InstructionSet::best());
        assert_eq!(config["parameters"].as_object().unwrap().len(), 3);
        let batching =
            json!({"max_queue_delay_microseconds": 2000, "priority_levels": 3, "default_priority_level": 2});
        assert_eq!(config["dynamic_batching"], batching);
        let mut alone = model();
        alone.batching = Batching::NONE;
        assert!(json!(super::config(&alone)).get("dynamic_batching").is_none());
    }

    #[test]
    fn hashed_inputs_are_told_as_text() {
        let metadata = json!(super::model(&hashed(), &[]));
        assert_eq!(metadata["inputs"][1]["datatype"], "BYTES");
        assert_eq!(metadata["inputs"][0]["datatype"], "FP32");
        assert_eq!(
            json!(super::config(&hashed()))["input"][1]["data_type"],
            "TYPE_STRING"
        );
    }

    #[test]
    fn statistics_by_request_and_by_run() {
        let statistics = Statistics::default();
        let ns = Duration::from_nanos;
        let phases = Phases {
            input: ns(1),
            infer: ns(20),
            output: ns(3),
        };
        statistics.ran(7, [ns(4), ns(5)].into_iter(), phases);
        statistics.answered(true, ns(30));
        let model = json!(super::counted(&model(), &statistics.snapshot()));
        assert_eq!((&model["name"], &model["version"]), (&json!("m"), &json!("3")));
        assert_eq!(
            (&model["inference_count"], &model["execution_count"]),
            (&json!(7), &json!(1))
        );
        let stats = &model["inference_stats"];
        for (name, count, ns) in [
            ("success", 1, 30),
            ("fail", 0, 0),
            ("queue", 2, 9),
            ("compute_input", 2, 2),
            ("compute_infer", 2, 40),
            ("compute_output", 2, 6),
            ("cache_hit", 0, 0),
            ("cache_miss", 0, 0),
        ] {
            assert_eq!(stats[name], json!({"count": count, "ns": ns}), "{name}");
        }
        let run = json!({"batch_size": 7, "compute_input": {"count": 1, "ns": 1},
            "compute_infer": {"count": 1, "ns": 20}, "compute_output": {"count": 1, "ns": 3}});
        assert_eq!(model["batch_stats"], json!([run]));
    }
}
