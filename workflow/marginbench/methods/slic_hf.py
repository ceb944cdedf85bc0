"""SLiC-HF (Zhao et al. 2023, arXiv 2305.10425): a hinge on the log-probabilities, and SFT beside it.

The loss of a pair, log-probabilities summed over tokens, is

    max(0, delta - beta x) - sft_weight log pi(chosen),     x = log pi(chosen) - log pi(rejected).

The paper has no beta (1), no reference in the hinge, and a target text of its own choice in the second term; here it is
the chosen answer, as in the comparisons of the SimPO paper. delta and the weight were swept there; the defaults are
ours.
TRL's `hinge` normalises by the reference (x is DPO's log-ratio margin g, as in RSO), has delta = 1 and no second term:
that is the variant `slic_hf_norm`, with `normalise: reference`.
"""

from typing import Literal

from pydantic import Field

from marginbench.methods.base import Case, Needs, PairBatch, PairLoss, State, log_ratio_margin
from marginbench.methods.curriculum import PairParams
from marginbench.methods.formulas import Reduction, chosen_nll


class Params(PairParams):
    """Parameters of SLiC-HF."""

    delta: float = Field(1.0, ge=0, description="Margin beyond which a pair pulls no more.")
    beta: float = Field(1.0, gt=0, description="Scale of the margin, per nat; 1 in the paper.")
    normalise: Literal["none", "reference"] = Field("none", description="x of the policy alone, or DPO's g.")
    sft_weight: float = Field(0.1, ge=0, description="Weight of the SFT term.")
    sft_reduction: Reduction = Field("sum", description="SFT term summed over tokens (paper) or per token.")


VARIANTS = {"slic_hf_norm": {"normalise": "reference", "beta": 0.1, "sft_weight": 0.0}}


def needs(params: Params) -> Needs:
    """Nothing but the policy, unless the reference or a term per token is asked for."""
    return Needs(
        reference=params.normalise == "reference", lengths=params.sft_weight > 0 and params.sft_reduction == "mean"
    )


def loss(batch: PairBatch, params: Params, state: State | None = None) -> PairLoss:
    """Loss of every pair; see the module's formula."""
    margin = log_ratio_margin(batch) if params.normalise == "reference" else batch.chosen_logp - batch.rejected_logp
    hinge = (params.delta - params.beta * margin).relu()
    if params.sft_weight == 0:
        return PairLoss(hinge)
    return PairLoss(hinge + params.sft_weight * chosen_nll(batch, params.sft_reduction))


_PAIRS = {
    "chosen_logp": [-40.0, -55.5, -30.25],
    "rejected_logp": [-60.0, -50.0, -30.75],
    "ref_chosen_logp": [-42.0, -54.0, -31.25],
    "ref_rejected_logp": [-57.0, -51.0, -29.75],
    "chosen_len": [20, 30, 11],
    "rejected_len": [25, 24, 13],
}  # x = 20, -5.5, 0.5; g = 5, -2.5, 2

EXAMPLE = (
    Case({}, [_PAIRS], [[4.0, 12.05, 3.525]]),
    Case({"sft_weight": 0.5, "sft_reduction": "mean"}, [_PAIRS], [[1.0, 7.425, 1.875]]),
    Case({"normalise": "reference", "beta": 0.1, "sft_weight": 0.0}, [_PAIRS], [[0.5, 1.25, 0.8]]),
)
