"""KTO on pairs (Ethayarajh et al. 2024, arXiv 2402.01306): each answer is judged against a reference point.

The chosen answer is a desirable example and the rejected one an undesirable one. With r = log pi - log ref of an answer
and the reference point z, an estimate of KL(policy || reference), the loss of a pair is the mean over its two answers,

    [desirable (1 - sigma(beta (r_chosen - z_rejected))) + undesirable (1 - sigma(beta (z_chosen - r_rejected)))] / 2,

where z_s = max(0, batch mean of r_s): the point for one half of the data is estimated from the other half, as the
authors' report and code for paired data have it. No gradient goes through z (the paper's text; TRL's former
`kto_pair` lets it). The paper's later estimate for unpaired data, from answers put under other prompts, needs a further
forward pass: TRL's KTOTrainer does that, and so differs. The loss is 1/2 at policy = reference, bounded, and the pairs
of a batch depend on each other through z.
"""

from pydantic import Field

from marginbench.methods.base import Case, Needs, PairBatch, PairLoss, State
from marginbench.methods.curriculum import PairParams
from marginbench.methods.formulas import log_ratios


class Params(PairParams):
    """Parameters of KTO."""

    beta: float = Field(0.1, gt=0, description="Scale of the log-ratios, per nat; risk aversion.")
    desirable_weight: float = Field(1.0, gt=0, description="lambda_D, weight of chosen answers.")
    undesirable_weight: float = Field(1.0, gt=0, description="lambda_U, weight of rejected answers.")


def needs(params: Params) -> Needs:
    """The reference, and the whole batch for the reference points."""
    return Needs(reference=True, whole_batch=True)


def loss(batch: PairBatch, params: Params, state: State | None = None) -> PairLoss:
    """Loss of every pair; see the module's formula."""
    chosen, rejected = log_ratios(batch)
    z_chosen, z_rejected = (ratio.detach().mean().clamp(min=0) for ratio in (chosen, rejected))
    desirable = (params.beta * (z_rejected - chosen)).sigmoid()  # 1 - sigma(x) = sigma(-x)
    undesirable = (params.beta * (rejected - z_chosen)).sigmoid()
    per_pair = (params.desirable_weight * desirable + params.undesirable_weight * undesirable) / 2
    return PairLoss(per_pair, logs={"kl_chosen": z_chosen, "kl_rejected": z_rejected})


_PAIRS = {
    "chosen_logp": [-40.0, -55.5, -30.25],
    "rejected_logp": [-60.0, -50.0, -30.25],
    "ref_chosen_logp": [-42.0, -54.0, -31.25],
    "ref_rejected_logp": [-57.0, -51.0, -29.25],
}  # r = 2, -1.5, 1 and -3, 1, -1: z_chosen = 0.5, z_rejected = 0

EXAMPLE = (
    Case(  # [sigma(-0.2) + sigma(-0.35)] / 2, [sigma(0.15) + sigma(0.05)] / 2, [sigma(-0.1) + sigma(-0.15)] / 2
        {"beta": 0.1},
        [_PAIRS],
        [[0.43177421188509607, 0.52496362091398, 0.4687954835886552]],
    ),
)
