"""Robust DPO (Chowdhury et al. 2024, arXiv 2403.00409): an unbiased estimate under random label flips.

If labels are flipped with probability eps, the average of this loss over flips is DPO's loss on the true labels. With
DPO's log-ratio margin g the loss of a pair is

    [-(1 - eps) log sigma(beta g) + eps log sigma(-beta g)] / (1 - 2 eps).

It has no lower bound: for large g it falls like -eps beta g / (1 - 2 eps). Conservative DPO (`cdpo`) adds the second
term instead, is bounded, and is biased. TRL's `robust` is the same formula.
"""

from pydantic import Field

from marginbench.methods.base import Case, Needs, PairBatch, PairLoss, State, log_ratio_margin
from marginbench.methods.curriculum import PairParams
from marginbench.methods.formulas import sigmoid_loss


class Params(PairParams):
    """Parameters of robust DPO."""

    beta: float = Field(0.1, gt=0, description="DPO's beta, per nat.")
    label_smoothing: float = Field(0.1, ge=0, lt=0.5, description="Probability eps that a label is flipped.")


def needs(params: Params) -> Needs:
    """The reference's log-probabilities."""
    return Needs(reference=True)


def loss(batch: PairBatch, params: Params, state: State | None = None) -> PairLoss:
    """Loss of every pair; see the module's formula."""
    z, eps = params.beta * log_ratio_margin(batch), params.label_smoothing
    if eps == 0:
        return PairLoss(sigmoid_loss(z))
    return PairLoss(((1 - eps) * sigmoid_loss(z) - eps * sigmoid_loss(-z)) / (1 - 2 * eps))


_PAIRS = {
    "chosen_logp": [-40.0, -55.5, -30.25],
    "rejected_logp": [-60.0, -50.0, -30.25],
    "ref_chosen_logp": [-42.0, -54.0, -31.25],
    "ref_rejected_logp": [-57.0, -51.0, -29.25],
}  # g = 5, -2.5, 2; -log sigma(-z) = -log sigma(z) + z, so the loss is -log sigma(z) - eps z / (1 - 2 eps)

EXAMPLE = (Case({}, [_PAIRS], [[0.4115769841801067, 0.8571894198788435, 0.5731388693815918]]),)
