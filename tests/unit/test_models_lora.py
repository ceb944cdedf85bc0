"""Adapters: which layers, the same start for the same seed, files free of this machine."""

from pathlib import Path

import pytest
import torch
from marginbench.errors import UserError
from marginbench.models.loading import load_model
from marginbench.models.lora import add_adapter, block_linears, save_adapter
from marginbench.study import Lora
from transformers import GPT2Config, GPT2LMHeadModel

LINEARS = ["down_proj", "gate_proj", "k_proj", "o_proj", "q_proj", "up_proj", "v_proj"]


def trained(model: torch.nn.Module) -> dict[str, torch.Tensor]:
    return {name: p for name, p in model.named_parameters() if p.requires_grad}


def test_all_linear_layers_of_the_blocks_and_nothing_else(toy_model: Path) -> None:
    assert block_linears(load_model(toy_model)) == ("layers", 2, LINEARS)
    names = set(trained(add_adapter(load_model(toy_model), Lora(rank=2), seed=0)))
    assert len(names) == 2 * 2 * len(LINEARS)
    assert not any("lm_head" in name or "embed" in name for name in names)


def test_only_the_last_layers_if_asked(toy_model: Path) -> None:
    names = trained(add_adapter(load_model(toy_model), Lora(rank=2, last_layers=1), seed=0))
    assert len(names) == 2 * len(LINEARS)
    assert all(".layers.1." in name for name in names)


def test_more_layers_than_there_are_is_refused(toy_model: Path) -> None:
    with pytest.raises(UserError, match=r"last_layers is 3, but the model has 2 blocks"):
        add_adapter(load_model(toy_model), Lora(last_layers=3), seed=0)


def test_it_starts_as_the_identity(toy_model: Path) -> None:
    ids = torch.arange(12)[None]
    model = load_model(toy_model)
    with torch.no_grad():
        before = model(ids).logits
        assert torch.equal(add_adapter(model, Lora(), seed=0).eval()(ids).logits, before)


def test_the_start_depends_on_its_seed_alone_and_moves_no_other_stream(toy_model: Path) -> None:
    starts = []
    for seed, noise in ((5, 1), (5, 2), (6, 1)):
        torch.manual_seed(noise)
        expected = torch.rand(1)
        torch.manual_seed(noise)
        starts.append(trained(add_adapter(load_model(toy_model), Lora(rank=2), seed=seed)))
        assert torch.equal(torch.rand(1), expected)
    assert all(torch.equal(starts[0][name], starts[1][name]) for name in starts[0])
    assert not all(torch.equal(starts[0][name], starts[2][name]) for name in starts[0])


def test_saved_files_are_the_same_bytes_and_name_no_folder_of_this_machine(toy_model: Path, tmp_path: Path) -> None:
    for name in ("one", "two"):
        save_adapter(add_adapter(load_model(toy_model), Lora(rank=2), seed=0), tmp_path / name)
    files = sorted(p.name for p in (tmp_path / "one").iterdir())
    assert files == ["adapter_config.json", "adapter_model.safetensors"]
    for name in files:
        assert (tmp_path / "one" / name).read_bytes() == (tmp_path / "two" / name).read_bytes()
    config = (tmp_path / "one" / "adapter_config.json").read_text()
    assert str(toy_model.parent) not in config
    positions = [config.index(f'"{name}"') for name in LINEARS]
    assert positions == sorted(positions)


def test_other_architectures_are_found_too() -> None:
    model = GPT2LMHeadModel(GPT2Config(n_layer=3, n_embd=8, n_head=2, vocab_size=20, n_positions=16))
    assert block_linears(model) == ("h", 3, ["c_attn", "c_fc", "c_proj"])
    names = trained(add_adapter(model, Lora(rank=2, last_layers=1), seed=0))
    assert names
    assert all(".h.2." in name for name in names)
