"""What a method file is made of: the types that every `methods/<name>.py` uses. Importable without torch.

A method file holds, at module level:

- a docstring: paper, equation, what differs from DPO, and where public code deviates from the paper;
- `Params`: a subclass of `MethodParams` with a description and bounds on every field;
- `needs(params) -> Needs`: the inputs that the loss reads; rules wait only for those;
- `loss(batch, params, state) -> PairLoss`: a pure function of tensors;
- `EXAMPLE`: a tuple of `Case`, small enough to check by hand;
- if needed, `plan(margins, params) -> Plan` (columns, filter and order made once from the margins of all pairs),
  `initial_state(params) -> dict` (what must survive a checkpoint), and
- `VARIANTS`: names of the same formula with other parameters, usable wherever a method's name is.

Methods of labelled pairs take their `Params` from `curriculum.PairParams`, and so can be sorted, filtered, or given
another pair's margins without a line of their own.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

import numpy as np
from pydantic import BaseModel, ConfigDict

if TYPE_CHECKING:
    from torch import Tensor

State = dict[str, float]
"""What a stateful method carries from one optimiser batch to the next. Floats, so that JSON keeps them exactly."""


class MethodParams(BaseModel):
    """Base of every method's `Params`: frozen, unknown keys refused, no infinities and no NaN."""

    model_config = ConfigDict(extra="forbid", frozen=True, allow_inf_nan=False)


@dataclass(frozen=True)
class Needs:
    """What the loss of a method reads beside the policy's log-probabilities.

    Attributes:
        reference: log-probabilities of the frozen reference.
        lengths: token counts of the answers.
        margins: a scorer's margin for every pair.
        order: the training order comes from the method's plan, not from the seeded shuffle.
        whole_batch: the loss of a pair depends on the other pairs of the optimiser batch.
        state: something is carried from batch to batch (implies whole_batch).
        draws: random draws, keyed by (seed, step, pair_id).
    """

    reference: bool = False
    lengths: bool = False
    margins: bool = False
    order: bool = False
    whole_batch: bool = False
    state: bool = False
    draws: bool = False

    def __post_init__(self) -> None:
        if self.state and not self.whole_batch:
            raise ValueError("a method with state needs the whole optimiser batch: set whole_batch=True")


@dataclass(frozen=True)
class PairBatch:
    """Pairs that a loss is computed on. Tensors have shape (pairs,); log-probabilities are sums over tokens, in nats.

    Attributes:
        chosen_logp, rejected_logp: under the policy; the only tensors that carry a gradient.
        ref_chosen_logp, ref_rejected_logp: under the frozen reference; None if there is none.
        chosen_len, rejected_len: tokens that were summed over.
        margin: the scorer's margin, chosen minus rejected, signed; None if no scorer is used.
        columns: columns made by the method's `plan`.
        pair_ids: content hashes of the pairs, for draws.
        seed, step: training seed and optimiser step (from 1), for draws.
        kept: positions of the pairs that a method's draw keeps, given from outside; None lets the method draw.
        micro_batch_size: pairs of one forward pass, in the order of the batch; None if the batch was one pass. Only
            for methods whose public code takes statistics of micro-batches.
    """

    chosen_logp: "Tensor"
    rejected_logp: "Tensor"
    ref_chosen_logp: "Tensor | None" = None
    ref_rejected_logp: "Tensor | None" = None
    chosen_len: "Tensor | None" = None
    rejected_len: "Tensor | None" = None
    margin: "Tensor | None" = None
    columns: Mapping[str, "Tensor"] = field(default_factory=dict)
    pair_ids: Sequence[str] = ()
    seed: int = 0
    step: int = 1
    kept: Sequence[int] | None = None
    micro_batch_size: int | None = None


@dataclass(frozen=True)
class PairLoss:
    """What a loss gives back.

    Attributes:
        per_pair: loss of every pair, shape (pairs,).
        logs: quantities for the training log: shape (pairs,), logged as their mean, or no dimension.
        state: the state after this batch; None for a method without state.
        kept: positions of the pairs that the batch's loss is the mean over; None for all.
    """

    per_pair: "Tensor"
    logs: Mapping[str, "Tensor"] = field(default_factory=dict)
    state: State | None = None
    kept: Sequence[int] | None = None

    def mean(self) -> "Tensor":
        """The loss of the batch: the mean over the kept pairs."""
        return (self.per_pair if self.kept is None else self.per_pair[list(self.kept)]).mean()


@dataclass(frozen=True)
class Plan:
    """What a method decides once, from the margins of all training pairs.

    Attributes:
        columns: per-pair values, shape (pairs,), handed to the loss as `batch.columns`.
        keep: pairs that are trained on, boolean, shape (pairs,); None keeps all.
        order: positions of the pairs in training order, the same in every epoch; None shuffles by (dataset, seed).
        phase: number of the phase of training that each pair belongs to, from 0, shape (pairs,). Every phase then has a
            learning-rate schedule of its own; a step belongs to the last phase among its pairs. None: one phase.
    """

    columns: Mapping[str, np.ndarray] = field(default_factory=dict)
    keep: np.ndarray | None = None
    order: np.ndarray | None = None
    phase: np.ndarray | None = None


@dataclass(frozen=True)
class Case:
    """A worked example: parameters, optimiser batches in order, and the losses that they must give.

    Attributes:
        params: parameters of the method.
        batches: mappings from field names of `PairBatch` to lists.
        losses: per batch, the loss of every pair.
        means: per batch, the loss of the batch; needed only where it is not the mean of `losses`.
    """

    params: Mapping[str, Any]
    batches: Sequence[Mapping[str, Sequence[Any]]]
    losses: Sequence[Sequence[float]]
    means: Sequence[float] | None = None


def planned(batch: PairBatch, name: str) -> "Tensor":
    """A column that the method's `plan` made. Raises ValueError where it is absent: no plan, or no margins, was given.

    There is no fall-back on purpose: MixDPO's released code takes a missing margin for 1, and silently becomes DPO.
    """
    if name not in batch.columns:
        raise ValueError(f"the batch lacks the column `{name}`, which is planned from the margins; margins are missing")
    return batch.columns[name]


def log_ratio_margin(batch: PairBatch) -> "Tensor":
    """Log-ratio of chosen minus log-ratio of rejected, in nats, shape (pairs,): g in the DPO papers, without beta."""
    return (batch.chosen_logp - batch.ref_chosen_logp) - (batch.rejected_logp - batch.ref_rejected_logp)
