"""Blocks that no adapter touches, computed once: training starts from their hidden states.

With LoRA on the last blocks only, the blocks below give the same hidden states at every step. They are computed once
for every different sequence; then the model is trained without them, fed with those states in place of embeddings.
Losses equal those of the whole model up to float rounding (tests/unit/test_training_frozen.py). Used only where it
fits into memory and where a trial on the first sequences gives the whole model's hidden states.
"""

import contextlib
from collections.abc import Mapping, Sequence
from typing import Any

import torch
from torch import Tensor, nn
from transformers import PreTrainedModel

from marginbench.job import Progress, quiet
from marginbench.study import Lora, Optimisation

MAX_BYTES = 2 * 1024**3
"""Hidden states above this are not kept; the run then goes through all blocks at every step."""

TOLERANCE = 1e-3
"""Largest difference of a hidden state at the top, relative to its size, that the trial accepts."""


class _Reached(Exception):
    """The first trained block is reached: nothing above it needs to be computed."""


class FrozenBlocks:
    """Hidden states at the input of the first trained block, by token sequence, and the blocks that were set aside."""

    def __init__(self, model: PreTrainedModel, trained: int) -> None:
        self.backbone = model.base_model
        self.config = model.config
        self.all = list(self.backbone.layers)
        self.below = len(self.all) - trained
        self.states: dict[tuple[int, ...], Tensor] = {}

    def compute(self, sequences: Sequence[Sequence[int]], batch_size: int = 32, progress: Progress = quiet) -> None:
        """Run the frozen blocks over every different sequence, longest first."""
        unique = sorted({tuple(map(int, ids)) for ids in sequences}, key=lambda ids: (-len(ids), ids))
        for start in range(0, len(unique), batch_size):
            chunk = unique[start : start + batch_size]
            hidden = self._below(*_padded(chunk, next(self.backbone.parameters()).device))
            for ids, state in zip(chunk, hidden, strict=True):
                self.states[ids] = state[: len(ids)].clone()
            progress(start + len(chunk), len(unique), "frozen blocks")

    @torch.no_grad()
    def _below(self, ids: Tensor, mask: Tensor) -> Tensor:
        caught: list[Tensor] = []

        def catch(module: nn.Module, args: tuple, kwargs: dict[str, Any]) -> None:
            caught.append(kwargs["hidden_states"] if "hidden_states" in kwargs else args[0])
            raise _Reached

        handle = self.all[self.below].register_forward_pre_hook(catch, with_kwargs=True)
        try:
            with contextlib.suppress(_Reached):
                self.backbone(input_ids=ids, attention_mask=mask, use_cache=False)
        finally:
            handle.remove()
        return caught[0]

    @torch.no_grad()
    def agrees(self, sequences: Sequence[Sequence[int]]) -> bool:
        """Whether the trained blocks, fed with the kept states, end where the whole model ends."""
        some = [tuple(map(int, ids)) for ids in sequences[:2]]
        ids, mask = _padded(some, next(self.backbone.parameters()).device)
        whole = self.backbone(input_ids=ids, attention_mask=mask, use_cache=False).last_hidden_state
        self.set_aside()
        try:
            found = self.backbone(
                inputs_embeds=self.embeddings(ids, mask), attention_mask=mask, use_cache=False
            ).last_hidden_state
        finally:
            self.put_back()
        kept = mask.bool()
        return bool((whole[kept] - found[kept]).abs().max() <= TOLERANCE * whole[kept].abs().max())

    def embeddings(self, input_ids: Tensor, attention_mask: Tensor) -> Tensor:
        """Kept states of the rows of a right-padded batch, (rows, positions, width); zero on the padding."""
        rows = []
        for ids, length in zip(input_ids.tolist(), attention_mask.sum(1).tolist(), strict=True):
            state = self.states[tuple(ids[: int(length)])]
            rows.append(nn.functional.pad(state, (0, 0, 0, input_ids.shape[1] - len(state))))
        return torch.stack(rows).to(input_ids.device)

    def batch(self, batch: Mapping[str, Any]) -> dict[str, Any]:
        """A collated batch with the kept states beside its token ids."""
        return {**batch, "inputs_embeds": self.embeddings(batch["input_ids"], batch["attention_mask"])}

    def set_aside(self) -> None:
        """Leave only the trained blocks in the model."""
        self.backbone.layers = nn.ModuleList(self.all[self.below :])
        self.config.num_hidden_layers = len(self.all) - self.below

    def put_back(self) -> None:
        """Make the model whole again."""
        self.backbone.layers = nn.ModuleList(self.all)
        self.config.num_hidden_layers = len(self.all)

    def put_back_under(self, adapted: nn.Module) -> None:
        """Make an adapted model whole again; the adapter's own list of blocks is numbered anew."""
        self.put_back()
        for config in adapted.peft_config.values():
            config.layers_to_transform = list(range(self.below, len(self.all)))


def _padded(sequences: Sequence[tuple[int, ...]], device: torch.device) -> tuple[Tensor, Tensor]:
    width = max(len(ids) for ids in sequences)
    ids = torch.tensor([[*ids, *[0] * (width - len(ids))] for ids in sequences], device=device)
    mask = torch.tensor([[1] * len(ids) + [0] * (width - len(ids)) for ids in sequences], device=device)
    return ids, mask


def freeze_below(
    model: PreTrainedModel, opt: Optimisation, sequences: Sequence[Sequence[int]], progress: Progress = quiet
) -> FrozenBlocks | None:
    """Kept states for an adapter on the last blocks; None where all blocks are trained or it would not be exact.

    Args:
        model: the start, before an adapter is put on it.
        opt: the run's settings; only LoRA with `last_layers`, in fp32, leaves blocks alone.
        sequences: prompt + answer ids of every side of every pair.
    """
    tuning = opt.tuning
    layers = getattr(model.base_model, "layers", None)
    if not isinstance(tuning, Lora) or not tuning.last_layers or opt.precision != "fp32":
        return None
    if not isinstance(layers, nn.ModuleList):
        return None
    if tuning.last_layers >= len(layers) or not sequences:
        return None
    positions = sum(len(ids) for ids in {tuple(map(int, ids)) for ids in sequences})
    if positions * model.config.hidden_size * 4 > MAX_BYTES:
        return None
    model.eval()
    frozen = FrozenBlocks(model, tuning.last_layers)
    frozen.compute(sequences, progress=progress)
    if not frozen.agrees(sequences):
        return None
    frozen.set_aside()
    return frozen
