"""Losses and gradients of DPO and IPO against numbers worked out from the papers' equations (numpy, float64)."""

import math

import numpy as np
import pytest
import torch
from marginbench.methods.base import PairBatch
from marginbench.methods.registry import load_method

PAIRS = {
    "chosen_logp": [-40.0, -55.5, -30.25],
    "rejected_logp": [-60.0, -50.0, -30.25],
    "ref_chosen_logp": [-42.0, -54.0, -31.25],
    "ref_rejected_logp": [-57.0, -51.0, -29.25],
    "chosen_len": [20.0, 30.0, 11.0],
    "rejected_len": [25.0, 24.0, 13.0],
}
G = np.array([5.0, -2.5, 2.0])


def _batch(dtype: torch.dtype = torch.float64) -> PairBatch:
    tensors = {name: torch.tensor(values, dtype=dtype) for name, values in PAIRS.items()}
    return PairBatch(**{**tensors, "chosen_logp": tensors["chosen_logp"].requires_grad_()})


@pytest.mark.parametrize(
    ("name", "params", "mean"),
    [
        ("dpo", {"beta": 0.1}, 0.6327184245),
        ("dpo", {"beta": 0.5}, 0.6313601677),
        ("dpo", {"beta": 0.1, "label_smoothing": 0.1}, 0.6477184245),
        ("ipo", {"beta": 0.1, "reduction": "sum"}, 21.75),
        ("ipo", {"beta": 0.5, "reduction": "sum"}, 9.75),
        ("ipo", {"beta": 0.1, "reduction": "mean"}, 24.04110513),
        ("ipo", {"beta": 0.5, "reduction": "mean"}, 0.8308798040),
    ],
)
def test_mean_loss(name: str, params: dict, mean: float) -> None:
    method = load_method(name, params)
    assert method.loss(_batch()).mean().item() == pytest.approx(mean, rel=1e-8)
    assert method.loss(_batch(torch.float32)).mean().item() == pytest.approx(mean, rel=1e-5)


def _gradient(name: str, **params: object) -> np.ndarray:
    batch = _batch()
    return torch.autograd.grad(load_method(name, params).loss(batch).per_pair.sum(), batch.chosen_logp)[0].numpy()


def test_dpo_gradient() -> None:
    np.testing.assert_allclose(_gradient("dpo", beta=0.1), [-0.0377540669, -0.0562176501, -0.0450166003], rtol=1e-8)
    sigma = 1 / (1 + np.exp(-0.1 * G))
    np.testing.assert_allclose(_gradient("dpo", beta=0.1, label_smoothing=0.2), 0.1 * (sigma - 0.8), rtol=1e-10)


def test_ipo_gradient() -> None:
    np.testing.assert_allclose(_gradient("ipo", beta=0.5, reduction="sum"), 2 * (G - 1.0), rtol=1e-12)


def test_dpo_is_finite_far_away() -> None:
    far = torch.tensor([1e4, -1e4], dtype=torch.float32)
    zero = torch.zeros(2)
    losses = load_method("dpo", {"beta": 0.1}).loss(PairBatch(far, zero, zero, zero)).per_pair
    torch.testing.assert_close(losses, torch.tensor([0.0, 1000.0]))


def test_ipo_optimum_of_two_actions() -> None:
    """Uniform reference, one certain preference: the minimiser has pi(chosen) = sigma(1 / (2 tau)) (IPO paper, 5.1)."""
    tau = 0.4
    margin = 1 / (2 * tau)
    p = 1 / (1 + math.exp(-margin))
    half = torch.tensor([math.log(0.5)], dtype=torch.float64)
    chosen = torch.tensor([math.log(p)], dtype=torch.float64)
    rejected = torch.tensor([math.log(1 - p)], dtype=torch.float64)
    loss = load_method("ipo", {"beta": tau, "reduction": "sum"}).loss(PairBatch(chosen, rejected, half, half))
    assert loss.mean().item() == pytest.approx(0.0, abs=1e-20)
