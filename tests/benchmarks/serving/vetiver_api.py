"""The same model behind vetiver; it answers with labels."""

import joblib
import pandas
from vetiver import VetiverAPI, VetiverModel

model = joblib.load("frame.joblib")
prototype = pandas.DataFrame({"text": ["a text"]})
app = VetiverAPI(VetiverModel(model, "spam", prototype_data=prototype), check_prototype=True).app
