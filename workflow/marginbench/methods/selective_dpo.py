"""SelectiveDPO (Gao et al. 2025, arXiv 2502.09650): DPO on the easier part of the pairs, easy to hard.

A pair's difficulty is its DPO loss under models that were not trained on it: in the paper six small runs, each on one
half of the data and scoring the other, averaged. Here that is a scorer of margins, `held_out_loss` (margin = minus the
loss, so that a large margin is easy), and the method is what follows: pairs are sorted by descending margin, the first
int(keep_fraction N) are kept, and trained on in this order with DPO's loss,

    -log sigma(beta g).

Ties are in the order of the data. The paper keeps half (0.6 for Gemma) and has beta 0.01. Any other scorer may be put
in the place of the losses (`scorer: reward_model`, or null for the study's first); then it is a sorted and cut DPO.
"""

import math

import numpy as np
from pydantic import Field

from marginbench.methods.base import Case, Needs, PairBatch, PairLoss, Plan, State, log_ratio_margin
from marginbench.methods.curriculum import Order, PairParams, descending
from marginbench.methods.formulas import sigmoid_loss


class Params(PairParams):
    """Parameters of SelectiveDPO."""

    beta: float = Field(0.01, gt=0, description="DPO's beta, per nat.")
    keep_fraction: float = Field(0.5, gt=0, le=1, description="Share of the pairs that is kept, the easiest ones.")
    order: Order = Field("margin_desc", description="Order of training; the paper's is easy (large margin) to hard.")
    scorer: str | None = Field("held_out_loss", description="Scorer of the margins; null takes the study's first.")


def needs(params: Params) -> Needs:
    """The reference's log-probabilities, and margins."""
    return Needs(reference=True, margins=True)


def plan(margins: np.ndarray | None, params: Params) -> Plan:
    """The pairs that are kept; at least one."""
    if margins is None:
        raise ValueError("selective_dpo keeps pairs by their margins; margins are missing")
    count = max(1, math.floor(params.keep_fraction * len(margins) + 1e-9))
    keep = np.zeros(len(margins), dtype=bool)
    keep[descending(margins)[:count]] = True
    return Plan(keep=keep)


def loss(batch: PairBatch, params: Params, state: State | None = None) -> PairLoss:
    """Loss of every pair; see the module's formula."""
    return PairLoss(sigmoid_loss(params.beta * log_ratio_margin(batch)))


_PAIRS = {
    "chosen_logp": [-40.0, -55.5, -30.25],
    "rejected_logp": [-60.0, -50.0, -30.25],
    "ref_chosen_logp": [-42.0, -54.0, -31.25],
    "ref_rejected_logp": [-57.0, -51.0, -29.25],
    "margin": [-0.4, -0.9, -0.5],
}  # g = 5, -2.5, 2; int(0.67 x 3) = 2 pairs are kept, the first and the third

EXAMPLE = (
    Case(
        {"beta": 0.1, "keep_fraction": 0.67},
        [_PAIRS],
        [[0.4740769841801067, 0.8259394198788435, 0.5981388693815918]],
        [0.5361079267808493],
    ),
)
