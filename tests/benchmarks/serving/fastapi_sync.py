"""A model behind FastAPI as tutorials write it, with a sync endpoint."""

import joblib
from fastapi import FastAPI
from pydantic import BaseModel

app = FastAPI()
model = joblib.load("model.joblib")


class Message(BaseModel):
    """What is posted."""

    text: str


@app.post("/predict")
def predict(message: Message) -> dict:
    """The probability of each label."""
    (shares,) = model.predict_proba([message.text])
    return {"probability": dict(zip(model.classes_, shares.tolist(), strict=True))}
