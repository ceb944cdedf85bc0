"""Blocks that no adapter touches, computed once: training starts from their hidden states.

With LoRA on the last blocks only, the blocks below give the same hidden states at every step. They are computed once
for every different sequence; then the model is trained without them, fed with those states in place of embeddings.
Losses equal those of the whole model up to float rounding (tests/unit/test_training_frozen.py). Used only where it
fits into memory and where a trial on the first sequences gives the whole model's hidden states.
"""

from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any

import torch
from safetensors import safe_open
from safetensors.torch import save_file
from torch import Tensor, nn
from transformers import PreTrainedModel

from marginbench.files import atomic_path
from marginbench.job import Progress, quiet
from marginbench.study import Optimisation

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

    @contextmanager
    def watch(self) -> Iterator[None]:
        """Keep the states of every right-padded batch that the whole model is run on in the block."""
        asked: dict[str, Tensor] = {}

        def begin(module: nn.Module, args: tuple, kwargs: dict[str, Any]) -> None:
            asked.update(ids=kwargs["input_ids"], mask=kwargs["attention_mask"])

        def keep(module: nn.Module, args: tuple, kwargs: dict[str, Any]) -> None:
            hidden = kwargs["hidden_states"] if "hidden_states" in kwargs else args[0]
            for ids, length, state in zip(asked["ids"].tolist(), asked["mask"].sum(1).tolist(), hidden, strict=True):
                self.states[tuple(ids[: int(length)])] = state[: int(length)].detach().clone()

        handles = [
            self.backbone.register_forward_pre_hook(begin, with_kwargs=True),
            self.all[self.below].register_forward_pre_hook(keep, with_kwargs=True),
        ]
        try:
            yield
        finally:
            for handle in handles:
                handle.remove()

    @torch.no_grad()
    def compute(self, sequences: Sequence[Sequence[int]], batch_size: int = 32, progress: Progress = quiet) -> None:
        """Run the frozen blocks over every different sequence that has no state yet, longest first."""
        missing = {tuple(map(int, ids)) for ids in sequences} - self.states.keys()
        unique = sorted(missing, key=lambda ids: (-len(ids), ids))

        def stop(module: nn.Module, args: tuple, kwargs: dict[str, Any]) -> None:
            raise _Reached

        with self.watch():
            handle = self.all[self.below].register_forward_pre_hook(stop, with_kwargs=True)
            try:
                for start in range(0, len(unique), batch_size):
                    chunk = unique[start : start + batch_size]
                    ids, mask = _padded(chunk, next(self.backbone.parameters()).device)
                    with suppress(_Reached):
                        self.backbone(input_ids=ids, attention_mask=mask, use_cache=False)
                    progress(start + len(chunk), len(unique), "frozen blocks")
            finally:
                handle.remove()

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


def save_states(frozen: FrozenBlocks | None, path: str | Path, model_hash: str) -> None:
    """Write the kept states, atomically: one long table of positions, with the sequences that they belong to.

    None, where nothing is set aside, writes a file that fits no run.
    """
    keys = list(frozen.states) if frozen else []
    tensors = (
        {}
        if frozen is None
        else {
            "states": torch.cat([frozen.states[ids] for ids in keys]),
            "tokens": torch.tensor([token for ids in keys for token in ids], dtype=torch.int32),
            "lengths": torch.tensor([len(ids) for ids in keys], dtype=torch.int64),
        }
    )
    with atomic_path(path) as temporary:
        save_file(tensors, temporary, metadata={"model": model_hash, "below": str(frozen.below if frozen else None)})


def load_states(frozen: FrozenBlocks, path: str | Path, model_hash: str) -> bool:
    """Take up states that were written for the same weights and the same blocks; False when they are for others."""
    with safe_open(path, "pt") as file:
        if file.metadata() != {"model": model_hash, "below": str(frozen.below)}:
            return False
        states, tokens, lengths = (file.get_tensor(name) for name in ("states", "tokens", "lengths"))
    sizes = lengths.tolist()
    for ids, state in zip(tokens.split(sizes), states.split(sizes), strict=True):
        frozen.states[tuple(ids.tolist())] = state
    return True


def _padded(sequences: Sequence[tuple[int, ...]], device: torch.device) -> tuple[Tensor, Tensor]:
    width = max(len(ids) for ids in sequences)
    ids = torch.tensor([[*ids, *[0] * (width - len(ids))] for ids in sequences], device=device)
    mask = torch.tensor([[1] * len(ids) + [0] * (width - len(ids)) for ids in sequences], device=device)
    return ids, mask


def frozen_blocks(model: PreTrainedModel, last_layers: int | None, precision: str) -> FrozenBlocks | None:
    """The blocks below the last ones of a model, without states yet; None where there are none to set aside."""
    layers = getattr(model.base_model, "layers", None)
    if not last_layers or precision != "fp32" or not isinstance(layers, nn.ModuleList) or last_layers >= len(layers):
        return None
    return FrozenBlocks(model, last_layers)


def fits(model: PreTrainedModel, sequences: Sequence[Sequence[int]]) -> bool:
    """Whether the states of the different sequences stay below MAX_BYTES."""
    positions = sum(len(ids) for ids in {tuple(map(int, ids)) for ids in sequences})
    return 0 < positions * model.config.hidden_size * 4 <= MAX_BYTES


def freeze_below(
    model: PreTrainedModel,
    opt: Optimisation,
    sequences: Sequence[Sequence[int]],
    progress: Progress = quiet,
    kept: str | Path | None = None,
    model_hash: str = "",
) -> FrozenBlocks | None:
    """Kept states for an adapter on the last blocks; None where all blocks are trained or it would not be exact.

    Args:
        model: the start, before an adapter is put on it; cut to the trained blocks where states are returned.
        opt: the run's settings; only LoRA with `last_layers`, in fp32, leaves blocks alone.
        sequences: prompt + answer ids of every side of every pair.
        kept: states that `save_states` wrote for the weights `model_hash`; what they lack is computed.
    """
    frozen = frozen_blocks(model, getattr(opt.tuning, "last_layers", None), opt.precision)
    if frozen is None or not fits(model, sequences):
        return None
    model.eval()
    if kept is not None:
        load_states(frozen, kept, model_hash)
    frozen.compute(sequences, progress=progress)
    if not frozen.agrees(sequences):
        return None
    frozen.set_aside()
    return frozen
