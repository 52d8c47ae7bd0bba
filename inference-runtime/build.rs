//! Generates the gRPC service from its .proto file, without protoc. What HTTP answers in the same words can be
//! written as JSON.

use std::error::Error;

/// With the messages inside them.
const AS_JSON: [&str; 13] = [
    "ServerMetadataResponse",
    "ModelMetadataResponse",
    "RepositoryIndexResponse",
    "ModelConfig",
    "ModelInput",
    "ModelOutput",
    "ModelDynamicBatching",
    "ModelParameter",
    "ModelStatisticsResponse",
    "ModelStatistics",
    "InferStatistics",
    "InferBatchStatistics",
    "StatisticDuration",
];

fn main() -> Result<(), Box<dyn Error>> {
    println!("cargo::rerun-if-changed=proto");
    let files = protox::compile(["inference.proto"], ["proto"])?;
    let mut builder = tonic_prost_build::configure()
        .build_client(false)
        .codec_path("crate::protocol::codec::Codec")
        .bytes(".inference.ModelInferRequest.raw_input_contents")
        .bytes(".inference.ModelInferResponse.raw_output_contents");
    for message in AS_JSON {
        builder = builder.message_attribute(format!(".inference.{message}"), "#[derive(serde::Serialize)]");
    }
    // The number of a type on the wire, its name in JSON.
    for message in ["ModelInput", "ModelOutput"] {
        builder = builder.field_attribute(
            format!(".inference.{message}.data_type"),
            "#[serde(serialize_with = \"crate::protocol::metadata::type_name\")]",
        );
    }
    builder = builder.field_attribute(
        ".inference.ModelConfig.dynamic_batching",
        "#[serde(skip_serializing_if = \"Option::is_none\")]",
    );
    builder.compile_fds(files)?;
    Ok(())
}
