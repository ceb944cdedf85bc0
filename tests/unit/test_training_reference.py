"""The reference table: right values, and an error for every way in which it may be the wrong table."""

from pathlib import Path

import numpy as np
import pandas as pd
import pytest
import torch
from marginbench.errors import UserError
from marginbench.models.loading import load_model
from marginbench.records import REFERENCE, check_table
from marginbench.training.batches import PairCollator
from marginbench.training.pair_logps import pair_log_probs, prepare_log_probs
from marginbench.training.reference import compute_reference, join_reference, pair_rows, reference_key

SETTINGS = {"model_hash": "model", "template_hash": "template", "max_length": 24, "precision": "fp32"}
KEY = reference_key(**SETTINGS)


@pytest.fixture(scope="module")
def tokens() -> pd.DataFrame:
    draw = np.random.default_rng(0)

    def ids(high: int) -> list[int]:
        return draw.integers(5, 200, draw.integers(1, high)).tolist()

    rows = [(f"pair{i:02d}", "train", ids(8), ids(15), ids(15)) for i in range(13)]
    return pd.DataFrame(rows, columns=["pair_id", "split", "prompt_ids", "chosen_ids", "rejected_ids"])


@pytest.fixture(scope="module")
def reference(toy_model: Path, tokens: pd.DataFrame) -> pd.DataFrame:
    return compute_reference(load_model(toy_model), tokens, batch_size=4, pad_id=0, **SETTINGS)


def test_equals_a_forward_on_the_fly(toy_model: Path, tokens: pd.DataFrame, reference: pd.DataFrame) -> None:
    check_table(reference, REFERENCE, "reference")
    model = load_model(toy_model)
    prepare_log_probs(model)
    rows = pair_rows(tokens)
    with torch.no_grad():
        for start in range(0, len(rows), 5):  # other batches than the table was made with
            found = pair_log_probs(model, PairCollator(0).torch_call(rows[start : start + 5]))
            part = reference.iloc[start : start + 5]
            np.testing.assert_allclose(found.chosen_logp, part["ref_chosen_logp"], rtol=0, atol=1e-4)
            np.testing.assert_allclose(found.rejected_logp, part["ref_rejected_logp"], rtol=0, atol=1e-4)
    assert reference["chosen_len"].tolist() == tokens["chosen_ids"].map(len).tolist()


def test_join_is_by_pair_id(tokens: pd.DataFrame, reference: pd.DataFrame) -> None:
    some = tokens.iloc[[7, 2, 11]].reset_index(drop=True)
    joined = join_reference(some, reference.sample(frac=1, random_state=1), KEY)
    assert joined["pair_id"].tolist() == ["pair07", "pair02", "pair11"]
    assert joined["ref_chosen_logp"].tolist() == reference["ref_chosen_logp"].iloc[[7, 2, 11]].tolist()


def test_a_missing_pair(tokens: pd.DataFrame, reference: pd.DataFrame) -> None:
    with pytest.raises(UserError, match="1 of 13 pairs are missing, the first is pair05"):
        join_reference(tokens, reference[reference["pair_id"] != "pair05"], KEY)


@pytest.mark.parametrize(
    ("change", "named"),
    [
        ({"model_hash": "other"}, "model"),
        ({"template_hash": "other"}, "template"),
        ({"max_length": 32}, "max_length"),
        ({"precision": "bf16"}, "precision"),
    ],
)
def test_another_setting(tokens: pd.DataFrame, reference: pd.DataFrame, change: dict, named: str) -> None:
    with pytest.raises(UserError, match=f"made with another {named} than"):
        join_reference(tokens, reference, reference_key(**{**SETTINGS, **change}))


@pytest.mark.parametrize("column", ["prompt_ids", "chosen_ids", "rejected_ids"])
def test_other_tokens_under_the_same_pair_id(tokens: pd.DataFrame, reference: pd.DataFrame, column: str) -> None:
    """As many tokens, but not the same ones: a completion that was moved to another prompt."""
    changed = tokens.copy()
    changed.at[3, column] = [token + 1 for token in changed.at[3, column]]
    with pytest.raises(UserError, match="pair pair03: made with another tokens"):
        join_reference(changed, reference, KEY)


def test_a_pair_longer_than_max_length(toy_model: Path, tokens: pd.DataFrame) -> None:
    with pytest.raises(UserError, match="max_length is 10; tokenise again"):
        compute_reference(load_model(toy_model), tokens, batch_size=4, pad_id=0, **{**SETTINGS, "max_length": 10})


def test_progress_ends_at_the_total(toy_model: Path, tokens: pd.DataFrame) -> None:
    seen = []
    progress = lambda done, total, note="": seen.append((done, total))  # noqa: E731
    compute_reference(load_model(toy_model), tokens, batch_size=6, pad_id=0, progress=progress, **SETTINGS)
    assert seen == [(6, 13), (12, 13), (13, 13)]
