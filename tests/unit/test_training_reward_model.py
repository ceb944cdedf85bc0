"""The reward model: it learns a rule, reports its accuracy honestly, and is the same for the same seed."""

from pathlib import Path

import numpy as np
import pandas as pd
import pytest
import torch
from marginbench.errors import UserError
from marginbench.models.loading import load_tokenizer
from marginbench.models.manifest import read_manifest
from marginbench.records import TRAIN_LOG, check_table
from marginbench.study import Full, Lora, RewardModel
from marginbench.training.reward_model import pair_accuracy, train_reward_model


@pytest.fixture(scope="module")
def tokens(toy_model: Path) -> pd.DataFrame:
    """The chosen answer says `good` and ends, the other says `bad`; one in four is holdout."""
    tokenizer = load_tokenizer(toy_model)

    def encode(text: str) -> list[int]:
        return tokenizer(text)["input_ids"]

    return pd.DataFrame(
        {
            "pair_id": [f"p{n}" for n in range(48)],
            "split": ["holdout" if n % 4 == 0 else "train" for n in range(48)],
            "prompt_ids": [encode(f"the film {n}") for n in range(48)],
            "chosen_ids": [[*encode(" was good"), tokenizer.eos_token_id] for _ in range(48)],
            "rejected_ids": [encode(" was bad") for _ in range(48)],
        }
    )


def run(toy_model: Path, tokens: pd.DataFrame, out: Path, seed: int = 0, pairs: object = None, **keys: object) -> tuple:
    opt = RewardModel(
        **{"epochs": 3, "batch_size": 12, "micro_batch_size": 12, "learning_rate": 1e-2, "tuning": Lora(rank=4), **keys}
    )
    return train_reward_model(
        start_manifest=toy_model,
        tokens=tokens,
        opt=opt,
        dataset_id="pairs",
        model_id="toy",
        seed=seed,
        out_dir=out,
        pairs=pairs,
    )


def test_it_learns_the_rule_and_reports_it(toy_model: Path, tokens: pd.DataFrame, tmp_path: Path) -> None:
    scores = pd.DataFrame({"pair_id": tokens["pair_id"], "score_chosen": 1.0, "score_rejected": 0.0})
    scores.loc[scores["pair_id"].isin(["p0", "p4", "p8"]), "score_chosen"] = -1.0  # three labels are wrong
    scores.loc[scores["pair_id"] == "p12", "score_chosen"] = np.nan
    log, report = run(toy_model, tokens, tmp_path, pairs=scores)
    check_table(log, TRAIN_LOG, "log")
    assert {"loss", "reward_accuracy", "reward_margin"} <= set(log["quantity"])
    assert report["holdout"]["n"] == 12
    assert report["train"]["n"] == 36
    assert report["holdout"]["accuracy"] == 1.0
    assert report["holdout"]["nll"] < np.log(2)
    assert report["holdout_true_order"]["n"] == 11
    assert report["holdout_true_order"]["accuracy"] == pytest.approx(8 / 11)
    manifest = read_manifest(tmp_path / "manifest.json", verify=True)
    assert manifest.kind == "reward_model"
    assert manifest.base is not None
    assert manifest.facts["report"]["holdout"] == report["holdout"]
    assert sorted(p.name for p in tmp_path.iterdir()) == ["manifest.json", "weights"]


@pytest.mark.parametrize("tuning", [Lora(rank=4), Full()])
def test_the_same_seed_gives_the_same_weights(
    toy_model: Path, tokens: pd.DataFrame, tmp_path: Path, tuning: object
) -> None:
    hashes = []
    for name, seed in (("a", 0), ("b", 0), ("c", 1)):
        torch.manual_seed(len(hashes))
        run(toy_model, tokens, tmp_path / name, seed=seed, tuning=tuning, epochs=1)
        hashes.append(read_manifest(tmp_path / name / "manifest.json").weights_hash)
    assert hashes[0] == hashes[1] != hashes[2]


def test_micro_batches_only_save_memory(toy_model: Path, tokens: pd.DataFrame, tmp_path: Path) -> None:
    logs = [run(toy_model, tokens, tmp_path / str(size), epochs=1, micro_batch_size=size)[0] for size in (12, 3)]
    values = [log.loc[log["quantity"].isin(["loss", "grad_norm"]), "value"].to_numpy() for log in logs]
    assert values[0] == pytest.approx(values[1], rel=1e-3)


def test_the_interval_is_exact_and_ties_are_wrong() -> None:
    report = pair_accuracy(np.array([1.0] * 8 + [-1.0, 0.0]))
    assert (report["accuracy"], report["n"], report["ties"]) == (0.8, 10, 1)
    assert report["ci"] == pytest.approx([0.4439, 0.9748], abs=1e-4)  # Clopper-Pearson, 8 of 10
    assert pair_accuracy(np.zeros(4))["nll"] == pytest.approx(np.log(2))


@pytest.mark.parametrize("split", ["train", "holdout"])
def test_an_empty_split_is_refused(toy_model: Path, tokens: pd.DataFrame, tmp_path: Path, split: str) -> None:
    with pytest.raises(UserError, match=f"no pair in split {split}"):
        run(toy_model, tokens[tokens["split"] != split], tmp_path)


def test_an_untrained_reward_model_is_refused(toy_model: Path, tokens: pd.DataFrame, tmp_path: Path) -> None:
    with pytest.raises(UserError, match="epochs is 0"):
        run(toy_model, tokens, tmp_path, epochs=0)
