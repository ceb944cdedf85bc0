"""MixDPO (Pang et al. 2026, arXiv 2602.00954 v1): easy pairs by DPO, hard pairs by SFT, easy pairs first.

Other work has the same name; this is "Small-margin preferences still matter, if you train them right". The body of the
paper could not be read: the loss is that of the authors' code, which their prose agrees with. Pairs are sorted once by
descending margin m (ties in the order of the data) and trained on in this order. With DPO's log-ratio margin g, the
loss of a pair is

    easy (m >= tau):  -(1 - eps) log sigma(beta g) - eps log sigma(-beta g)
    hard (m < tau):   -sft_weight log pi(chosen) / |chosen|

and the batch's loss is a plain mean over pairs. `inclusive` makes m = tau hard; `percentile: q` puts tau at the margin
with index int((1 - q) N) of the descending order, so that about the share q is hard; an infinite tau makes sorted DPO
(-.inf) or sorted SFT (.inf). `base` puts IPO (summed log-probabilities, as released) or SimPO on the easy side.

The released Llama and Mistral configurations smooth labels by 0.1, the others and the text do not: `mixdpo_released`
has 0.1. The released code takes a missing margin for 1, so that every pair is easy; here a missing margin is an error,
and the share of hard pairs is logged at every step. `loss_pref` and `loss_sft` are the two sides' parts of the loss:
they add up to it.

Because the order is easy first, a schedule that decays to zero leaves little for the hard pairs (0.4 % of the summed
learning rate in the released recipe). `sft_schedule: own` gives the steps with hard pairs a schedule of their own.

Variants: `mixdpo_released`; control: `mixdpo_shuffled` (routing without the order).
"""

from typing import Any, Literal

import numpy as np
from pydantic import Field, model_validator

from marginbench.methods.base import Case, Needs, PairBatch, PairLoss, Plan, State, log_ratio_margin, planned
from marginbench.methods.curriculum import Order, PairParams, Threshold, hard_pairs, one_threshold
from marginbench.methods.formulas import chosen_nll, sigmoid_loss, simpo_loss, squared_loss

PAPER_TAU = 0.5
"""On UltraFeedback's ratings (1 to 10 in steps of 0.5): the ties are hard."""


class Params(PairParams):
    """Parameters of MixDPO."""

    beta: float = Field(0.01, gt=0, description="Beta of the loss on easy pairs (of SimPO: per nat and token).")
    tau: Threshold | None = Field(PAPER_TAU, description="Pairs with margin < tau are hard, in the scorer's units.")
    percentile: float | None = Field(None, gt=0, lt=1, description="Share of hard pairs, in place of tau.")
    inclusive: bool = Field(False, description="A margin equal to tau is hard.")
    label_smoothing: float = Field(0.0, ge=0, lt=0.5, description="eps of the loss on easy pairs (DPO, SimPO).")
    sft_weight: float = Field(1.0, ge=0, description="Weight of the loss on hard pairs.")
    base: Literal["dpo", "ipo", "simpo"] = Field("dpo", description="Loss on easy pairs.")
    gamma_beta_ratio: float = Field(0.5, ge=0, description="SimPO's gamma / beta; only for base simpo.")
    sft_schedule: Literal["shared", "own"] = Field(
        "shared", description="One learning-rate schedule, or one of its own (warm-up and decay) for the hard pairs."
    )
    order: Order = Field("margin_desc", description="Order of training; the paper's is easy (large margin) to hard.")

    @model_validator(mode="before")
    @classmethod
    def _threshold(cls, data: Any) -> Any:
        return one_threshold(data, "tau", "percentile", PAPER_TAU)

    @model_validator(mode="after")
    def _own_schedule_needs_the_order(self) -> "Params":
        if self.sft_schedule == "own" and self.order != "margin_desc":
            raise ValueError("`sft_schedule: own` needs `order: margin_desc`, which puts the hard pairs last")
        if self.base == "ipo" and self.label_smoothing:
            raise ValueError("`label_smoothing` has no meaning with `base: ipo`; set it to 0")
        return self


VARIANTS = {"mixdpo_released": {"label_smoothing": 0.1}, "mixdpo_shuffled": {"order": "seeded"}}


def needs(params: Params) -> Needs:
    """Margins, the lengths, and the reference for bases that have one. The order is declared by the curriculum."""
    return Needs(reference=params.base != "simpo", lengths=True, margins=True)


def plan(margins: np.ndarray | None, params: Params) -> Plan:
    """The column `hard`, 1 or 0."""
    if margins is None:
        raise ValueError("mixdpo routes pairs by their margins; margins are missing")
    hard = hard_pairs(margins, params.tau, params.percentile, params.inclusive)
    phase = hard.astype(np.int64) if params.sft_schedule == "own" else None
    return Plan(columns={"hard": hard.astype(np.float64)}, phase=phase)


def loss(batch: PairBatch, params: Params, state: State | None = None) -> PairLoss:
    """Loss of every pair; see the module's formula."""
    hard = planned(batch, "hard") > 0.5
    if params.base == "simpo":
        easy_loss = simpo_loss(batch, params.beta, params.gamma_beta_ratio, params.label_smoothing)
    elif params.base == "ipo":
        easy_loss = squared_loss(log_ratio_margin(batch), params.beta)
    else:
        easy_loss = sigmoid_loss(params.beta * log_ratio_margin(batch), params.label_smoothing)
    per_pair = (params.sft_weight * chosen_nll(batch)).where(hard, easy_loss)
    detached = per_pair.detach()
    logs = {
        "hard": hard,
        "frac_sft": hard.to(detached).mean(),
        "loss_pref": detached.where(~hard, 0).mean(),
        "loss_sft": detached.where(hard, 0).mean(),
    }
    return PairLoss(per_pair, logs=logs)


_PAIRS = {
    "chosen_logp": [-120.0, -210.5, -88.25, -305.0],
    "rejected_logp": [-135.0, -198.0, -95.5, -300.0],
    "ref_chosen_logp": [-125.0, -205.0, -90.0, -310.0],
    "ref_rejected_logp": [-130.0, -200.0, -92.0, -301.0],
    "chosen_len": [80, 150, 64, 244],
    "rejected_len": [90, 132, 50, 200],
    "margin": [5.0, 2.0, 0.5, 0.0],
}  # g = 10, -7.5, 5.25, 4; -log pi(chosen) per token 1.5, 1.403333, 1.37890625, 1.25

EXAMPLE = (
    Case({}, [_PAIRS], [[0.644396660074, 0.731350140827, 0.667241672250, 1.25]]),
    Case(
        {"label_smoothing": 0.1, "inclusive": True},
        [_PAIRS],
        [[0.654396660074, 0.723850140827, 1.37890625, 1.25]],
    ),
    Case({"base": "ipo"}, [_PAIRS], [[1600.0, 3306.25, 2002.5625, 1.25]]),
    Case(
        {"base": "simpo", "beta": 2.0, "percentile": 0.5},  # the third margin, 0.5, is the threshold and stays easy
        [_PAIRS],
        [[1.3132616875182228, 1.175705245352228, 0.6625367633292699, 1.25]],
    ),
)
