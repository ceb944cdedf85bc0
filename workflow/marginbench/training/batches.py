"""Which pairs meet in which optimiser batch, and how a batch of token lists becomes tensors."""

from collections.abc import Sequence
from typing import Any

import numpy as np
import torch
from torch import Tensor
from trl.trainer.dpo_trainer import DataCollatorForPreference

from marginbench.identity import stream
from marginbench.study import Optimisation
from marginbench.training.optimisation import optimiser_steps, steps_per_epoch


def training_order(
    opt: Optimisation, positions: Sequence[int] | np.ndarray, dataset_id: str, seed: int, *, fixed: bool = False
) -> np.ndarray:
    """Positions of the pairs in the order they are trained on, all epochs in one row, shape (steps x batch_size,).

    Args:
        positions: the pairs of one pass.
        dataset_id, seed: the only axes of the shuffle; every method sees the same order. Every epoch has its own.
        fixed: take `positions` as they stand in every epoch (a method's own order).

    The last partial batch of every epoch is dropped.
    """
    positions = np.asarray(positions, dtype=np.int64)
    steps = optimiser_steps(opt, len(positions))
    if steps == 0:
        return positions[:0]
    per_epoch = steps_per_epoch(opt, len(positions)) * opt.batch_size
    wanted = steps * opt.batch_size
    epochs = []
    for epoch in range(-(-wanted // per_epoch)):
        order = positions if fixed else stream("data_order", dataset_id, seed, epoch).permutation(positions)
        epochs.append(order[:per_epoch])
    return np.concatenate(epochs)[:wanted]


def in_training_order(gathered: Tensor, count: int, micro_batch_size: int) -> Tensor:
    """Values of one optimiser batch, gathered process by process, as one process would have them, shape (pairs,).

    Micro-batches are dealt out in turn (accelerate's BatchSamplerShard): the j-th of process r is number
    j x count + r of the step. So a step holds the same pairs, in the same order, for any number of processes.
    """
    return gathered.view(count, -1, micro_batch_size).transpose(0, 1).reshape(-1)


class PairCollator(DataCollatorForPreference):
    """TRL's collator (chosen rows, then rejected rows, padded right) with further per-pair numbers carried along.

    `row` (position of the pair) becomes a long tensor, every name in `extra` a float tensor, both of shape (pairs,).
    """

    def __init__(self, pad_token_id: int, extra: Sequence[str] = ()) -> None:
        super().__init__(pad_token_id=pad_token_id)
        self.extra = tuple(extra)

    def torch_call(self, examples: list[dict[str, Any]]) -> dict[str, Any]:
        """One batch of tensors from a list of rows."""
        batch = super().torch_call(examples)
        batch["row"] = torch.tensor([example["row"] for example in examples], dtype=torch.long)
        for name in self.extra:
            batch[name] = torch.tensor([example[name] for example in examples], dtype=torch.float32)
        return batch
