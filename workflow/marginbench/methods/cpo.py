"""CPO (Xu et al. 2024, arXiv 2401.08417): DPO with a uniform reference, and SFT on the chosen answer.

The loss of a pair, log-probabilities summed over tokens, is

    -log sigma(beta (log pi(chosen) - log pi(rejected))) - sft_weight log pi(chosen).

The paper sums the second term over tokens; the authors' code and TRL's CPOTrainer (`cpo_alpha`) average it over tokens:
`sft_reduction: mean`, the variant `cpo_released` (theirs is a mean over all tokens of the batch, ours per answer).
"""

from pydantic import Field

from marginbench.methods.base import Case, Needs, PairBatch, PairLoss, State
from marginbench.methods.curriculum import PairParams
from marginbench.methods.formulas import Reduction, chosen_nll, sigmoid_loss


class Params(PairParams):
    """Parameters of CPO."""

    beta: float = Field(0.1, gt=0, description="Scale of the log-probability margin, per nat.")
    label_smoothing: float = Field(0.0, ge=0, lt=0.5, description="Assumed probability that a label is wrong.")
    sft_weight: float = Field(1.0, ge=0, description="Weight of the SFT term; 1 in the paper.")
    sft_reduction: Reduction = Field("sum", description="SFT term summed over tokens (paper) or per token (code).")


VARIANTS = {"cpo_released": {"sft_reduction": "mean"}}


def needs(params: Params) -> Needs:
    """The policy; the lengths only for an SFT term per token."""
    return Needs(lengths=params.sft_reduction == "mean")


def loss(batch: PairBatch, params: Params, state: State | None = None) -> PairLoss:
    """Loss of every pair; see the module's formula."""
    preference = sigmoid_loss(params.beta * (batch.chosen_logp - batch.rejected_logp), params.label_smoothing)
    return PairLoss(preference + params.sft_weight * chosen_nll(batch, params.sft_reduction))


_PAIRS = {
    "chosen_logp": [-40.0, -55.0],
    "rejected_logp": [-60.0, -50.0],
    "chosen_len": [20, 22],
    "rejected_len": [25, 24],
}  # beta (difference) = 2, -0.5

EXAMPLE = (
    Case({}, [_PAIRS], [[40.126928011042974, 55.974076984180105]]),
    Case({"sft_reduction": "mean"}, [_PAIRS], [[2.1269280110429727, 3.4740769841801067]]),
)
