"""SimPO (Meng et al. 2024, arXiv 2405.14734): no reference, log-probabilities per token, a target margin.

The loss of a pair is

    -log sigma(beta (log pi(chosen) / |chosen| - log pi(rejected) / |rejected|) - gamma),

in the paper's letters. Its authors' code and tables give the ratio gamma / beta (0.5 with beta = 2 for Llama-3 base
models), TRL's CPOTrainer (`simpo`) gives gamma: both names are parameters here, and one of the two may be set,
gamma = `gamma_beta_ratio` x `beta`. `label_smoothing` is the authors' code's.
"""

from collections.abc import Mapping
from typing import Any

from pydantic import Field, model_validator

from marginbench.methods.base import Case, Needs, PairBatch, PairLoss, State
from marginbench.methods.curriculum import PairParams
from marginbench.methods.formulas import simpo_loss


class Params(PairParams):
    """Parameters of SimPO."""

    beta: float = Field(2.0, gt=0, description="Scale of the reward, per nat and token.")
    gamma_beta_ratio: float | None = Field(
        0.5, ge=0, description="Target margin over beta, in nats per token; null where gamma is given."
    )
    gamma: float | None = Field(None, ge=0, description="Target margin, in units of the reward; in place of the ratio.")
    label_smoothing: float = Field(0.0, ge=0, lt=0.5, description="Assumed probability that a label is wrong.")

    @model_validator(mode="before")
    @classmethod
    def _one_margin(cls, data: Any) -> Any:
        if not isinstance(data, Mapping) or data.get("gamma") is None:
            return data
        if data.get("gamma_beta_ratio") is not None:
            raise ValueError("`gamma` and `gamma_beta_ratio` are two ways to say the same; give one of the two")
        return {**data, "gamma_beta_ratio": None}

    @model_validator(mode="after")
    def _some_margin(self) -> "Params":
        if self.gamma is None and self.gamma_beta_ratio is None:
            raise ValueError("`gamma` and `gamma_beta_ratio` are both null; give one of the two")
        return self

    @property
    def ratio(self) -> float:
        """gamma / beta, whichever way it was given."""
        return self.gamma_beta_ratio if self.gamma is None else self.gamma / self.beta


def needs(params: Params) -> Needs:
    """The lengths; no reference."""
    return Needs(lengths=True)


def loss(batch: PairBatch, params: Params, state: State | None = None) -> PairLoss:
    """Loss of every pair; see the module's formula."""
    return PairLoss(simpo_loss(batch, params.beta, params.ratio, params.label_smoothing))


_PAIRS = {
    "chosen_logp": [-40.0, -60.0, -30.0],
    "rejected_logp": [-50.0, -50.0, -24.0],
    "chosen_len": [20, 30, 10],
    "rejected_len": [20, 20, 12],
}  # per token -2, -2, -3 against -2.5, -2.5, -2: differences 0.5, 0.5, -1

EXAMPLE = (
    Case({}, [_PAIRS], [[0.6931471805599453, 0.6931471805599453, 3.048587351573742]]),  # -log sigma(0), (0), (-3)
    Case({"beta": 2.0, "gamma": 3.0}, [_PAIRS], [[2.1269280110429727, 2.1269280110429727, 5.006715348489118]]),
)  # -log sigma(-2), (-2), (-5)
