"""Margin-adaptive DPO (Rho 2025, arXiv 2510.05342 v1): pairs weighted by how sure a frozen reward model is.

Formulas are those of the author's code, which third-party reviews of the paper confirm. With h the reward model's score
of the chosen answer minus that of the rejected one (negative where it contradicts the label) and g DPO's log-ratio
margin, the loss of a pair is

    -w(h) log sigma(beta g),        w(h) = sigma(c(|h|) h) / sigma(h) if h > -tau, else 1,
    c(|h|) = c_min + (c_max - c_min) / (1 + K exp(lam (|h| - tau))),   K = (c_max - 1) / (1 - c_min).

c falls from about c_max at h = 0 through 1 at |h| = tau to c_min: margins below tau are stretched, those above are
shrunk, for with calibrated margins the two labels of a pair together have their minimum at beta g = c(|h|) h. The
weights are not renormalised, the batch's loss is a plain mean, and no gradient goes through h. They are made once, in
log space (the ratio of the two sigmas is 0 / 0 in single precision from h = -104 on).

With the defaults (the paper's main table) w lies in [0.95, 1.42] where the reward model agrees with the label, and
falls to 0.07 at h = -1: most of the method's work is the removal of contradicted labels, which `dpo_drop_contradicted`
imitates. `part` is our reading of the paper's ablations (clipping c; they are not in the author's code): `amplify`
keeps c >= 1, `regularise` keeps c <= 1; `none` holds c at 1, so that every weight is exactly 1 and the loss is DPO's
bit for bit. The paper's second version (2026) could not be read beyond its abstract.

Variants: `madpo_amplify`, `madpo_regularise`; controls: `madpo_unit_weight`, and `madpo_shuffled_margins`, which deals
the margins out to the pairs anew.
"""

import math
from typing import Literal

import numpy as np
from pydantic import Field

from marginbench.methods.base import Case, Needs, PairBatch, PairLoss, Plan, State, log_ratio_margin, planned
from marginbench.methods.curriculum import PairParams
from marginbench.methods.formulas import sigmoid_loss

PAPER_TAU = math.log(0.999 / 0.001)
"""The margin at which a pair is preferred with probability 0.999."""


class Params(PairParams):
    """Parameters of MADPO."""

    beta: float = Field(0.1, gt=0, description="DPO's beta, per nat.")
    c_max: float = Field(4.0, gt=1, description="Largest stretch of a margin, towards h = 0.")
    c_min: float = Field(0.25, ge=0, lt=1, description="Smallest stretch, for large margins.")
    lam: float = Field(1.0, gt=0, description="How steeply c falls, per unit of margin.")
    tau: float = Field(PAPER_TAU, gt=0, description="Margin at which c is 1; log(0.999 / 0.001) in the paper.")
    part: Literal["full", "amplify", "regularise", "none"] = Field(
        "full", description="The whole c, only c >= 1, only c <= 1, or c = 1 (which is DPO)."
    )


VARIANTS = {
    "madpo_amplify": {"part": "amplify"},
    "madpo_regularise": {"part": "regularise"},
    "madpo_unit_weight": {"part": "none"},
    "madpo_shuffled_margins": {"shuffle_margins": 0},
}


def coefficient(size: np.ndarray, params: Params) -> np.ndarray:
    """c of |h|, before it is clipped; same shape."""
    k = (params.c_max - 1) / (1 - params.c_min)
    with np.errstate(over="ignore"):  # an infinite power gives c_min, its limit
        return params.c_min + (params.c_max - params.c_min) / (1 + k * np.exp(params.lam * (size - params.tau)))


def weights(margins: np.ndarray, params: Params) -> np.ndarray:
    """w of every signed margin h, float64, same shape."""
    h = np.asarray(margins, dtype=np.float64)
    c = coefficient(np.abs(h), params)
    if params.part == "amplify":
        c = np.maximum(c, 1)
    elif params.part == "regularise":
        c = np.minimum(c, 1)
    elif params.part == "none":
        c = np.ones_like(h)
    log_w = np.logaddexp(0, -h) - np.logaddexp(0, -c * h)  # log sigma(x) = -log(1 + exp(-x))
    return np.where(h > -params.tau, np.exp(np.where(h > -params.tau, log_w, 0)), 1.0)


def needs(params: Params) -> Needs:
    """The reference's log-probabilities, and margins."""
    return Needs(reference=True, margins=True)


def plan(margins: np.ndarray | None, params: Params) -> Plan:
    """The column `weight`."""
    if margins is None:
        raise ValueError("madpo weights pairs by their margins; margins are missing")
    return Plan(columns={"weight": weights(margins, params)})


def loss(batch: PairBatch, params: Params, state: State | None = None) -> PairLoss:
    """Loss of every pair; see the module's formula."""
    margin = log_ratio_margin(batch)
    weight = planned(batch, "weight").to(margin)
    return PairLoss(weight * sigmoid_loss(params.beta * margin), logs={"weight": weight})


_PAIRS = {
    "chosen_logp": [5.0, 5.0, 5.0, 5.0, 5.0, -2.0, -2.0, -2.0],
    "rejected_logp": [0.0] * 8,
    "ref_chosen_logp": [0.0] * 8,
    "ref_rejected_logp": [0.0] * 8,
    "margin": [0.0, 0.5, 3.0, PAPER_TAU, 9.0, -1.0, -6.5, -8.0],
}  # g = 5 or -2; w = 1, 1.412943643, 1.049772166, 1, 0.9631185077, 0.0695817168, 0.1690238007, 1

EXAMPLE = (
    Case(
        {},
        [_PAIRS],
        [
            [
                0.4740769842,
                0.6698440612,
                0.4976728227,
                0.4740769842,
                0.4565923176,
                0.0555358728,
                0.1349044652,
                0.7981388694,
            ]
        ],
    ),
    Case(
        {"c_max": 2.0, "c_min": 0.5, "tau": 2.0},
        [_PAIRS],
        [
            [
                0.4740769842,
                0.5203484411,
                0.4479972163,
                0.4605268257,
                0.4689577929,
                0.6041136201,
                0.7981388694,
                0.7981388694,
            ]
        ],
    ),
)
