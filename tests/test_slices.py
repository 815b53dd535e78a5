import numpy as np
import pandas as pd
import pytest
from pinmill.errors import DataError
from pinmill.metrics import Predictions
from pinmill.slices import score_slices, slice_rows


def sizes(slices):
    return {name: int(mask.sum()) for name, mask in slices.items()}


def test_few_values_give_a_slice_each_and_missing_ones_their_own():
    frame = pd.DataFrame({"city": ["Rome", "Oslo", None, "Oslo"], "new": [True, False, False, False]})
    assert sizes(slice_rows(frame, columns=["city", "new"])) == {
        "city = Oslo": 2,
        "city = Rome": 1,
        "city is missing": 1,
        "new = False": 3,
        "new = True": 1,
    }


def test_many_numbers_give_quarters_named_by_the_values_they_hold():
    frame = pd.DataFrame({"age": np.arange(1, 21)})
    assert sizes(slice_rows(frame, columns=["age"])) == {
        "age: 1 to 5": 5,
        "age: 6 to 10": 5,
        "age: 11 to 15": 5,
        "age: 16 to 20": 5,
    }


def test_many_words_give_the_frequent_ones_and_the_rest():
    frame = pd.DataFrame({"tag": list("aabcdefghijklmn")})
    found = sizes(slice_rows(frame, columns=["tag"]))
    assert (len(found), found["tag = a"], found["tag: any other"], sum(found.values())) == (12, 2, 3, 15)


def test_texts_are_sliced_in_thirds_of_length():
    frame = pd.DataFrame({"text": ["x" * length for length in range(1, 10)]})
    assert sizes(slice_rows(frame, text=["text"])) == {
        "text of 1 to 3 characters": 3,
        "text of 4 to 6 characters": 3,
        "text of 7 to 9 characters": 3,
    }


def test_texts_of_one_length_are_one_slice():
    assert sizes(slice_rows(pd.DataFrame({"text": ["ab"] * 5}), text=["text"])) == {"text of 2 to 2 characters": 5}


def test_unknown_columns_are_named_together():
    with pytest.raises(DataError, match=r"2 problems .*'txt'. Did you mean 'text'\?.*'zzz'"):
        slice_rows(pd.DataFrame({"text": ["a"]}), text=["txt"], columns=["zzz"])


def test_slices_are_scored_by_themselves_and_small_ones_stay_without_a_value():
    truth = np.array(["a", "b"] * 15, dtype=object)
    said = np.where(np.arange(30) < 20, truth, "a")
    p = Predictions(truth, said, None, ("a", "b"))
    masks = {"first": np.arange(30) < 20, "last": np.arange(30) >= 20, "few": np.arange(30) < 3}
    table = score_slices(p, masks, "accuracy", draws=200, seed=0)
    assert table[["slice", "n"]].values.tolist() == [["first", 20], ["last", 10], ["few", 3]]
    assert table["value"].tolist()[:2] == [1.0, 0.5]
    assert np.isnan(table.loc[2, ["value", "low", "high"]].to_numpy(dtype=float)).all()
    assert table.loc[1, "low"] < 0.5 < table.loc[1, "high"]


def test_a_slice_of_one_class_has_no_roc_auc_and_is_kept():
    truth = np.array(["n"] * 20 + ["p"] * 20, dtype=object)
    p = Predictions(truth, truth, np.column_stack([truth == "n", truth == "p"]).astype(float), ("n", "p"), "p")
    table = score_slices(p, {"negatives": truth == "n", "all": truth != ""}, "roc_auc", draws=50, seed=0)
    assert table["n"].tolist() == [20, 40]
    assert np.isnan(table.loc[0, "value"])
    assert table.loc[1, "value"] == 1.0
