"""Cal-DPO (Xiao et al. 2024, arXiv 2412.14516): DPO whose implicit rewards are pulled to a scale.

With r = log pi - log ref of an answer, summed over tokens, the loss of a pair is

    -log sigma(r_chosen - r_rejected) + calibration_weight [(r_chosen - 1/(2 beta))^2 + (r_rejected + 1/(2 beta))^2].

There is no beta in the logarithm; it sets the targets, +-1/(2 beta) nats. The paper's weight is 1; MixDPO's authors
compare with 1/2. The squares alone are TRL's `sppo_hard`. The default beta is ours: 1/(2 beta) must be a distance, in
nats, that an answer can move.
"""

from pydantic import Field

from marginbench.methods.base import Case, Needs, PairBatch, PairLoss, State
from marginbench.methods.curriculum import PairParams
from marginbench.methods.formulas import log_ratios, sigmoid_loss, squared_loss


class Params(PairParams):
    """Parameters of Cal-DPO."""

    beta: float = Field(0.1, gt=0, description="Sets the targets, +-1/(2 beta) nats.")
    calibration_weight: float = Field(1.0, ge=0, description="Weight of the squares; 0 is DPO with beta 1.")


def needs(params: Params) -> Needs:
    """The reference's log-probabilities."""
    return Needs(reference=True)


def loss(batch: PairBatch, params: Params, state: State | None = None) -> PairLoss:
    """Loss of every pair; see the module's formula."""
    chosen, rejected = log_ratios(batch)
    squares = squared_loss(chosen, params.beta) + squared_loss(-rejected, params.beta)
    return PairLoss(sigmoid_loss(chosen - rejected) + params.calibration_weight * squares)


_PAIRS = {
    "chosen_logp": [-40.0, -55.0],
    "rejected_logp": [-60.0, -50.0],
    "ref_chosen_logp": [-42.0, -54.0],
    "ref_rejected_logp": [-57.0, -51.0],
}  # r = 2, -1 and -3, 1: log-sigmoids of 5, -2; squares with targets 5, -5: 9 + 4, 36 + 36

EXAMPLE = (
    Case({}, [_PAIRS], [[13.006715348489118, 74.12692801104297]]),
    Case({"calibration_weight": 0.5}, [_PAIRS], [[6.506715348489118, 38.12692801104297]]),
)
