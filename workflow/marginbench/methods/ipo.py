"""Identity preference optimisation (Azar et al. 2024, arXiv 2310.12036, equation 17).

DPO's logarithm is replaced by a square, so that a pair's margin is drawn to a target and not beyond it: with
g = (log pi(chosen) - log ref(chosen)) - (log pi(rejected) - log ref(rejected)), the loss of a pair is

    (g - 1 / (2 beta))^2,

where `beta` is the paper's tau. Public code gives two different losses this name. `reduction: sum` takes g from
log-probabilities summed over tokens, as the paper's text, the DPO authors' code and MADPO's do; `reduction: mean`
divides each log-ratio by its answer's length first, as TRL's DPOTrainer does (its source says that the IPO authors
confirmed it), so that the target is in nats per token. One beta means different things in the two: tune separately.

Variants: `ipo_sum`, `ipo_avg`, the two by name.
"""

from pydantic import Field

from marginbench.methods.base import Case, Needs, PairBatch, PairLoss, State, log_ratio_margin
from marginbench.methods.curriculum import PairParams
from marginbench.methods.formulas import Reduction, log_ratios, squared_loss


class Params(PairParams):
    """Parameters of IPO."""

    beta: float = Field(0.1, gt=0, description="The paper's tau, per nat (sum) or per nat and token (mean).")
    reduction: Reduction = Field(
        "sum", description="Log-ratios summed over tokens (the paper's text) or averaged (TRL)."
    )


VARIANTS = {"ipo_sum": {"reduction": "sum"}, "ipo_avg": {"reduction": "mean"}}


def needs(params: Params) -> Needs:
    """The reference's log-probabilities; the lengths only for `reduction: mean`."""
    return Needs(reference=True, lengths=params.reduction == "mean")


def loss(batch: PairBatch, params: Params, state: State | None = None) -> PairLoss:
    """Loss of every pair; see the module's formula."""
    if params.reduction == "sum":
        margin = log_ratio_margin(batch)
    else:
        chosen, rejected = log_ratios(batch)
        margin = chosen / batch.chosen_len - rejected / batch.rejected_len
    return PairLoss(squared_loss(margin, params.beta), logs={"ipo_margin": margin.detach()})


_PAIRS = {
    "chosen_logp": [-40.0, -55.5, -30.25],
    "rejected_logp": [-60.0, -50.0, -30.25],
    "ref_chosen_logp": [-42.0, -54.0, -31.25],
    "ref_rejected_logp": [-57.0, -51.0, -29.25],
    "chosen_len": [20, 30, 11],
    "rejected_len": [25, 24, 13],
}  # g = 5, -2.5, 2; per token 0.22, -0.091667, 0.167832

EXAMPLE = (
    Case({"beta": 0.1, "reduction": "sum"}, [_PAIRS], [[0.0, 56.25, 9.0]]),
    Case({"beta": 0.5, "reduction": "sum"}, [_PAIRS], [[16.0, 12.25, 1.0]]),
    Case({"beta": 0.1, "reduction": "mean"}, [_PAIRS], [[22.8484, 25.925069444444446, 23.349845958237566]]),
    Case({"beta": 0.5, "reduction": "mean"}, [_PAIRS], [[0.6084, 1.1917361111111111, 0.6925033008949093]]),
)
