"""ORPO (Hong et al. 2024, arXiv 2403.07691): SFT with an odds ratio, no reference.

With p = exp(log pi(y) / |y|), the geometric mean probability of an answer's tokens, and odds = p / (1 - p), the loss of
a pair is

    -log pi(chosen) / |chosen| - lam log sigma(log odds(chosen) - log odds(rejected)).

`lam` is the paper's lambda, which TRL's ORPOTrainer calls `beta` (0.1 in the Mistral runs). The authors' code and TRL
take the first term over the tokens of prompt and answer, and average it over all tokens of the batch; here, as in the
paper's equation, it is the answer's, and every pair counts the same.
"""

from pydantic import Field

from marginbench.methods.base import Case, Needs, PairBatch, PairLoss, State
from marginbench.methods.curriculum import PairParams
from marginbench.methods.formulas import chosen_nll, log_odds, sigmoid_loss


class Params(PairParams):
    """Parameters of ORPO."""

    lam: float = Field(0.1, ge=0, description="Weight of the odds-ratio term; TRL calls it beta.")


def needs(params: Params) -> Needs:
    """The lengths; no reference."""
    return Needs(lengths=True)


def loss(batch: PairBatch, params: Params, state: State | None = None) -> PairLoss:
    """Loss of every pair; see the module's formula."""
    chosen = log_odds(batch.chosen_logp / batch.chosen_len)
    rejected = log_odds(batch.rejected_logp / batch.rejected_len)
    ratio = chosen - rejected
    return PairLoss(chosen_nll(batch) + params.lam * sigmoid_loss(ratio), logs={"log_odds_ratio": ratio.detach()})


_LN2, _LN4 = 0.6931471805599453, 1.3862943611198906

_PAIRS = {
    "chosen_logp": [-20 * _LN2, -10 * _LN4],
    "rejected_logp": [-10 * _LN4, -30 * _LN2],
    "chosen_len": [20, 10],
    "rejected_len": [10, 30],
}  # p = 1/2 (odds 1) and 1/4 (odds 1/3): the odds ratio is 3 and 1/3, sigma(log 3) = 3/4, sigma(-log 3) = 1/4

EXAMPLE = (
    Case({"lam": 0.1}, [_PAIRS], [[0.7219153878051734, 1.5249237972318797]]),  # ln 2 + 0.1 ln 4/3, ln 4 + 0.1 ln 4
    Case({"lam": 1.0}, [_PAIRS], [[0.9808292530117262, 2.772588722239781]]),
)
