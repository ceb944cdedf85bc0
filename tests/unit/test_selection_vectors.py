"""Vectors V1-V9 of the specification of online DPO: numbers worked out beforehand (numpy, float64).

Numbers are those of its section 14; where the script that made them lies beside the checkout, it is an oracle for many
more inputs.
"""

import importlib.util
import math
from pathlib import Path
from types import ModuleType, SimpleNamespace

import numpy as np
import pandas as pd
import pytest
from marginbench.selection.base import Stage, StrategyParams, only_n
from marginbench.selection.one_shot import select
from marginbench.selection.registry import Strategy, load_strategy
from marginbench.selection.scores import (
    entropy_per_token,
    implicit_reward,
    margin_by_prompt,
    predictive_entropy,
    preference_probability,
    sequence_logp,
    uncertainty,
)

SCRIPT = Path(__file__).parents[2].parent / "shared" / "specs" / "vectors_apl.py"

V1_LOGP = np.array(
    [
        [[-0.1, -0.2, 0.0], [-0.1, -0.2, -0.3], [-0.5, 0.0, 0.0], [-0.1, -0.2, 0.0]],
        [[-1.0, -2.0, -0.5], [-0.7, -1.3, -2.0], [-1.5, -1.5, -1.5], [-0.9, -0.1, -3.0]],
        [[-2.0, -9.0, -9.0], [-1.0, -9.0, -9.0], [-3.0, -9.0, -9.0], [-2.0, -9.0, -9.0]],
    ]
).reshape(12, 3)
V1_MASK = (np.arange(3) < np.array([2, 3, 1, 2, 3, 3, 3, 3, 1, 1, 1, 1])[:, None]).astype(int)
V1_IDS = ["A"] * 4 + ["B"] * 4 + ["C"] * 4

V3_POLICY = np.array([-12.0, -15.0, -20.0, -20.5, -8.0, -9.0, -30.0, -26.0])
V3_REFERENCE = np.array([-14.0, -14.0, -20.0, -20.5, -9.0, -8.5, -24.0, -27.0])
V3_IDS, V3_SAMPLES = ["0", "0", "1", "1", "2", "2", "3", "3"], [0, 1] * 4

V5 = pd.DataFrame(
    {
        "prompt_id": list("01234567"),
        "entropy": [10.0, 42.0, 35.0, 8.0, 27.0, 31.0, 27.0, 55.0],
        "margin": [0.90, 0.05, 0.40, 0.80, 0.70, 0.10, 0.95, 0.20],
    }
)
RNG = np.random.default_rng(0)


def _order(name: str, n: int, **columns: np.ndarray | pd.Series) -> list[str]:
    return select(load_strategy(name), pd.DataFrame({key: list(v) for key, v in columns.items()}), n, RNG)


def test_v1_entropy() -> None:
    sums = [-0.3, -0.6, -0.5, -0.3, -3.5, -4, -4.5, -4, -2, -1, -3, -2]
    np.testing.assert_allclose(sequence_logp(V1_LOGP, V1_MASK), sums, rtol=1e-12)
    found = predictive_entropy(V1_IDS, V1_LOGP, V1_MASK, 4)
    assert found.to_dict() == pytest.approx({"A": 0.425, "B": 4.0, "C": 2.0}, rel=1e-12)
    assert _order("entropy", 3, prompt_id=found.index, entropy=found) == ["B", "C", "A"]
    unmasked = predictive_entropy(V1_IDS, V1_LOGP, np.ones_like(V1_MASK), 4)
    assert unmasked.to_dict() == pytest.approx({"A": 0.425, "B": 4.0, "C": 20.0})
    assert _order("entropy", 3, prompt_id=unmasked.index, entropy=unmasked) == ["C", "B", "A"]
    per_token = entropy_per_token(V1_IDS, V1_LOGP, V1_MASK, 4)
    assert per_token.to_dict() == pytest.approx({"A": 0.25, "B": 4 / 3, "C": 2.0})
    assert _order("entropy", 3, prompt_id=per_token.index, entropy=per_token) == ["C", "B", "A"]


def test_v2_bias_of_the_entropy() -> None:
    """Four answers of one token; every answer is its own prompt, so that its value can be weighted exactly."""
    p = np.array([0.5, 0.25, 0.125, 0.125])
    value = predictive_entropy(list("abcd"), np.log(p)[:, None], np.ones((4, 1)), 1).to_numpy()

    def expected(weight: np.ndarray) -> float:
        return float(value @ weight / weight.sum())

    exact = predictive_entropy(["x"] * 8, np.log(p)[[0, 0, 0, 0, 1, 1, 2, 3], None], np.ones((8, 1)), 8)["x"]
    assert exact == pytest.approx(1.213008, abs=5e-7)
    for temperature, biased in ((1.0, 1.213008), (0.9, 1.176917), (0.7, 1.081702)):
        assert expected(p ** (1 / temperature)) == pytest.approx(biased, abs=5e-7)
    assert expected(p * [1, 1, 0, 0]) == pytest.approx(0.924196, abs=5e-7)
    deviation = math.sqrt(p @ value**2 - exact**2)
    assert deviation / math.sqrt(2) == pytest.approx(0.406394, abs=5e-7)
    assert deviation / math.sqrt(32) == pytest.approx(0.101598, abs=5e-7)


@pytest.mark.parametrize("name", ["entropy", "apl", "apl_original"])
def test_v2_entropies_are_asked_for_without_bias(name: str) -> None:
    params = {"acquisition": "entropy"} if name == "apl_original" else {}
    stage = load_strategy(name, params).stages[0]
    assert (stage.score, stage.fresh) == ("entropy", True)
    assert (stage.temperature, stage.top_k, stage.top_p) == (1.0, 0, 1.0)
    assert stage.samples == (32 if name == "apl_original" else 2)


def test_v3_margin() -> None:
    reward = implicit_reward(V3_POLICY, V3_REFERENCE, 0.1)
    np.testing.assert_allclose(reward, [0.2, -0.1, 0, 0, 0.1, -0.05, -0.6, 0.1], atol=1e-12)
    margin = margin_by_prompt(V3_IDS, V3_SAMPLES, reward)
    np.testing.assert_allclose(margin, [0.3, 0, 0.15, -0.7], atol=1e-12)
    p, u = preference_probability(margin), uncertainty(margin)
    np.testing.assert_allclose(p, [0.574443, 0.5, 0.537430, 0.331812], atol=5e-7)
    np.testing.assert_allclose(u, [0.851115, 1, 0.925140, 0.663624], atol=5e-7)
    binary = -(p * np.log(p) + (1 - p) * np.log(1 - p))
    np.testing.assert_allclose(binary, [0.682022, 0.693147, 0.690343, 0.635455], atol=5e-7)
    assert _order("margin", 4, prompt_id=margin.index, margin=margin) == ["3", "0", "2", "1"]
    assert [margin.index[i] for i in np.argsort(u, kind="stable")] == ["3", "0", "2", "1"]
    assert _order("uncertainty", 4, prompt_id=margin.index, margin=margin) == ["1", "2", "0", "3"]

    double = margin_by_prompt(V3_IDS, V3_SAMPLES, implicit_reward(V3_POLICY, V3_REFERENCE, 0.2))
    np.testing.assert_allclose(double, [0.6, 0, 0.3, -1.4], atol=1e-12)
    np.testing.assert_allclose(uncertainty(double), [0.708687, 1, 0.851115, 0.395632], atol=5e-7)
    assert _order("margin", 4, prompt_id=double.index, margin=double) == ["3", "0", "2", "1"]


def test_v4_losses_of_the_methods_in_the_loop() -> None:
    from marginbench.methods.evaluate import evaluate
    from marginbench.methods.registry import load_method

    sides = {"chosen": slice(0, None, 2), "rejected": slice(1, None, 2)}
    batch = {f"{side}_logp": V3_POLICY[part].tolist() for side, part in sides.items()}
    batch |= {f"ref_{side}_logp": V3_REFERENCE[part].tolist() for side, part in sides.items()}
    expected = {"dpo": [0.554355, 0.693147, 0.620957, 1.103186], "ipo_sum": [4, 25, 12.25, 144]}
    for name, losses in expected.items():
        found = evaluate(load_method(name, {"beta": 0.1}), [batch])[0]["per_pair"]
        np.testing.assert_allclose(found, losses, atol=5e-7)


@pytest.mark.parametrize(
    ("name", "n", "expected"),
    [("apl", 2, "27"), ("margin", 2, "60"), ("entropy", 2, "71"), ("entropy", 5, "71254"), ("apl_original", 2, "60")],
)
def test_v5_two_stages(name: str, n: int, expected: str) -> None:
    assert select(load_strategy(name), V5, n, RNG) == list(expected)


def test_v5_first_stage() -> None:
    apl = load_strategy("apl")
    assert apl.stages[0].keep(8, 2) == 4
    assert apl.rank(V5, 4, RNG, 0) == list("7125")


def test_v6_sizes() -> None:
    n, rounds = 16, 157
    random, apl = load_strategy("random"), load_strategy("apl")
    assert (random.pool_size(n), random.completions(n)) == (16, 32)
    assert (apl.pool_size(n), apl.stages[0].keep(512, n), apl.stages[1].keep(256, n)) == (512, 256, 16)
    assert [stage.samples for stage in apl.stages] == [2, 2]
    assert apl.completions(n) == 1024 + 512 == 48 * random.completions(n)
    assert load_strategy("random_same_pool").completions(n) == apl.completions(n)
    assert rounds * n == 2512
    assert (rounds * random.completions(n), rounds * apl.completions(n)) == (5024, 241152)
    ratio = (rounds * apl.completions(n) + 5500) / (rounds * random.completions(n) + 5500)
    assert ratio == pytest.approx(23.44, abs=5e-3)


def test_sizes_of_the_other_strategies() -> None:
    assert load_strategy("entropy").completions(16) == 512 * 2 + 16 * 2
    assert load_strategy("margin").completions(16) == 512 * 2
    assert load_strategy("apl_original").completions(16) == 256 * 2
    assert load_strategy("apl_original", {"acquisition": "entropy"}).completions(16) == 256 * 32 + 16 * 2
    assert load_strategy("apl", {"pool_factor": 1}).completions(16) == 16 * 2 + 16 * 2
    assert load_strategy("apl").completions(4, pool=10) == 10 * 2 + 5 * 2


def test_answers_that_are_there_are_not_sampled_again() -> None:
    stages = (Stage("entropy", lambda size, n: size // 2), Stage("margin", only_n))
    module = SimpleNamespace(stages=lambda params: stages, pool=lambda params, n: 10 * n)
    assert Strategy("stale", Path("stale.py"), module, StrategyParams()).completions(3) == 30 * 2


def test_v8_half_credit_for_ties() -> None:
    """Scores of the start .2 1 -.5 .7 0 and of the policy .9 1 -.6 1.7 .1, as preferences between the two."""
    from marginbench.benchmarks.alpaca_eval import score

    rows = [
        {
            "instruction": str(i),
            "output_1": "a",
            "output_2": "b",
            "generator_1": "s",
            "generator_2": "p",
            "preference": p,
        }
        for i, p in enumerate([2.0, 1.5, 1.0, 2.0, 2.0])
    ]
    found = score(rows)
    assert (found["n_wins"], found["n_draws"], found["win_rate"]) == (3, 1, pytest.approx(70.0))


def _script() -> ModuleType:
    if not SCRIPT.is_file():
        pytest.skip(f"{SCRIPT.name} is not beside the checkout")
    spec = importlib.util.spec_from_file_location(SCRIPT.stem, SCRIPT)
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


@pytest.mark.parametrize("seed", range(8))
def test_against_the_script(seed: int) -> None:
    oracle, draw = _script(), np.random.default_rng(seed)
    logp, lengths = -draw.uniform(0, 5, (9, 4, 6)), draw.integers(1, 7, (9, 4, 1))
    mask = (np.arange(6) < lengths).astype(int)
    ids = [f"p{i // 4}" for i in range(36)]
    found = predictive_entropy(ids, logp.reshape(36, 6), mask.reshape(36, 6), 4)
    np.testing.assert_allclose(found, oracle.predictive_entropy(logp, mask), rtol=1e-12)

    policy, reference = draw.normal(-30, 9, (2, 9, 2))
    scores = oracle.pair_scores(policy, reference, 0.3)
    reward = implicit_reward(policy.ravel(), reference.ravel(), 0.3)
    margin = margin_by_prompt([f"p{i // 2}" for i in range(18)], [0, 1] * 9, reward)
    np.testing.assert_allclose(margin, scores["delta"], rtol=1e-9, atol=1e-12)
    np.testing.assert_allclose(uncertainty(margin), scores["u"], rtol=1e-9, atol=1e-12)

    rounded = np.round(found.to_numpy())  # ties, so that their order is compared too
    table = pd.DataFrame({"prompt_id": range(9), "entropy": rounded, "margin": margin.to_numpy()})
    for n in (1, 3, 6):
        first, second = oracle.two_stage(rounded, np.abs(margin.to_numpy()), max(n, 4), n)
        assert load_strategy("apl").rank(table, max(n, 4), RNG, 0) == first.tolist()
        assert select(load_strategy("apl"), table, n, RNG) == second.tolist()
