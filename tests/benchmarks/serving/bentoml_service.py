"""The same model behind BentoML, with its adaptive batching."""

import os

import bentoml
import joblib
from pydantic import BaseModel


class Message(BaseModel):
    """What is posted, in a list."""

    text: str


@bentoml.service(workers=1)
class Spam:
    """One model in one worker."""

    def __init__(self) -> None:
        self.model = joblib.load(os.environ["MODEL"])

    @bentoml.api(batchable=True, max_batch_size=64)
    def predict(self, messages: list[Message]) -> list[dict]:
        """The probability of each label, for each message."""
        shares = self.model.predict_proba([message.text for message in messages])
        return [{"probability": dict(zip(self.model.classes_, row, strict=True))} for row in shares.tolist()]
