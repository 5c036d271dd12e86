"""What both protocols do with a request once they have read it."""

import asyncio

import numpy as np

from tf_bert.serving.server.batching import Batcher
from tf_bert.serving.server.models import Models, ModelVersion
from tf_bert.serving.server.refusal import Refusal, Status
from tf_bert.serving.server.signature import Arrays, Limits, Signature


class Predictor:
    """Puts requests into the queue and waits for their answers.

    Args:
      models: what is served.
      batcher: what runs it.
      limits: of requests.
      timeout_seconds: an answer that takes longer is not waited for.
    """

    def __init__(self, models: Models, batcher: Batcher, limits: Limits, timeout_seconds: float) -> None:
        self.models, self.limits, self.timeout_seconds = models, limits, timeout_seconds
        self._batcher = batcher

    async def run(
        self, version: ModelVersion, signature: Signature, inputs: Arrays
    ) -> tuple[dict[str, np.ndarray], int]:
        """The outputs, and the number of examples.

        Raises:
          Refusal: if the inputs do not fit, too many wait already, or the answer takes too long.
        """
        count = signature.check(inputs, self.limits)
        answer = self._batcher.submit(signature, inputs, count)
        # A batch that is run goes on when nobody waits for it any more, and the version is in use until it has ended.
        version.hold()
        answer.add_done_callback(lambda _: version.release())
        try:
            return await asyncio.wait_for(asyncio.wrap_future(answer), self.timeout_seconds), count
        except asyncio.TimeoutError:
            raise Refusal(Status.TOO_LATE, f"no answer after {self.timeout_seconds:g} seconds; try again") from None
