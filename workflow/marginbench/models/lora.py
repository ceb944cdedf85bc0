"""Low-rank adapters (Hu et al. 2021) on all linear layers of the transformer blocks, through peft."""

import re
import shutil
from pathlib import Path

import torch
from peft import LoraConfig, PeftModel, get_peft_model
from torch import nn
from transformers import PreTrainedModel
from transformers.pytorch_utils import Conv1D

from marginbench.errors import UserError
from marginbench.files import atomic_folder, read_json, write_json
from marginbench.study import Lora

_BLOCK = re.compile(r"(?:^|\.)(?P<list>[a-z_]+)\.(?P<index>\d+)\.")


def block_linears(model: nn.Module) -> tuple[str, int, list[str]]:
    """Name of the model's list of blocks, how many there are, and the suffixes of the linear layers in them."""
    suffixes: dict[str, set[str]] = {}
    indices: dict[str, set[int]] = {}
    for name, module in model.named_modules():
        found = _BLOCK.search(name)
        if found and isinstance(module, nn.Linear | Conv1D):
            suffixes.setdefault(found["list"], set()).add(name.rsplit(".", 1)[-1])
            indices.setdefault(found["list"], set()).add(int(found["index"]))
    if not suffixes:
        raise UserError(f"{type(model).__name__}: no linear layers in numbered blocks; use tuning: {{kind: full}}")
    blocks = max(indices, key=lambda key: len(indices[key]))
    return blocks, max(indices[blocks]) + 1, sorted(suffixes[blocks])


def lora_config(model: nn.Module, tuning: Lora, task_type: str = "CAUSAL_LM", **extra: object) -> LoraConfig:
    """peft's configuration for a study's `tuning`.

    The layers are listed one by one: peft refuses `layers_to_transform` beside the string "all-linear".
    """
    blocks, count, suffixes = block_linears(model)
    last = count if tuning.last_layers is None else tuning.last_layers
    if last > count:
        raise UserError(f"tuning.last_layers is {last}, but the model has {count} blocks; choose at most {count}")
    return LoraConfig(
        task_type=task_type,
        r=tuning.rank,
        lora_alpha=tuning.alpha,
        lora_dropout=tuning.dropout,
        target_modules=suffixes,
        layers_to_transform=list(range(count - last, count)),
        layers_pattern=blocks,
        fan_in_fan_out=any(isinstance(module, Conv1D) for module in model.modules()),
        **extra,
    )


def add_adapter(
    model: PreTrainedModel, tuning: Lora, seed: int, task_type: str = "CAUSAL_LM", **extra: object
) -> PeftModel:
    """Put a fresh adapter on a model; it starts as the identity, and its random half depends on `seed` alone.

    `seed` is a value of `identity.seed_for("initialisation", model, seed)`. The global random state is left alone.
    `extra` goes to peft's LoraConfig, e.g. `modules_to_save`.
    """
    config = lora_config(model, tuning, task_type, **extra)
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        return get_peft_model(model, config)


def save_adapter(model: PeftModel, folder: str | Path) -> None:
    """Write the adapter's safetensors and configuration, free of paths of this machine and in a fixed order."""
    with atomic_folder(folder) as temporary:
        model.save_pretrained(temporary, save_embedding_layers=False)
        (temporary / "README.md").unlink(missing_ok=True)
        config = read_json(temporary / "adapter_config.json")
        config["base_model_name_or_path"] = None
        for name in ("target_modules", "modules_to_save"):  # peft keeps sets, whose order changes between processes
            if isinstance(config.get(name), list):
                config[name] = sorted(config[name])
        write_json(temporary / "adapter_config.json", config)
        for folder_left in [p for p in temporary.iterdir() if p.is_dir()]:
            shutil.rmtree(folder_left)
