"""DPO+NLL (Pang et al. 2024, arXiv 2404.19733, "Iterative reasoning preference optimization"), also RPO.

DPO with the negative log-likelihood of the chosen answer beside it. With DPO's log-ratio margin g the loss of a pair is

    -log sigma(beta g) - sft_weight log pi(chosen) / |chosen|.

The paper's weight is 1 with beta = 0.1; its answers are a chain of thought and a result together, which the length
counts. In TRL it is `loss_type: [sigmoid, sft]`, whose second term is a mean over all tokens of the batch. MixDPO's
authors compare with a version that has no beta (1) and divides by the length of prompt and answer.
"""

from pydantic import Field

from marginbench.methods.base import Case, Needs, PairBatch, PairLoss, State, log_ratio_margin
from marginbench.methods.curriculum import PairParams
from marginbench.methods.formulas import chosen_nll, sigmoid_loss


class Params(PairParams):
    """Parameters of DPO+NLL."""

    beta: float = Field(0.1, gt=0, description="DPO's beta, per nat.")
    label_smoothing: float = Field(0.0, ge=0, lt=0.5, description="Assumed probability that a label is wrong.")
    sft_weight: float = Field(1.0, ge=0, description="Weight of the SFT term; 0 is DPO.")


def needs(params: Params) -> Needs:
    """The reference's log-probabilities, and the lengths."""
    return Needs(reference=True, lengths=True)


def loss(batch: PairBatch, params: Params, state: State | None = None) -> PairLoss:
    """Loss of every pair; see the module's formula."""
    preference = sigmoid_loss(params.beta * log_ratio_margin(batch), params.label_smoothing)
    nll = chosen_nll(batch)
    logs = {"loss_pref": preference.detach(), "loss_sft": params.sft_weight * nll.detach()}
    return PairLoss(preference + params.sft_weight * nll, logs=logs)


_PAIRS = {
    "chosen_logp": [-40.0, -55.5, -30.25],
    "rejected_logp": [-60.0, -50.0, -30.25],
    "ref_chosen_logp": [-42.0, -54.0, -31.25],
    "ref_rejected_logp": [-57.0, -51.0, -29.25],
    "chosen_len": [20, 30, 11],
    "rejected_len": [25, 24, 13],
}  # g = 5, -2.5, 2; per token 2, 1.85, 2.75

EXAMPLE = (
    Case({}, [_PAIRS], [[2.4740769841801067, 2.6759394198788435, 3.3481388693815918]]),
    Case({"sft_weight": 0.2}, [_PAIRS], [[0.8740769841801067, 1.1959394198788435, 1.1481388693815918]]),
)
