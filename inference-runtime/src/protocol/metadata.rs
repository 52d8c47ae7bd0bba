//! What clients ask before their first request: the server's and the model's metadata, and its configuration.

use serde_json::{Value, json};

use crate::engine::TensorSpec;
use crate::model::ServedModel;

pub fn server() -> Value {
    json!({
        "name": "pinnace",
        "version": env!("CARGO_PKG_VERSION"),
        "extensions": ["binary_tensor_data", "model_configuration", "model_repository"],
    })
}

pub fn model(model: &ServedModel) -> Value {
    let tensor = |spec: &TensorSpec| json!({"name": spec.name, "datatype": spec.datatype.name(), "shape": spec.protocol_shape()});
    json!({
        "name": model.name,
        "versions": [model.version],
        "platform": "onnxruntime_onnx",
        "inputs": model.signature.inputs.iter().map(tensor).collect::<Vec<_>>(),
        "outputs": model.signature.outputs.iter().map(tensor).collect::<Vec<_>>(),
    })
}

/// The model's configuration in Triton's terms: `dims` without the batch when there is one.
pub fn config(model: &ServedModel) -> Value {
    let batched = model.signature.batched();
    let tensor = |spec: &TensorSpec| {
        let shape = spec.protocol_shape();
        let dims = if batched { shape[1..].to_vec() } else { shape };
        let data_type = spec.datatype.name().replace("FP", "TYPE_FP");
        let data_type = if data_type.starts_with("TYPE_") {
            data_type
        } else {
            format!("TYPE_{data_type}")
        };
        json!({"name": spec.name, "data_type": data_type, "dims": dims})
    };
    json!({
        "name": model.name,
        "platform": "onnxruntime_onnx",
        "backend": "onnxruntime",
        "max_batch_size": if batched { model.config.max_batch_size } else { 0 },
        "input": model.signature.inputs.iter().map(tensor).collect::<Vec<_>>(),
        "output": model.signature.outputs.iter().map(tensor).collect::<Vec<_>>(),
    })
}

/// The repository index: the one model.
pub fn index(name: &str, version: &str, ready: bool) -> Value {
    let state = if ready { "READY" } else { "LOADING" };
    json!([{"name": name, "version": version, "state": state, "reason": ""}])
}

#[cfg(test)]
mod tests {
    use crate::protocol::request::tests::model;

    #[test]
    fn shapes_and_types() {
        let metadata = super::model(&model());
        assert_eq!(metadata["inputs"][0]["shape"], serde_json::json!([-1, 2]));
        assert_eq!(metadata["versions"], serde_json::json!(["3"]));
        let config = super::config(&model());
        assert_eq!(config["max_batch_size"], 3);
        assert_eq!(config["input"][1]["data_type"], "TYPE_INT64");
        assert_eq!(config["input"][0]["data_type"], "TYPE_FP32");
        assert_eq!(config["input"][0]["dims"], serde_json::json!([2]));
        assert_eq!(config["output"][0]["dims"], serde_json::json!([]));
    }
}
