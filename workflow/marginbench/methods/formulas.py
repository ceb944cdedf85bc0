"""Formulas that more than one method uses; each stands here once.

Tensors have shape (pairs,), log-probabilities are in nats. Importable without torch, like the methods themselves.
"""

import math
from typing import TYPE_CHECKING, Literal

from marginbench.methods.base import PairBatch

if TYPE_CHECKING:
    from torch import Tensor

Reduction = Literal["mean", "sum"]

ROUNDING = 1e-3
"""Log-ratios below this, in nats, are not told from 0 by a rule that jumps: sums in float32 are good to about 1e-5.

At policy = reference all log-ratios are such rounding errors, and they differ with the size of micro-batches.
"""


def log_ratios(batch: PairBatch) -> tuple["Tensor", "Tensor"]:
    """log pi - log ref of the chosen and of the rejected answers, summed over tokens."""
    return batch.chosen_logp - batch.ref_chosen_logp, batch.rejected_logp - batch.ref_rejected_logp


def sigmoid_loss(z: "Tensor", label_smoothing: float = 0.0) -> "Tensor":
    """-(1 - eps) log sigma(z) - eps log sigma(-z); eps = 0 is one term, so that its bits are those of plain DPO."""
    from torch.nn.functional import logsigmoid

    if label_smoothing == 0:
        return -logsigmoid(z)
    return -(1 - label_smoothing) * logsigmoid(z) - label_smoothing * logsigmoid(-z)


def squared_loss(margin: "Tensor", beta: float) -> "Tensor":
    """IPO's (margin - 1 / (2 beta))^2."""
    return (margin - 1 / (2 * beta)) ** 2


def simpo_loss(batch: PairBatch, beta: float, gamma_beta_ratio: float, label_smoothing: float = 0.0) -> "Tensor":
    """SimPO's -log sigma(beta (chosen per token - rejected per token - gamma / beta)); no reference."""
    margin = batch.chosen_logp / batch.chosen_len - batch.rejected_logp / batch.rejected_len
    return sigmoid_loss(beta * (margin - gamma_beta_ratio), label_smoothing)


def chosen_nll(batch: PairBatch, reduction: Reduction = "mean") -> "Tensor":
    """-log pi(chosen): the mean over the answer's tokens, or their sum."""
    return -batch.chosen_logp / batch.chosen_len if reduction == "mean" else -batch.chosen_logp


def log_odds(mean_logp: "Tensor") -> "Tensor":
    """log(p / (1 - p)) for p = exp(mean_logp); stable for p near 0 and near 1.

    The odds of p = 1 are infinite: p counts as 1 - epsilon of the precision where it is above that.
    """
    import torch

    mean_logp = mean_logp.clamp(max=-torch.finfo(mean_logp.dtype).eps)
    half = -math.log(2)
    near_one = torch.log(-torch.expm1(mean_logp.clamp(min=half)))
    near_zero = torch.log1p(-torch.exp(mean_logp.clamp(max=half)))
    return mean_logp - torch.where(mean_logp > half, near_one, near_zero)
