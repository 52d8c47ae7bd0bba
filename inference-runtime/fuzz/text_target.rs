//! Values of BYTES for a model that hashes them.

use std::sync::LazyLock;

use inference_runtime::engine::{Data, Datatype, Dim, Signature, TensorSpec};
use inference_runtime::model::ServedModel;
use inference_runtime::protocol::{grpc, pb};

use super::served;

/// Two columns of text, each hashed to one of 10 rows.
static TEXT_SERVED: LazyLock<ServedModel> = LazyLock::new(|| {
    let rows = || Dim::Named("rows".to_owned());
    let signature = Signature {
        inputs: vec![TensorSpec::new("tag", Datatype::I64, vec![rows(), Dim::Fixed(2)])],
        outputs: vec![TensorSpec::new("score", Datatype::F32, vec![rows()])],
    };
    let config = "{device: cpu, inputs: {tag: {vocabularies: [10], policies: [{hash: farmhash64}]}}}";
    served(signature, config)
});

/// Values of BYTES behind their lengths. The first two bytes say how many rows there are to be.
pub fn text_values(data: &[u8]) {
    let Some((rows, values)) = data.split_first_chunk() else {
        return;
    };
    let rows = i64::from(u16::from_le_bytes(*rows));
    let mut message = pb::ModelInferRequest::default();
    message.inputs.push(pb::model_infer_request::InferInputTensor {
        name: "tag".to_owned(),
        datatype: "BYTES".to_owned(),
        shape: vec![rows, 2],
        ..Default::default()
    });
    message.raw_input_contents.push(values.to_vec().into());
    match grpc::parse(message, &*TEXT_SERVED) {
        Ok(request) => {
            let Data::I64(ids) = &request.batch.inputs[0].data else {
                panic!("the model takes INT64");
            };
            assert!(ids.len() as i64 == 2 * rows && 4 * ids.len() <= values.len());
            assert!(ids.iter().all(|id| (0..10).contains(id)));
        }
        Err(error) => {
            let named = ["\"tag\"", "maxBatchSize"]
                .iter()
                .any(|name| error.message.contains(name));
            assert!(error.status.is_client_error() && named);
        }
    }
}
