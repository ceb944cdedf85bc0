"""Scorers that are policies: a held-out loss depends on no label of its own half; implicit rewards are a policy's."""

from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest
from marginbench.errors import UserError
from marginbench.margins import held_out_loss, implicit_reward
from marginbench.margins.held_out_loss import dpo_loss, halves
from marginbench.methods.registry import load_method
from marginbench.models.loading import load_model
from marginbench.models.manifest import read_manifest
from marginbench.records import MARGINS, check_table, read_table, write_table
from marginbench.study import Full, HeldOutLoss, Lora, Optimisation
from marginbench.training.preference import train_policy
from marginbench.training.reference import compute_reference

pytestmark = pytest.mark.slow

OPT = {"epochs": 2, "batch_size": 4, "micro_batch_size": 4, "learning_rate": 1e-2, "max_length": 32}
BETA = 0.5


def reference_of(start: Path, tokens: pd.DataFrame) -> pd.DataFrame:
    manifest = read_manifest(start)
    return compute_reference(
        load_model(manifest),
        tokens,
        max_length=32,
        precision="fp32",
        batch_size=8,
        model_hash=manifest.weights_hash,
        template_hash="plain",
        pad_id=0,
    )


@pytest.fixture(scope="module")
def tokens() -> pd.DataFrame:
    """Ten prompts of three pairs each; the pairs of a prompt share answers."""
    draw = np.random.default_rng(3)

    def ids(low: int, high: int) -> list[int]:
        return draw.integers(5, 200, draw.integers(low, high)).tolist()

    rows = []
    for prompt in range(10):
        head, answers = ids(3, 8), [ids(3, 15) for _ in range(3)]
        for number, (a, b) in enumerate([(0, 1), (0, 2), (1, 2)]):
            rows.append((f"p{prompt}-{number}", "train", head, answers[a], answers[b]))
    return pd.DataFrame(rows, columns=["pair_id", "split", "prompt_ids", "chosen_ids", "rejected_ids"])


def score(start: Path, tokens: pd.DataFrame, folder: Path, runs: int = 2, **changes: Any) -> pd.DataFrame:
    arguments: dict[str, Any] = {
        "settings": HeldOutLoss(runs=runs, beta=BETA),
        "opt": Optimisation(**OPT, tuning=Lora(rank=4, alpha=8)),
        "dataset_id": "pairs",
        "model_id": "toy",
        "seed": 0,
        "template_hash": "plain",
        "work_dir": folder / "margins.part",
    }
    margins = held_out_loss.score_pairs(
        start_manifest=start, tokens=tokens, reference=reference_of(start, tokens), **{**arguments, **changes}
    )
    assert not (folder / "margins.part").exists()
    return margins.set_index("pair_id")


@pytest.fixture(scope="module")
def scored(toy_model: Path, tokens: pd.DataFrame, tmp_path_factory: pytest.TempPathFactory) -> pd.DataFrame:
    return score(toy_model, tokens, tmp_path_factory.mktemp("held_out"))


def test_the_margin_is_minus_the_loss(scored: pd.DataFrame, tokens: pd.DataFrame, tmp_path: Path) -> None:
    assert scored.index.tolist() == tokens["pair_id"].tolist()
    assert (scored["margin"] < 0).all()
    assert (scored["score_rejected"] == 0).all()
    assert scored["margin"].nunique() == len(tokens)
    assert np.abs(scored["margin"] + np.log(2)).max() > 0.05  # the runs have learned something
    assert dpo_loss([0.0, 2.0, -2000.0], 0.5).tolist() == pytest.approx([np.log(2), 0.31326168751822286, 1000.0])
    write_table(scored.reset_index(), tmp_path / "m.parquet", MARGINS)  # the digests are those of the rows
    broken = read_table(tmp_path / "m.parquet", MARGINS)
    broken["score_chosen"] = broken["score_chosen"].to_numpy()[::-1]
    with pytest.raises(UserError, match="digest"):
        check_table(broken, MARGINS, "margins")


def test_a_label_is_not_seen_by_the_runs_that_score_it(
    scored: pd.DataFrame, toy_model: Path, tokens: pd.DataFrame, tmp_path: Path
) -> None:
    """With its own label turned, a pair's log-ratio margin is the same number with the other sign."""
    row = 7
    turned = tokens.copy()
    for side, other in (("chosen_ids", "rejected_ids"), ("rejected_ids", "chosen_ids")):
        turned.at[row, side] = tokens.at[row, other]
    again = score(toy_model, turned, tmp_path)
    pair = tokens["pair_id"][row]
    margin = -np.log(np.expm1(-scored["margin"][pair])) / BETA  # g, from the loss of one run
    assert -again["margin"][pair] == pytest.approx(dpo_loss(-margin, BETA), abs=1e-4)
    assert abs(margin) > 0.05
    # Pairs of its half, which no run trained on that label scores, keep their margins; those that it trained do not.
    mine = halves(tokens, 0, "pairs", 0) == halves(tokens, 0, "pairs", 0)[row]
    mine[row] = False
    change = np.abs(again["margin"] - scored["margin"]).to_numpy()
    assert change[mine].max() < 1e-4
    other = halves(tokens, 0, "pairs", 0) != halves(tokens, 0, "pairs", 0)[row]
    assert change[other].max() > 1e-3


def test_a_text_is_not_seen_by_the_runs_that_score_its_half(
    scored: pd.DataFrame, toy_model: Path, tokens: pd.DataFrame, tmp_path: Path
) -> None:
    changed = tokens.copy()
    changed.at[7, "chosen_ids"] = [11, 12, 13, 14]
    again = score(toy_model, changed, tmp_path)
    half = halves(tokens, 0, "pairs", 0)
    mine = (half == half[7]) & (tokens["pair_id"] != tokens["pair_id"][7]).to_numpy()
    change = np.abs(again["margin"] - scored["margin"]).to_numpy()
    assert change[mine].max() < 1e-4
    assert change[half != half[7]].max() > 1e-3


def test_halves_split_prompts_and_depend_on_nothing_else(tokens: pd.DataFrame) -> None:
    prompts = tokens["pair_id"].str.split("-").str[0]
    half = pd.Series(halves(tokens, 0, "pairs", 0), index=tokens["pair_id"])
    assert half.groupby(prompts.to_numpy()).nunique().eq(1).all()
    assert half.sum() == 15
    shuffled = tokens.sample(frac=1, random_state=0)
    again = pd.Series(halves(shuffled, 0, "pairs", 0), index=shuffled["pair_id"])
    assert again[half.index].tolist() == half.tolist()
    others = [halves(tokens, *axes).tolist() for axes in ((1, "pairs", 0), (0, "other", 0), (0, "pairs", 1))]
    assert all(other != half.tolist() for other in others)


def test_more_runs_are_averaged(scored: pd.DataFrame, toy_model: Path, tokens: pd.DataFrame, tmp_path: Path) -> None:
    """Four runs: the first two are those of two runs, so the mean of the others follows, and is a loss too."""
    four = score(toy_model, tokens, tmp_path, runs=4)
    others = 2 * four["margin"] - scored["margin"]
    assert (others < 0).all()
    assert np.abs(others - scored["margin"]).max() > 1e-3
    assert set(four["scorer_hash"]) != set(scored["scorer_hash"])


def test_weights_may_be_trained_whole(toy_model: Path, tokens: pd.DataFrame, tmp_path: Path) -> None:
    opt = Optimisation(**{**OPT, "learning_rate": 1e-3, "epochs": 1}, tuning=Full())
    margins = score(toy_model, tokens, tmp_path, opt=opt)
    assert np.isfinite(margins["margin"]).all()
    assert np.abs(margins["margin"] + np.log(2)).max() > 0.01


def test_too_little_data_is_refused(toy_model: Path, tokens: pd.DataFrame, tmp_path: Path) -> None:
    with pytest.raises(UserError, match="there is 1 prompt"):
        score(toy_model, tokens[:3], tmp_path)
    with pytest.raises(UserError, match="batch_size 4 is more than the 3 examples"):
        score(toy_model, tokens[:6], tmp_path)


@pytest.fixture(scope="module")
def policy(toy_model: Path, tokens: pd.DataFrame, tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("policy")
    train_policy(
        method=load_method("dpo", {"beta": BETA}),
        start_manifest=toy_model,
        tokens=tokens[:28],
        reference=reference_of(toy_model, tokens),
        opt=Optimisation(**{**OPT, "batch_size": 28, "micro_batch_size": 28, "epochs": 4}, schedule="constant"),
        dataset_id="pairs",
        model_id="toy",
        seed=0,
        out_dir=folder,
        template_hash="plain",
    )
    return folder / "manifest.json"


def implicit(manifest: Path, tokens: pd.DataFrame, reference: pd.DataFrame, **changes: Any) -> pd.DataFrame:
    settings = {"beta": BETA, "max_length": 32, "precision": "fp32", "template_hash": "plain", **changes}
    return implicit_reward.score_pairs(manifest, tokens, reference, **settings)


def test_implicit_rewards_are_the_policys(policy: Path, toy_model: Path, tokens: pd.DataFrame, tmp_path: Path) -> None:
    reference = reference_of(toy_model, tokens)
    margins = implicit(policy, tokens, reference)
    write_table(margins, tmp_path / "m.parquet", MARGINS)
    assert margins["pair_id"].tolist() == tokens["pair_id"].tolist()
    assert set(margins["scorer_hash"]) == {read_manifest(policy).weights_hash}
    assert (margins["margin"][:28] > 0).mean() > 0.8  # trained on them, four steps
    # An independent pass: the whole log-softmax of each sequence, one at a time.
    model, start = load_model(policy), load_model(toy_model)
    for row in (0, 17, 29):
        prompt = tokens["prompt_ids"][row]
        for side, name in (("chosen_ids", "score_chosen"), ("rejected_ids", "score_rejected")):
            ratio = log_prob(model, prompt, tokens[side][row]) - log_prob(start, prompt, tokens[side][row])
            assert margins[name][row] == pytest.approx(BETA * ratio, abs=1e-4)


def log_prob(model: Any, prompt: list[int], answer: list[int]) -> float:
    import torch

    ids = torch.tensor([[*prompt, *answer]])
    with torch.no_grad():
        logp = model(input_ids=ids).logits.log_softmax(-1)[0]
    return sum(logp[len(prompt) + i - 1, token].item() for i, token in enumerate(answer))


def test_implicit_rewards_scale_with_beta_and_need_their_own_start(
    policy: Path, toy_model: Path, tokens: pd.DataFrame
) -> None:
    reference = reference_of(toy_model, tokens)
    one, two = implicit(policy, tokens, reference), implicit(policy, tokens, reference, beta=2 * BETA)
    assert two["margin"].to_numpy() == pytest.approx(2 * one["margin"].to_numpy())
    with pytest.raises(UserError, match="made with another template"):
        implicit(policy, tokens, reference, template_hash="other")
    with pytest.raises(UserError, match="1 of 30 pairs are missing"):
        implicit(policy, tokens, reference[1:])
    with pytest.raises(ValueError, match="names no start"):
        implicit(toy_model, tokens, reference)
