"""DPO-positive (Pal et al. 2024, arXiv 2402.13228, "Smaug"): DPO that holds up the chosen answer.

DPO may lower the probability of both answers as long as the rejected one falls faster. DPOP takes a penalty off the
margin when the chosen answer has become less likely than under the reference: with DPO's log-ratio margin g the loss of
a pair is

    -log sigma(beta (g - lam max(0, log ref(chosen) - log pi(chosen)))).

The penalty stands inside the logarithm, and inside beta. Defaults are the paper's (beta 0.3, lam 50); MixDPO's authors
compare with beta 0.01, lam 5. Not in TRL. At policy = reference the penalty has a kink of height lam: its slope counts
from a thousandth of a nat on, so that rounding errors do not decide about the first step.
"""

from pydantic import Field

from marginbench.methods.base import Case, Needs, PairBatch, PairLoss, State
from marginbench.methods.curriculum import PairParams
from marginbench.methods.formulas import ROUNDING, log_ratios, sigmoid_loss


class Params(PairParams):
    """Parameters of DPOP."""

    beta: float = Field(0.3, gt=0, description="DPO's beta, per nat.")
    lam: float = Field(50.0, ge=0, description="Weight of the penalty, in nats of margin per nat; 0 is DPO.")


def needs(params: Params) -> Needs:
    """The reference's log-probabilities."""
    return Needs(reference=True)


def loss(batch: PairBatch, params: Params, state: State | None = None) -> PairLoss:
    """Loss of every pair; see the module's formula."""
    chosen, rejected = log_ratios(batch)
    loss_of_chosen = -chosen
    penalty = loss_of_chosen.where(loss_of_chosen > ROUNDING, loss_of_chosen.relu().detach())
    return PairLoss(
        sigmoid_loss(params.beta * (chosen - rejected - params.lam * penalty)), logs={"penalty": penalty.detach()}
    )


_PAIRS = {
    "chosen_logp": [-40.0, -55.5, -30.25],
    "rejected_logp": [-60.0, -50.0, -30.25],
    "ref_chosen_logp": [-42.0, -54.0, -31.25],
    "ref_rejected_logp": [-57.0, -51.0, -29.25],
}  # g = 5, -2.5, 2; the chosen answer lost 0, 1.5, 0 nats

EXAMPLE = (
    Case(
        {"beta": 0.1, "lam": 5.0},  # -log sigma(0.5), (-1), (0.2)
        [_PAIRS],
        [[0.4740769841801067, 1.3132616875182228, 0.5981388693815918]],
    ),
)
