"""The model that MLServer loads."""

from mlserver import MLModel
from mlserver.codecs import NumpyCodec
from mlserver.types import InferenceRequest, InferenceResponse
from scorer import Scorer


class Ranker(MLModel):
    async def load(self) -> bool:
        self.scorer = Scorer(self.settings.parameters.uri, self.settings.parameters.extra["threads"])
        return True

    async def predict(self, payload: InferenceRequest) -> InferenceResponse:
        score = self.scorer({given.name: NumpyCodec.decode_input(given) for given in payload.inputs})
        return InferenceResponse(model_name=self.name, outputs=[NumpyCodec.encode_output(self.scorer.output, score)])
