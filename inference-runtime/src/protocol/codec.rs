//! Reads and writes the messages of the gRPC service. What cannot be read is the client's mistake (INVALID_ARGUMENT).
//!
//! An empty tensor has two bytes on the wire and some hundred in memory: fields are counted before anything is made of
//! them, so that a message takes no more memory than its bytes warrant.

use std::marker::PhantomData;

use bytes::Buf;
use prost::Message;
use prost::encoding::{DecodeContext, decode_key, skip_field};
use tonic::Status;
use tonic::codec::{self, DecodeBuf};
use tonic_prost::ProstEncoder;

use super::check::MAX_TENSORS;

/// Fields of a message: inputs, outputs and contents, each as many as there may be, and parameters.
const MAX_FIELDS: usize = 4 * MAX_TENSORS;

/// Of messages `T` that are sent and `U` that are received.
pub struct Codec<T, U>(PhantomData<(T, U)>);

impl<T, U> Default for Codec<T, U> {
    fn default() -> Self {
        Self(PhantomData)
    }
}

impl<T, U> codec::Codec for Codec<T, U>
where
    T: Message + Send + 'static,
    U: Message + Default + Send + 'static,
{
    type Encode = T;
    type Decode = U;
    type Encoder = ProstEncoder<T>;
    type Decoder = Decoder<U>;

    fn encoder(&mut self) -> Self::Encoder {
        ProstEncoder::default()
    }

    fn decoder(&mut self) -> Self::Decoder {
        Decoder(PhantomData)
    }
}

pub struct Decoder<U>(PhantomData<U>);

impl<U: Message + Default> codec::Decoder for Decoder<U> {
    type Item = U;
    type Error = Status;

    fn decode(&mut self, buffer: &mut DecodeBuf<'_>) -> Result<Option<U>, Status> {
        decode(buffer).map(Some).map_err(Status::invalid_argument)
    }
}

/// Reads a message of one contiguous buffer; the error says what is wrong.
pub fn decode<U: Message + Default>(mut buffer: impl Buf) -> Result<U, String> {
    if more_fields(buffer.chunk(), MAX_FIELDS) {
        return Err(format!(
            "the message has more than {MAX_FIELDS} fields; at most {MAX_TENSORS} tensors are taken"
        ));
    }
    U::decode(&mut buffer).map_err(|error| format!("the message is not read: {error}"))
}

/// Whether a message has more than `limit` fields of its own. What cannot be read ends the count.
fn more_fields(mut message: &[u8], limit: usize) -> bool {
    let mut fields = 0;
    while let Ok((tag, kind)) = decode_key(&mut message) {
        fields += 1;
        if fields > limit {
            return true;
        }
        if skip_field(kind, tag, &mut message, DecodeContext::default()).is_err() {
            return false;
        }
    }
    false
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::protocol::pb::ModelInferRequest;
    use crate::protocol::pb::model_infer_request::InferInputTensor;

    fn message(inputs: usize) -> Vec<u8> {
        ModelInferRequest {
            inputs: vec![InferInputTensor::default(); inputs],
            ..Default::default()
        }
        .encode_to_vec()
    }

    #[test]
    fn fields_are_counted_before_they_are_read() {
        let read = |inputs| decode::<ModelInferRequest>(message(inputs).as_slice());
        assert_eq!(read(MAX_FIELDS).unwrap().inputs.len(), MAX_FIELDS);
        assert!(read(MAX_FIELDS + 1).unwrap_err().contains("4096 fields"));
        // Fields of fields are not meant.
        let mut nested = ModelInferRequest::default();
        nested.inputs.push(InferInputTensor {
            shape: vec![1; 2 * MAX_FIELDS],
            ..Default::default()
        });
        assert!(decode::<ModelInferRequest>(nested.encode_to_vec().as_slice()).is_ok());
    }

    #[test]
    fn what_is_no_message_is_said() {
        let whole = message(3);
        for broken in [&[0xff][..], &[0x0a, 0x7f], &whole[..whole.len() - 1]] {
            let error = decode::<ModelInferRequest>(broken).unwrap_err();
            assert!(error.starts_with("the message is not read"), "{error}");
        }
    }
}
