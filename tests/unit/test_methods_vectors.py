"""Losses and gradients of the named methods against numbers worked out from the papers (numpy, float64, by hand).

Each case goes through the function behind `marginbench loss` in float64 and, as in training, in float32. Where the
specification scripts lie beside the checkout, they are an oracle for many more inputs.
"""

import importlib.util
import math
from pathlib import Path
from types import ModuleType
from typing import Any

import numpy as np
import pytest
import torch
from marginbench.methods.base import PairBatch
from marginbench.methods.evaluate import evaluate
from marginbench.methods.registry import load_method

SPECS = Path(__file__).parents[2].parent / "shared" / "specs"

PAIRS = {
    "chosen_logp": [-40.0, -55.5, -30.25],
    "rejected_logp": [-60.0, -50.0, -30.25],
    "ref_chosen_logp": [-42.0, -54.0, -31.25],
    "ref_rejected_logp": [-57.0, -51.0, -29.25],
    "chosen_len": [20, 30, 11],
    "rejected_len": [25, 24, 13],
}
G = np.array([5.0, -2.5, 2.0])
TAU7 = math.log(0.999 / 0.001)
RELEASED = {"margin_scale": "raw", "beta_source": "kept", "std_ddof": 1, "beta_min": 1e-3}


def _gaps(margins: list[float], **columns: list) -> dict[str, list]:
    """Pairs with the given log-ratio margins."""
    zero = [0.0] * len(margins)
    names = ("rejected_logp", "ref_chosen_logp", "ref_rejected_logp")
    return {"chosen_logp": margins, **dict.fromkeys(names, zero), **columns}


G5 = _gaps([4.0, -1.0, 2.5, 12.0, 0.5], kept=[0, 1, 2, 4])
MADPO = _gaps([5.0] * 5 + [-2.0] * 3, margin=[0.0, 0.5, 3.0, TAU7, 9.0, -1.0, -6.5, -8.0])
MIX = {
    "chosen_logp": [-120.0, -210.5, -88.25, -305.0],
    "rejected_logp": [-135.0, -198.0, -95.5, -300.0],
    "ref_chosen_logp": [-125.0, -205.0, -90.0, -310.0],
    "ref_rejected_logp": [-130.0, -200.0, -92.0, -301.0],
    "chosen_len": [80, 150, 64, 244],
    "margin": [5.0, 2.0, 0.5, 0.0],
}
MIX3 = {
    "chosen_logp": [-50.0, -40.0, -30.0],
    "rejected_logp": [-70.0, -35.0, -33.0],
    "ref_chosen_logp": [-55.0, -42.0, -30.5],
    "ref_rejected_logp": [-60.0, -36.0, -31.5],
    "chosen_len": [40, 25, 12],
    "margin": [1.5, -1.0, 0.25],
}

VECTORS: dict[str, tuple[str, dict[str, Any], dict[str, list], dict[str, Any]]] = {
    "dpo": ("dpo", {"beta": 0.1}, PAIRS, {
        "per_pair": [0.4740769842, 0.8259394199, 0.5981388694], "loss": 0.6327184245}),
    "dpo beta .5": ("dpo", {"beta": 0.5}, PAIRS, {
        "per_pair": [0.0788897343, 1.5019290810, 0.3132616875], "loss": 0.6313601677}),
    "cdpo": ("cdpo", {"beta": 0.1}, PAIRS, {
        "per_pair": [0.5240769842, 0.8009394199, 0.6181388694], "loss": 0.6477184245}),
    "ipo sum .1": ("ipo", {"beta": 0.1}, PAIRS, {"per_pair": [0, 56.25, 9], "loss": 21.75}),
    "ipo sum .5": ("ipo_sum", {"beta": 0.5}, PAIRS, {"per_pair": [16, 12.25, 1], "loss": 9.75}),
    "ipo avg .1": ("ipo", {"beta": 0.1, "reduction": "mean"}, PAIRS, {
        "per_pair": [22.8484, 25.92506944, 23.34984596], "loss": 24.04110513,
        "ipo_margin": [0.22, -0.0916666667, 0.1678321678]}),
    "ipo avg .5": ("ipo_avg", {"beta": 0.5}, PAIRS, {
        "per_pair": [0.6084, 1.191736111, 0.6925033009], "loss": 0.8308798040}),
    "beta-DPO A, released": ("beta_dpo", {**RELEASED, "ema_mean_init": 1.0, "ema_std_init": 2.0}, G5, {
        "ema_mean": 1.26, "ema_std": 2.306705042, "beta": 0.1144, "loss": 0.6168930009, "kept": [0, 1, 2, 4],
        "weight": [0.4938696189, 0.6188097111, 0.8654660278, 1.961668e-05, 0.9471700328],
        "per_pair": [0.4902966668, 0.7519822093, 0.5603370226, 0.2258570307, 0.6649561048]}),
    "beta-DPO A, by name": ("beta_dpo_released", {"ema_mean_init": 1.0, "ema_std_init": 2.0}, G5, {
        "ema_mean": 1.26, "ema_std": 2.306705042, "beta": 0.1144, "loss": 0.6168930009}),
    "beta-DPO B, first step": ("beta_dpo", RELEASED, G5, {
        "ema_mean": 0.36, "ema_std": 0.5067050424, "beta": 0.1684, "loss": 0.5873712305}),
    "beta-DPO C, floor": (
        "beta_dpo", {**RELEASED, "ema_mean_init": 8.0, "ema_std_init": 3.0},
        _gaps([-6.0, -4.0, -5.0, 1.0, -7.0], kept=[0, 1, 2, 4]),
        {"ema_mean": 6.78, "ema_std": 3.01144823, "beta": 0.001, "loss": 0.6959011181}),
    "beta-DPO C, no floor": (
        "beta_dpo", {**RELEASED, "ema_mean_init": 8.0, "ema_std_init": 3.0, "beta_min": None},
        _gaps([-6.0, -4.0, -5.0, 1.0, -7.0], kept=[0, 1, 2, 4]), {"beta": -0.6368}),
    "beta-DPO D, paper": ("beta_dpo", {"ema_mean_init": 0.1, "ema_std_init": 0.2}, G5, {
        "ema_mean": 0.126, "ema_std": 0.2253210768, "beta": 0.11404, "loss": 0.6171034189}),
    "beta-DPO D, beta from kept": (
        "beta_dpo", {"ema_mean_init": 0.1, "ema_std_init": 0.2, "beta_source": "kept"}, G5,
        {"ema_mean": 0.126, "ema_std": 0.2253210768, "beta": 0.10144, "loss": 0.6245835317}),
    "madpo c 4": ("madpo", {"beta": 0.1, "c_max": 4, "c_min": 0.25, "lam": 1, "tau": TAU7}, MADPO, {
        "weight": [1, 1.412943643, 1.049772166, 1, 0.9631185077, 0.0695817168, 0.1690238007, 1],
        "per_pair": [0.4740769842, 0.6698440612, 0.4976728227, 0.4740769842, 0.4565923176, 0.0555358728, 0.1349044652,
                     0.7981388694],
        "loss": 0.4451052972}),
    "madpo c 2": ("madpo", {"beta": 0.1, "c_max": 2, "c_min": 0.5}, MADPO, {
        "weight": [1, 1.173688212, 1.046699595, 1, 0.9950755952, 0.4464094258, 0.3942615124, 1],
        "per_pair": [0.4740769842, 0.5564185678, 0.4962161874, 0.4740769842, 0.4717424372, 0.3562967144, 0.3146754378,
                     0.7981388694],
        "loss": 0.4927052728}),
    "madpo c 2, tau 2": ("madpo", {"beta": 0.1, "c_max": 2, "c_min": 0.5, "tau": 2}, MADPO, {
        "weight": [1, 1.097603255, 0.9449883273, 0.9714178098, 0.9892017721, 0.7569028941, 1, 1],
        "per_pair": [0.4740769842, 0.5203484411, 0.4479972163, 0.4605268257, 0.4689577929, 0.6041136201, 0.7981388694,
                     0.7981388694],
        "loss": 0.5715373274}),
    "mixdpo V1": ("mixdpo", {"beta": 0.01, "tau": 0.5}, MIX, {
        "hard": [False, False, False, True], "frac_sft": 0.25, "loss": 0.823247118288,
        "per_pair": [0.644396660074, 0.731350140827, 0.667241672250, 1.25],
        "loss_pref": (0.644396660074 + 0.731350140827 + 0.667241672250) / 4, "loss_sft": 1.25 / 4}),
    "mixdpo V2": ("mixdpo", {"beta": 0.01, "tau": 0.5, "inclusive": True, "label_smoothing": 0.1}, MIX, {
        "hard": [False, False, True, True], "frac_sft": 0.5, "loss": 1.001788262725,
        "per_pair": [0.654396660074, 0.723850140827, 1.37890625, 1.25]}),
    "mixdpo V2, by name": ("mixdpo_released", {"inclusive": True}, MIX, {"loss": 1.001788262725}),
    "mixdpo V3": ("mixdpo", {"beta": 0.1, "tau": 0.5, "sft_weight": 0.5}, MIX3, {
        "hard": [False, True, True], "per_pair": [0.201413277983, 0.8, 1.25], "loss": 0.750471092661}),
    "mixdpo V4": ("mixdpo", {"base": "ipo", "beta": 0.01, "tau": 0.5}, MIX, {
        "hard": [False, False, False, True], "per_pair": [1600, 3306.25, 2002.5625, 1.25], "loss": 1727.515625}),
    "sft": ("sft", {}, MIX, {"per_pair": [1.5, 1.403333333333, 1.37890625, 1.25]}),
}  # fmt: skip


@pytest.mark.parametrize("case", VECTORS)
def test_vector(case: str) -> None:
    name, params, batch, expected = VECTORS[case]
    method = load_method(name, params)
    exact, single = evaluate(method, [batch])[0], evaluate(method, [batch], torch.float32)[0]
    for key, value in expected.items():
        np.testing.assert_allclose(exact[key], value, rtol=1e-6 if key == "weight" else 1e-8, atol=1e-9, err_msg=key)
        if key == "beta" and params.get("beta_min", 0) is None:
            continue
        np.testing.assert_allclose(single[key], exact[key], rtol=1e-5, atol=0 if key != "weight" else 1e-9, err_msg=key)


def test_beta_dpo_weights_of_the_first_step() -> None:
    """Vector B: from 1 down to 2.6e-115, which single precision cannot hold; the draw works on their logarithms."""
    found = evaluate(load_method("beta_dpo", RELEASED), [G5])[0]["weight"]
    np.testing.assert_allclose(found[:3] + found[4:], [6.22e-12, 0.02727056347, 1.339e-04, 0.9625498466], rtol=1e-3)
    assert found[3] == pytest.approx(2.6e-115, rel=0.02)


def test_beta_dpo_carries_its_state_from_batch_to_batch() -> None:
    first, second = evaluate(load_method("beta_dpo", {**RELEASED, "ema_mean_init": 1.0, "ema_std_init": 2.0}), [G5, G5])
    assert first["ema_mean"] == pytest.approx(1.26)
    assert second["ema_mean"] == pytest.approx(0.9 * 1.26 + 0.1 * 3.6)
    assert second["ema_std"] == pytest.approx(0.9 * 2.306705042 + 0.1 * 5.067050424)
    assert second["beta"] == pytest.approx(0.1 * (1 + 0.6 * (1.5 - second["ema_mean"])))


def test_madpo_coefficients() -> None:
    from marginbench.methods.madpo import coefficient

    size = np.abs(MADPO["margin"])
    for params, expected in (
        ({}, [3.985044865, 3.975406777, 3.720864181, 1, 0.3621251192, 3.959624406, 1.273686813, 0.5398938882]),
        (
            {"c_max": 2, "c_min": 0.5},
            [1.997002997, 1.995065174, 1.942014734, 1, 0.5870959245, 1.991881174, 1.143330943, 0.715273393],
        ),
        (
            {"c_max": 2, "c_min": 0.5, "tau": 2},
            [
                1.680479063,
                1.537157681,
                0.7330436052,
                0.5055268997,
                0.5006835998,
                1.364175327,
                0.5082857244,
                0.5018567629,
            ],
        ),
    ):
        np.testing.assert_allclose(coefficient(size, load_method("madpo", params).params), expected, rtol=1e-8)


def test_madpo_effective_target() -> None:
    """With both labels present the minimiser of the weighted loss is beta g = c h."""
    method = load_method("madpo")
    plus, minus = method.plan(np.array([1.3, -1.3])).columns["weight"]
    positive, negative = plus / (1 + math.exp(-1.3)), minus / (1 + math.exp(1.3))
    assert positive + negative == pytest.approx(1, abs=1e-12)
    assert math.log(positive / negative) == pytest.approx(5.129414131, rel=1e-9)
    assert math.log(positive / negative) == pytest.approx(3.945703178 * 1.3, rel=1e-9)


def _gradients(name: str, params: dict[str, Any], batch: dict[str, list]) -> tuple[np.ndarray, np.ndarray]:
    method = load_method(name, params)
    tensors = {key: torch.tensor(value, dtype=torch.float64) for key, value in batch.items() if key != "kept"}
    leaves = [tensors["chosen_logp"].requires_grad_(), tensors["rejected_logp"].requires_grad_()]
    plan = method.plan(np.asarray(batch["margin"]) if method.needs.margins else None)
    columns = {key: torch.tensor(value) for key, value in plan.columns.items()}
    found = method.loss(PairBatch(**tensors, columns=columns, kept=batch.get("kept")), method.initial_state())
    gradients = torch.autograd.grad(found.per_pair.sum(), leaves, allow_unused=True, materialize_grads=True)
    return tuple(gradient.numpy() for gradient in gradients)


def test_dpo_gradient() -> None:
    chosen, rejected = _gradients("dpo", {"beta": 0.1}, PAIRS)
    np.testing.assert_allclose(chosen, [-0.0377540669, -0.0562176501, -0.0450166003], rtol=1e-8)
    np.testing.assert_array_equal(rejected, -chosen)
    sigma = 1 / (1 + np.exp(-0.1 * G))
    chosen, _ = _gradients("dpo", {"beta": 0.1, "label_smoothing": 0.2}, PAIRS)
    np.testing.assert_allclose(chosen, 0.1 * (sigma - 0.8), rtol=1e-10)


def test_ipo_gradient() -> None:
    chosen, _ = _gradients("ipo", {"beta": 0.5, "reduction": "sum"}, PAIRS)
    np.testing.assert_allclose(chosen, 2 * (G - 1.0), rtol=1e-12)


def test_madpo_gradient() -> None:
    """-w beta sigma(-beta g): nothing flows through the weight."""
    weight = np.array(VECTORS["madpo c 4"][3]["weight"])
    g = np.array(MADPO["chosen_logp"])
    chosen, rejected = _gradients("madpo", {}, MADPO)
    np.testing.assert_allclose(chosen, -weight * 0.1 / (1 + np.exp(0.1 * g)), rtol=1e-8)
    np.testing.assert_array_equal(rejected, -chosen)


def test_mixdpo_gradient() -> None:
    chosen, rejected = _gradients("mixdpo", {}, MIX)
    np.testing.assert_allclose(chosen, [-0.004750208125, -0.005187412159, -0.004868780138, -0.004098360656], rtol=1e-9)
    np.testing.assert_allclose(rejected, [0.004750208125, 0.005187412159, 0.004868780138, 0], rtol=1e-9, atol=1e-15)


def test_beta_dpo_gradient_does_not_flow_through_beta() -> None:
    beta = 0.1144
    chosen, _ = _gradients("beta_dpo", {**RELEASED, "ema_mean_init": 1.0, "ema_std_init": 2.0}, G5)
    np.testing.assert_allclose(chosen, -beta / (1 + np.exp(beta * np.array(G5["chosen_logp"]))), rtol=1e-9)


def test_kto_gradient_does_not_flow_through_the_reference_point() -> None:
    chosen, rejected = _gradients("kto", {"beta": 0.1}, PAIRS)
    slope = lambda x: 0.1 / (1 + np.exp(-x)) / (1 + np.exp(x)) / 2  # noqa: E731
    np.testing.assert_allclose(chosen, -slope(0.1 * np.array([2.0, -1.5, 1.0])), rtol=1e-9)  # z_rejected = 0
    np.testing.assert_allclose(rejected, slope(0.1 * (0.5 - np.array([-3.0, 1.0, -1.0]))), rtol=1e-9)


def test_far_away_is_finite() -> None:
    far = torch.tensor([1e4, -1e4], dtype=torch.float32)
    zero = torch.zeros(2)
    losses = load_method("dpo", {"beta": 0.1}).loss(PairBatch(far, zero, zero, zero)).per_pair
    torch.testing.assert_close(losses, torch.tensor([0.0, 1000.0]))
    extreme = np.array([-150.0, -104.0, -1e4, 150.0, 1e4])
    for params in ({}, {"tau": 500.0}, {"tau": 500.0, "lam": 50.0}, {"part": "amplify"}, {"part": "regularise"}):
        weight = load_method("madpo", params).plan(extreme).columns["weight"]
        assert np.isfinite(weight).all()
        assert (weight >= 0).all()


def test_ipo_optimum_of_two_actions() -> None:
    """Uniform reference, one certain preference: the minimiser has pi(chosen) = sigma(1 / (2 tau)) (IPO paper, 5.1)."""
    tau = 0.4
    p = 1 / (1 + math.exp(-1 / (2 * tau)))
    half = torch.tensor([math.log(0.5)], dtype=torch.float64)
    chosen, rejected = (torch.tensor([math.log(x)], dtype=torch.float64) for x in (p, 1 - p))
    loss = load_method("ipo", {"beta": tau, "reduction": "sum"}).loss(PairBatch(chosen, rejected, half, half))
    assert loss.mean().item() == pytest.approx(0.0, abs=1e-20)


def _script(name: str) -> ModuleType:
    path = SPECS / name
    if not path.is_file():
        pytest.skip(f"{path} is not there")
    spec = importlib.util.spec_from_file_location(path.stem, path)
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def _random(seed: int, n: int = 9) -> dict[str, list]:
    draw = np.random.default_rng(seed)
    names = ("chosen_logp", "rejected_logp", "ref_chosen_logp", "ref_rejected_logp")
    batch = {name: draw.normal(-60, 15, n).tolist() for name in names}
    lengths = {name: draw.integers(1, 60, n).tolist() for name in ("chosen_len", "rejected_len")}
    return {**batch, **lengths, "margin": draw.normal(0.5, 5, n).tolist()}


@pytest.mark.parametrize("seed", range(8))
def test_against_the_script_of_madpo_ipo_and_beta_dpo(seed: int) -> None:
    oracle, batch = _script("vectors_madpo_ipo_betadpo.py"), _random(seed)
    logps = [batch[name] for name in ("chosen_logp", "rejected_logp", "ref_chosen_logp", "ref_rejected_logp")]
    g, h = oracle.raw_margin(*logps), np.array(batch["margin"])

    def agree(name: str, params: dict[str, Any], **expected: Any) -> None:
        found = evaluate(load_method(name, params), [batch])[0]
        for key, value in expected.items():
            np.testing.assert_allclose(found[key], value, rtol=1e-6, atol=1e-6, err_msg=f"{name} {key}")

    agree("dpo", {"beta": 0.3}, per_pair=oracle.dpo(g, 0.3)[0])
    agree("cdpo", {"beta": 0.3}, per_pair=oracle.dpo(g, 0.3, 0.1)[0])
    agree("ipo", {"beta": 0.2}, per_pair=oracle.ipo(*logps, 0.2)[1])
    lengths = (batch["chosen_len"], batch["rejected_len"])
    agree("ipo_avg", {"beta": 0.2}, per_pair=oracle.ipo(*logps, 0.2, *lengths)[1])
    for hyper in ({"c_max": 4.0, "c_min": 0.25, "tau": TAU7}, {"c_max": 3.0, "c_min": 0.1, "tau": 2.5}):
        _, weight, per_pair, _ = oracle.madpo(g, h, beta=0.2, lam=1.5, **hyper)
        agree("madpo", {"beta": 0.2, "lam": 1.5, **hyper}, weight=weight, per_pair=per_pair)
    batch["kept"] = sorted(np.random.default_rng(seed).permutation(9)[:7].tolist())
    init = {"ema_mean_init": 0.7, "ema_std_init": 1.1}
    code = oracle.beta_dpo_official(g, 0.7, 1.1, 0.1, 0.6, batch["kept"])
    per_pair, loss = code["per_example_loss"], code["batch_loss"]
    shared = {key: code[key] for key in ("ema_mean", "ema_std", "beta")}
    agree("beta_dpo_released", init, per_pair=per_pair, loss=loss, weight=code["weights"], **shared)
    text = oracle.beta_dpo_paper(g, 0.7, 1.1, 0.1, 0.6, batch["kept"])
    for source, key in (("full", "full_batch"), ("kept", "kept_only")):
        loss, beta = text[f"batch_loss_{key}"], text[f"beta_{key}"]
        given = {**init, "beta_source": source, "beta_min": None}
        agree("beta_dpo", given, loss=loss, beta=beta, ema_mean=text["ema_mean"], ema_std=text["ema_std"])


@pytest.mark.parametrize("seed", range(8))
def test_against_the_script_of_mixdpo(seed: int) -> None:
    oracle, batch = _script("vectors_mixdpo.py"), _random(seed)
    batch["margin"] = (np.round(np.array(batch["margin"]) * 2) / 2).tolist()
    names = ("chosen_logp", "rejected_logp", "ref_chosen_logp", "ref_rejected_logp", "chosen_len", "margin")
    for given in (
        {"beta": 0.01, "tau": 0.5},
        {"beta": 0.2, "tau": 1.0, "label_smoothing": 0.1, "inclusive": True, "sft_weight": 0.3},
        {"beta": 0.05, "tau": -0.5, "base": "ipo"},
    ):
        words = {"label_smoothing": "eps", "sft_weight": "w_sft"}
        expected = oracle.mixdpo(*(batch[n] for n in names), **{words.get(k, k): v for k, v in given.items()})
        found = evaluate(load_method("mixdpo", given), [batch])[0]
        for key, other in (("hard", "hard"), ("per_pair", "per_example"), ("loss", "batch"), ("frac_sft", "frac_sft")):
            np.testing.assert_allclose(found[key], expected[other], rtol=1e-6, atol=1e-6)
        for mine, theirs in zip(_gradients("mixdpo", given, batch), ("grad_pc", "grad_pr"), strict=True):
            np.testing.assert_allclose(mine, expected[theirs], rtol=1e-9, atol=1e-12)
    order = load_method("mixdpo").plan(np.array(batch["margin"])).order
    np.testing.assert_array_equal(order, oracle.curriculum(batch["margin"]))


def test_log_odds_are_stable() -> None:
    from marginbench.methods.formulas import log_odds

    logp = torch.tensor([-700.0, -1.0, -0.5, -1e-6, 0.0], dtype=torch.float64, requires_grad=True)
    values = log_odds(logp)
    p = np.exp(logp.detach().numpy()[1:3])
    np.testing.assert_allclose(values.detach().numpy()[1:3], np.log(p / (1 - p)), rtol=1e-12)
    assert values[0].item() == pytest.approx(-700, rel=1e-12)
    assert values[3].item() == pytest.approx(-math.log(1e-6), rel=1e-6)
    assert torch.isfinite(torch.autograd.grad(values.sum(), logp)[0]).all()
    assert torch.isfinite(values).all()
