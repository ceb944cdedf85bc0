"""SFT on the chosen answers ("preferred-FT" in Rafailov et al. 2023, arXiv 2305.18290, section 6).

The control that uses no rejected answer. The loss of a pair is the negative log-likelihood of its chosen answer, by
default per token, so that every pair counts the same:

    -log pi(chosen) / |chosen|.

The SFT start itself is trained otherwise (the mean over all tokens of a batch, on texts and not on pairs). MixDPO with
every pair hard gives this loss. Variant: `sft_hard_only`, on the pairs below MixDPO's threshold alone.
"""

from pydantic import Field

from marginbench.methods.base import Case, Needs, PairBatch, PairLoss, State
from marginbench.methods.curriculum import PairParams
from marginbench.methods.formulas import Reduction, chosen_nll


class Params(PairParams):
    """Parameters of SFT."""

    reduction: Reduction = Field("mean", description="Mean over the answer's tokens, or their sum.")


VARIANTS = {"sft_hard_only": {"keep": "hard"}}


def needs(params: Params) -> Needs:
    """The policy; the lengths only for `reduction: mean`."""
    return Needs(lengths=params.reduction == "mean")


def loss(batch: PairBatch, params: Params, state: State | None = None) -> PairLoss:
    """Loss of every pair; see the module's formula."""
    return PairLoss(chosen_nll(batch, params.reduction))


_PAIRS = {"chosen_logp": [-120.0, -305.0], "rejected_logp": [-135.0, -300.0], "chosen_len": [80, 244]}

EXAMPLE = (
    Case({}, [_PAIRS], [[1.5, 1.25]]),
    Case({"reduction": "sum"}, [_PAIRS], [[120.0, 305.0]]),
)
