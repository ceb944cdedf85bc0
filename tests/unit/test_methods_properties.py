"""Identities of the methods, on inputs that hypothesis chooses."""

import math
from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from marginbench.methods.beta_dpo import draw
from marginbench.methods.evaluate import evaluate
from marginbench.methods.registry import load_method

HYPER = st.fixed_dictionaries(
    {
        "c_max": st.floats(1.01, 20),
        "c_min": st.floats(0, 0.99),
        "lam": st.floats(0.05, 10),
        "tau": st.floats(0.05, 50),
    }
)
LOGP = st.floats(-500, -0.01)
MARGIN = st.floats(-20, 20) | st.sampled_from([-1.0, 0.0, 0.5, 1.0])


@st.composite
def batches(draw_: Any) -> dict[str, list]:
    size = draw_(st.integers(1, 12))
    names = ("chosen_logp", "rejected_logp", "ref_chosen_logp", "ref_rejected_logp")
    batch = {name: draw_(st.lists(LOGP, min_size=size, max_size=size)) for name in names}
    lengths = ("chosen_len", "rejected_len")
    batch |= {name: draw_(st.lists(st.integers(1, 400), min_size=size, max_size=size)) for name in lengths}
    return {**batch, "margin": draw_(st.lists(MARGIN, min_size=size, max_size=size))}


def _weights(h: list[float], hyper: dict[str, float], part: str = "full") -> np.ndarray:
    return load_method("madpo", {**hyper, "part": part}).plan(np.array(h)).columns["weight"]


def _per_pair(name: str, batch: dict[str, list], **params: Any) -> list[float]:
    return evaluate(load_method(name, params), [batch])[0]["per_pair"]


@given(HYPER)
def test_madpo_weight_is_1_at_0_and_at_tau_and_below_minus_tau(hyper: dict[str, float]) -> None:
    tau = hyper["tau"]
    np.testing.assert_allclose(_weights([0.0, tau, -tau, -tau - 1], hyper), 1, rtol=1e-9)


@given(HYPER, st.floats(-1, 1, exclude_min=True, exclude_max=True))
def test_madpo_weights_of_both_labels_sum_to_1(hyper: dict[str, float], share: float) -> None:
    h = share * hyper["tau"] * 0.999999
    plus, minus = _weights([h, -h], hyper)
    assert plus / (1 + math.exp(-h)) + minus / (1 + math.exp(h)) == pytest.approx(1, abs=1e-9)


@given(HYPER, st.floats(-1e4, 1e4))
def test_madpo_weight_is_finite_everywhere(hyper: dict[str, float], h: float) -> None:
    assert np.isfinite(_weights([h], hyper)).all()


@given(HYPER, st.floats(-60, 60))
def test_madpo_parts_share_the_work(hyper: dict[str, float], h: float) -> None:
    """Below tau amplifying is all there is, above it regularising; the other part leaves the weight at 1."""
    full, up, down = (_weights([h], hyper, part)[0] for part in ("full", "amplify", "regularise"))
    inside, other = (up, down) if abs(h) < hyper["tau"] else (down, up)
    assert inside == pytest.approx(full, rel=1e-9)
    assert other == pytest.approx(1, rel=1e-9)


@settings(max_examples=40)
@given(batches(), st.floats(0.001, 2))
def test_madpo_of_unit_weight_is_dpo_bit_for_bit(batch: dict[str, list], beta: float) -> None:
    for dtype in (torch.float64, torch.float32):
        plain, unit = (
            evaluate(load_method(name, {"beta": beta}), [batch], dtype)[0] for name in ("dpo", "madpo_unit_weight")
        )
        assert unit["per_pair"] == plain["per_pair"]
        assert unit["loss"] == plain["loss"]
    assert unit["weight"] == [1.0] * len(batch["margin"])


@settings(max_examples=40)
@given(batches(), st.floats(0.001, 2), st.sampled_from(["beta0", "raw"]), st.sampled_from(["full", "kept"]))
def test_beta_dpo_without_its_two_parts_is_dpo(batch: dict[str, list], beta: float, scale: str, source: str) -> None:
    given_ = {"beta": beta, "alpha": 0, "keep_ratio": 1, "margin_scale": scale, "beta_source": source}
    found = evaluate(load_method("beta_dpo", given_), [batch, batch])
    plain = evaluate(load_method("dpo", {"beta": beta}), [batch, batch])
    for one, other in zip(found, plain, strict=True):
        assert one["loss"] == pytest.approx(other["loss"], rel=1e-12)
        np.testing.assert_allclose(one["per_pair"], other["per_pair"], rtol=1e-12)
        assert "kept" not in one


@settings(max_examples=40)
@given(batches(), st.floats(0.001, 1), st.sampled_from([0.0, 0.1]))
def test_mixdpo_at_its_ends_is_sorted_dpo_and_sorted_sft(batch: dict[str, list], beta: float, eps: float) -> None:
    shared = {"beta": beta, "label_smoothing": eps}
    easy, hard = (load_method("mixdpo", {**shared, "tau": tau}) for tau in (-math.inf, math.inf))
    assert evaluate(easy, [batch])[0]["per_pair"] == _per_pair("dpo_sorted", batch, **shared)
    assert evaluate(hard, [batch])[0]["per_pair"] == _per_pair("sft", batch, order="margin_desc")
    margins = np.array(batch["margin"])
    for method in (easy, hard):
        np.testing.assert_array_equal(method.plan(margins).order, load_method("dpo_sorted").plan(margins).order)
        assert (np.diff(margins[method.plan(margins).order]) <= 0).all()


@settings(max_examples=40)
@given(batches(), st.floats(-5, 5), st.booleans())
def test_mixdpo_is_its_two_controls_side_by_side(batch: dict[str, list], tau: float, inclusive: bool) -> None:
    """Each pair is in exactly one of `dpo_easy_only` and `sft_hard_only`, with the loss that MixDPO gives it."""
    mixed = evaluate(load_method("mixdpo", {"tau": tau, "inclusive": inclusive, "beta": 0.1}), [batch])[0]
    rule = {"keep_tau": tau, "keep_inclusive": inclusive}
    easy = evaluate(load_method("dpo_easy_only", rule), [batch])[0]
    hard = evaluate(load_method("sft_hard_only", rule), [batch])[0]
    assert sorted(easy["kept"] + hard["kept"]) == list(range(len(batch["margin"])))
    for part in (easy, hard):
        for i in part["kept"]:
            assert part["per_pair"][i] == mixed["per_pair"][i]
    assert mixed["loss_pref"] + mixed["loss_sft"] == pytest.approx(mixed["loss"], rel=1e-12)


@settings(max_examples=40)
@given(batches())
def test_methods_that_contain_dpo_give_it_back(batch: dict[str, list]) -> None:
    plain = _per_pair("dpo", batch, beta=0.1)
    for name, params in (
        ("robust_dpo", {"label_smoothing": 0}),
        ("rdpo", {"alpha": 0}),
        ("dpop", {"beta": 0.1, "lam": 0}),
        ("dpo_nll", {"sft_weight": 0}),
        ("selective_dpo", {"beta": 0.1, "keep_fraction": 1}),
    ):
        np.testing.assert_allclose(_per_pair(name, batch, **params), plain, rtol=1e-12, err_msg=name)
    np.testing.assert_allclose(
        _per_pair("cal_dpo", batch, calibration_weight=0), _per_pair("dpo", batch, beta=1.0), rtol=1e-12
    )


@given(batches(), st.floats(0.01, 0.49))
def test_robust_dpo_is_unbiased(batch: dict[str, list], eps: float) -> None:
    """Averaged over flips of the label with probability eps, it is DPO's loss on the label."""
    swapped = {
        name.replace("chosen", "#").replace("rejected", "chosen").replace("#", "rejected"): values
        for name, values in batch.items()
    }
    right, wrong = (np.array(_per_pair("robust_dpo", b, label_smoothing=eps)) for b in (batch, swapped))
    np.testing.assert_allclose((1 - eps) * right + eps * wrong, _per_pair("dpo", batch), rtol=1e-6, atol=1e-6)


@given(st.floats(0.1, 5), st.floats(0, 3))
def test_simpo_has_two_names_for_its_target_margin(beta: float, ratio: float) -> None:
    batch = {"chosen_logp": [-9.0], "rejected_logp": [-8.0], "chosen_len": [3], "rejected_len": [4]}
    one = _per_pair("simpo", batch, beta=beta, gamma_beta_ratio=ratio)
    other = _per_pair("simpo", batch, beta=beta, gamma=ratio * beta)
    assert one == pytest.approx(other, rel=1e-9)


@given(st.lists(st.floats(-700, 0), min_size=1, max_size=20), st.integers(0, 99), st.data())
def test_a_draw_is_of_the_wanted_size_and_does_not_depend_on_order(weights: list[float], seed: int, data: Any) -> None:
    ids = [f"pair{i}" for i in range(len(weights))]
    count = data.draw(st.integers(1, len(weights)))
    order = data.draw(st.permutations(range(len(weights))))
    log_weight = np.array(weights)
    kept = draw(log_weight, count, ids, seed, 1)
    assert len(set(kept)) == count
    moved = draw(log_weight[order], count, [ids[i] for i in order], seed, 1)
    assert {ids[i] for i in kept} == {ids[order[i]] for i in moved}
