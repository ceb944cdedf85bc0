"""Direct preference optimisation (Rafailov et al. 2023, arXiv 2305.18290, equation 7).

The policy is its own reward model. With
g = (log pi(chosen) - log ref(chosen)) - (log pi(rejected) - log ref(rejected)), log-probabilities summed over the
answer's tokens, the loss of a pair is

    -(1 - eps) log sigma(beta g) - eps log sigma(-beta g).

eps = 0 is the paper; eps > 0 is conservative DPO (labels are wrong with probability eps), as in the authors' code. The
authors' code and TRL's `sigmoid` agree with the paper. At policy = reference the loss is ln 2 for every beta and eps.

Variants: `cdpo` (eps = 0.1); and controls for methods that use margins: `dpo_sorted` (easy to hard, nothing else),
`dpo_easy_only` (MixDPO without its hard pairs), `dpo_drop_contradicted` (pairs with a negative margin dropped, the part
of MADPO that removes labels which the reward model contradicts).
"""

from pydantic import Field

from marginbench.methods.base import Case, Needs, PairBatch, PairLoss, State, log_ratio_margin
from marginbench.methods.curriculum import PairParams
from marginbench.methods.formulas import sigmoid_loss


class Params(PairParams):
    """Parameters of DPO."""

    beta: float = Field(0.1, gt=0, description="Strength of the KL constraint, per nat; the reward is beta times g.")
    label_smoothing: float = Field(0.0, ge=0, lt=0.5, description="Assumed probability eps that a label is wrong.")


VARIANTS = {
    "cdpo": {"label_smoothing": 0.1},
    "dpo_sorted": {"order": "margin_desc"},
    "dpo_easy_only": {"order": "margin_desc", "keep": "easy"},
    "dpo_drop_contradicted": {"keep": "easy", "keep_tau": 0.0},
}


def needs(params: Params) -> Needs:
    """The reference's log-probabilities, nothing else."""
    return Needs(reference=True)


def loss(batch: PairBatch, params: Params, state: State | None = None) -> PairLoss:
    """Loss of every pair; see the module's formula."""
    return PairLoss(sigmoid_loss(params.beta * log_ratio_margin(batch), params.label_smoothing))


_PAIRS = {
    "chosen_logp": [-40.0, -55.5, -30.25],
    "rejected_logp": [-60.0, -50.0, -30.25],
    "ref_chosen_logp": [-42.0, -54.0, -31.25],
    "ref_rejected_logp": [-57.0, -51.0, -29.25],
}  # g = 5, -2.5, 2

EXAMPLE = (
    Case({"beta": 0.1}, [_PAIRS], [[0.4740769841801067, 0.8259394198788435, 0.5981388693815918]]),
    Case({"beta": 0.5}, [_PAIRS], [[0.07888973429254963, 1.501929081345373, 0.31326168751822286]]),
    Case(
        {"beta": 0.1, "label_smoothing": 0.1},
        [_PAIRS],
        [[0.5240769841801067, 0.8009394198788435, 0.6181388693815918]],
    ),
)
