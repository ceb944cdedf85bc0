"""R-DPO (Park et al. 2024, arXiv 2403.19159): DPO with a penalty on length.

The reward that is maximised loses alpha for every token, so that the margin of the optimal policy's implicit reward is
beta g + alpha (|chosen| - |rejected|). With DPO's log-ratio margin g the loss of a pair is

    -log sigma(beta g + alpha (|chosen| - |rejected|)):

a pair whose chosen answer is the longer one is partly explained by length, and pulls less. The sign is the paper's;
alpha has no default there that we could find, and the one here is ours. Not in TRL.
"""

from pydantic import Field

from marginbench.methods.base import Case, Needs, PairBatch, PairLoss, State, log_ratio_margin
from marginbench.methods.curriculum import PairParams
from marginbench.methods.formulas import sigmoid_loss


class Params(PairParams):
    """Parameters of R-DPO."""

    beta: float = Field(0.1, gt=0, description="DPO's beta, per nat.")
    alpha: float = Field(0.01, ge=0, description="Penalty per token; 0 is DPO.")


def needs(params: Params) -> Needs:
    """The reference's log-probabilities, and the lengths."""
    return Needs(reference=True, lengths=True)


def loss(batch: PairBatch, params: Params, state: State | None = None) -> PairLoss:
    """Loss of every pair; see the module's formula."""
    longer = batch.chosen_len - batch.rejected_len
    return PairLoss(sigmoid_loss(params.beta * log_ratio_margin(batch) + params.alpha * longer))


_PAIRS = {
    "chosen_logp": [-40.0, -55.5, -30.25],
    "rejected_logp": [-60.0, -50.0, -30.25],
    "ref_chosen_logp": [-42.0, -54.0, -31.25],
    "ref_rejected_logp": [-57.0, -51.0, -29.25],
    "chosen_len": [25, 30, 11],
    "rejected_len": [20, 25, 31],
}  # g = 5, -2.5, 2; longer by 5, 5, -20

EXAMPLE = (
    Case(
        {"beta": 0.1, "alpha": 0.05},  # -log sigma(0.75), (0), (-0.8)
        [_PAIRS],
        [[0.38687100611489994, 0.6931471805599453, 1.1711006659477777]],
    ),
)
