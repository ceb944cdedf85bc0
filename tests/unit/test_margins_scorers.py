"""Scorers: margins belong to their pairs, and a reward model with a weight missing never gives one."""

from pathlib import Path

import pandas as pd
import pytest
from marginbench.errors import UserError
from marginbench.margins import dataset_ratings, reward_model
from marginbench.models.loading import load_model, load_tokenizer
from marginbench.models.manifest import read_manifest, write_manifest
from marginbench.records import MARGINS, check_table
from marginbench.study import Full, Lora, RewardModel
from marginbench.training.reward_model import train_reward_model
from safetensors.torch import load_file, save_file

WORDS = ["good", "bad", "not bad at all", "a film", "the movie that I saw"]


@pytest.fixture(scope="module")
def tokens(toy_model: Path) -> pd.DataFrame:
    tokenizer = load_tokenizer(toy_model)
    ids = [tokenizer(f" {WORDS[n % 5]} {n}")["input_ids"] for n in range(40)]
    return pd.DataFrame(
        {
            "pair_id": [f"p{n}" for n in range(20)],
            "split": ["holdout" if n % 4 == 0 else "train" for n in range(20)],
            "prompt_ids": [tokenizer("it was")["input_ids"]] * 20,
            "chosen_ids": ids[:20],
            "rejected_ids": ids[20:],
        }
    )


@pytest.fixture(scope="module", params=["lora", "full"])
def trained(request: pytest.FixtureRequest, toy_model: Path, tokens: pd.DataFrame, tmp_path_factory) -> tuple:
    out = tmp_path_factory.mktemp(f"rm_{request.param}")
    tuning = Lora(rank=2) if request.param == "lora" else Full()
    opt = RewardModel(epochs=1, batch_size=5, micro_batch_size=5, learning_rate=1e-2, max_length=14, tuning=tuning)
    _, report = train_reward_model(
        start_manifest=toy_model, tokens=tokens, opt=opt, dataset_id="d", model_id="toy", seed=0, out_dir=out
    )
    return out / "manifest.json", report


def test_margins_are_those_that_training_measured(trained: tuple, tokens: pd.DataFrame) -> None:
    manifest, report = trained
    margins = reward_model.score_pairs(manifest, tokens, batch_size=7)
    check_table(margins, MARGINS, "margins")
    assert margins["pair_id"].tolist() == tokens["pair_id"].tolist()
    assert (margins["margin"] == margins["score_chosen"] - margins["score_rejected"]).all()
    assert margins["margin"].nunique() > 10
    holdout = margins[tokens["split"] == "holdout"]
    assert (holdout["margin"] > 0).mean() == report["holdout"]["accuracy"]


def test_a_margin_follows_its_pair(trained: tuple, tokens: pd.DataFrame) -> None:
    manifest, _ = trained
    straight = reward_model.score_pairs(manifest, tokens, batch_size=3).set_index("pair_id")["margin"]
    shuffled = reward_model.score_pairs(manifest, tokens.iloc[::-1], batch_size=20).set_index("pair_id")["margin"]
    assert shuffled[straight.index].to_numpy() == pytest.approx(straight.to_numpy(), abs=1e-5)
    swapped = tokens.rename(columns={"chosen_ids": "rejected_ids", "rejected_ids": "chosen_ids"})
    assert reward_model.score_pairs(manifest, swapped)["margin"].to_numpy() == pytest.approx(
        -straight.to_numpy(), abs=1e-5
    )


@pytest.mark.parametrize("part", ["score.weight", "q_proj"])
@pytest.mark.parametrize("how", ["missing", "renamed", "left over"])
def test_a_weight_that_does_not_load_is_an_error(
    trained: tuple, tokens: pd.DataFrame, toy_model: Path, tmp_path: Path, part: str, how: str
) -> None:
    source = read_manifest(trained[0])
    (tmp_path / "weights").mkdir()
    for file in source.weights_dir.iterdir():
        (tmp_path / "weights" / file.name).write_bytes(file.read_bytes())
    file = next((tmp_path / "weights").glob("*.safetensors"))
    weights = load_file(file)
    name = next(name for name in sorted(weights) if part in name)
    value = weights[name] if how == "left over" else weights.pop(name)
    if how != "missing":
        weights[name.replace(part, "other")] = value.clone()
    save_file(weights, file, metadata={"format": "pt"})
    manifest = write_manifest(
        tmp_path / "manifest.json", tmp_path / "weights", "reward_model", base=toy_model, facts=source.facts
    )
    with pytest.raises(UserError, match=r"is missing|do not fit|lacks the weight|has no place"):
        reward_model.score_pairs(manifest.path, tokens)


def test_a_policy_is_no_reward_model_and_the_reverse(trained: tuple, tokens: pd.DataFrame, toy_model: Path) -> None:
    with pytest.raises(UserError, match="not a reward model"):
        reward_model.score_pairs(toy_model, tokens)
    with pytest.raises(UserError, match="cannot generate"):
        load_model(trained[0])


def test_ratings_of_a_dataset() -> None:
    pairs = pd.DataFrame({"pair_id": ["a", "b"], "score_chosen": [8.0, 3.0], "score_rejected": [5.5, 4.0]})
    margins = dataset_ratings.score_pairs(pairs)
    check_table(margins, MARGINS, "margins")
    assert margins["margin"].tolist() == [2.5, -1.0]
    backwards = dataset_ratings.score_pairs(pairs.iloc[::-1])
    assert set(margins["scorer_hash"]) == set(backwards["scorer_hash"])
    other = dataset_ratings.score_pairs(pairs.assign(score_chosen=[8.0, 3.5]))
    assert set(margins["scorer_hash"]) != set(other["scorer_hash"])


def test_a_pair_without_rating_is_an_error() -> None:
    pairs = pd.DataFrame({"pair_id": ["a", "b"], "score_chosen": [8.0, None], "score_rejected": [5.5, 4.0]})
    with pytest.raises(UserError, match=r"1 of 2 pairs have no rating, the first is row 1 \(pair b\)"):
        dataset_ratings.score_pairs(pairs)
