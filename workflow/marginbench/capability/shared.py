"""Hidden states of the benchmarks' rows under the blocks that no policy changes: one pass serves all policies.

Where adapters sit on the last blocks only, the blocks below give every policy the start's hidden states. The start's
own check keeps them; a policy's check begins from there. It is used only where a row's numbers agree with a plain pass
of the whole model (`PackedLM` compares), so a result doesn't depend on it beyond float rounding.
"""

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from safetensors import safe_open
from safetensors.torch import save_file
from torch import Tensor, nn
from transformers import PreTrainedModel

from marginbench.files import atomic_path
from marginbench.training.frozen import FrozenBlocks, frozen_blocks


class SharedRows:
    """States at the input of block `below`, shape (1, positions, width), by the hash of a row.

    With `kept` None the rows that the model runs are kept, to be saved; otherwise those of `kept` are handed out.
    """

    def __init__(self, blocks: FrozenBlocks, kept: dict[str, Tensor] | None = None) -> None:
        self.blocks = blocks
        self.keeping = kept is None
        self.rows: dict[str, Tensor] = kept or {}

    @contextmanager
    def run(self, model: PreTrainedModel, key: str, inputs: dict[str, Any]) -> Iterator[dict[str, Any]]:
        """The inputs to run the model with inside the block: from the row's kept states where there are any."""
        if self.keeping:
            handle = self.blocks.all[self.blocks.below].register_forward_pre_hook(self._keep(key), with_kwargs=True)
            try:
                yield inputs
            finally:
                handle.remove()
        elif key in self.rows:
            self.blocks.set_aside()
            try:
                state = self.rows[key].to(inputs["input_ids"].device)
                yield {**{name: value for name, value in inputs.items() if name != "input_ids"}, "inputs_embeds": state}
            finally:
                self.blocks.put_back()
        else:
            yield inputs

    def _keep(self, key: str) -> Any:
        def keep(module: nn.Module, args: tuple, kwargs: dict[str, Any]) -> None:
            self.rows[key] = (kwargs["hidden_states"] if "hidden_states" in kwargs else args[0]).detach().cpu().clone()

        return keep


def rows_to_keep(model: PreTrainedModel, last_layers: int | None) -> SharedRows | None:
    """For the start's check: what keeps its rows; None where no blocks are left alone."""
    blocks = frozen_blocks(model, last_layers, "fp32")
    return SharedRows(blocks) if blocks else None


def save_rows(shared: SharedRows | None, path: str | Path, model_hash: str) -> None:
    """Write the kept rows, atomically; None writes a file that serves no policy."""
    facts = {"model": model_hash, "below": str(shared.blocks.below if shared else None)}
    with atomic_path(path) as temporary:
        save_file(shared.rows if shared else {}, temporary, metadata=facts)


def rows_for(model: PreTrainedModel, trained: list[int] | None, path: str | Path, start_hash: str) -> SharedRows | None:
    """For a policy's check: the start's rows; None where they are of other weights or under blocks that were trained.

    Args:
        model: the policy, its adapter merged.
        trained: numbers of the blocks that carry the adapter; None for all.
        path: what `save_rows` wrote.
        start_hash: hash of the weights that the policy was trained from.
    """
    with safe_open(path, "pt") as file:
        facts = file.metadata()
        kept = {key: file.get_tensor(key) for key in file.keys()}  # noqa: SIM118 - not a mapping
    if (
        trained is None
        or facts["model"] != start_hash
        or facts["below"] == "None"
        or int(facts["below"]) > min(trained)
    ):
        return None
    blocks = frozen_blocks(model, len(model.base_model.layers) - int(facts["below"]), "fp32")
    return SharedRows(blocks, kept) if blocks else None
