"""Manifests: what they notice when files, bases or folders change."""

import json
import shutil
from pathlib import Path

import pytest
from marginbench.errors import UserError
from marginbench.models.manifest import read_manifest, tokenizer_dir, write_manifest


@pytest.fixture
def base(tmp_path: Path) -> Path:
    weights = tmp_path / "study" / "base" / "weights"
    weights.mkdir(parents=True)
    (weights / "model.safetensors").write_bytes(b"weights of the base")
    (weights / "config.json").write_text("{}")
    return write_manifest(weights.parent / "manifest.json", weights, "model", facts={"layers": 2}).path


@pytest.fixture
def adapter(base: Path) -> Path:
    weights = base.parent.parent / "run" / "weights"
    weights.mkdir(parents=True)
    (weights / "adapter_model.safetensors").write_bytes(b"an adapter")
    (weights / "adapter_config.json").write_text('{"r": 4}')
    return write_manifest(weights.parent / "manifest.json", weights, "adapter", base=base).path


def test_what_was_written_is_read(base: Path, adapter: Path) -> None:
    manifest = read_manifest(adapter, verify=True)
    assert manifest.kind == "adapter"
    assert manifest.base is not None
    assert manifest.base.facts == {"layers": 2}
    assert tokenizer_dir(manifest).resolve() == (base.parent / "weights").resolve()


def test_paths_are_relative_so_a_results_folder_can_move(adapter: Path, tmp_path: Path) -> None:
    assert str(tmp_path) not in adapter.read_text()
    before = read_manifest(adapter).weights_hash
    shutil.move(tmp_path / "study", tmp_path / "elsewhere")
    assert read_manifest(tmp_path / "elsewhere" / "run" / "manifest.json", verify=True).weights_hash == before


def test_the_hash_covers_weights_scale_and_base_but_not_the_tokenizer(base: Path, adapter: Path) -> None:
    before = read_manifest(adapter).weights_hash
    weights = adapter.parent / "weights"
    (weights / "tokenizer.json").write_text("{}")
    assert write_manifest(adapter, weights, "adapter", base=base).weights_hash == before
    (weights / "adapter_config.json").write_text('{"r": 8}')
    assert write_manifest(adapter, weights, "adapter", base=base).weights_hash != before
    (weights / "adapter_config.json").write_text('{"r": 4}')
    (base.parent / "weights" / "model.safetensors").write_bytes(b"other weights")
    other = write_manifest(base, base.parent / "weights", "model")
    assert write_manifest(adapter, weights, "adapter", base=other).weights_hash != before


def test_a_changed_size_is_noticed_on_every_read(base: Path) -> None:
    (base.parent / "weights" / "model.safetensors").write_bytes(b"cut")
    with pytest.raises(UserError, match=r"model\.safetensors has 3 bytes instead of 19"):
        read_manifest(base)


def test_changed_bytes_of_the_same_size_are_noticed_by_verify(base: Path) -> None:
    (base.parent / "weights" / "model.safetensors").write_bytes(b"Weights of the base")
    assert read_manifest(base).kind == "model"
    with pytest.raises(UserError, match=r"model\.safetensors has other content"):
        read_manifest(base, verify=True)


def test_a_missing_file_is_named(base: Path) -> None:
    (base.parent / "weights" / "config.json").unlink()
    with pytest.raises(UserError, match=r"config\.json is missing"):
        read_manifest(base)


def test_another_base_under_an_adapter_is_refused(base: Path, adapter: Path) -> None:
    (base.parent / "weights" / "model.safetensors").write_bytes(b"other weights")
    write_manifest(base, base.parent / "weights", "model")
    with pytest.raises(UserError, match="was made on other weights"):
        read_manifest(adapter)


def test_an_edited_manifest_is_refused(base: Path) -> None:
    document = json.loads(base.read_text())
    document["files"]["model.safetensors"]["sha256"] = "0" * 64
    base.write_text(json.dumps(document))
    with pytest.raises(UserError, match="does not fit its own list"):
        read_manifest(base)


def test_weights_may_lie_outside_the_manifests_folder(base: Path, tmp_path: Path) -> None:
    start = write_manifest(tmp_path / "study" / "sft" / "manifest.json", base.parent / "weights", "model")
    assert json.loads(start.path.read_text())["weights"] == "../base/weights"
    assert start.weights_hash == read_manifest(base).weights_hash


@pytest.mark.parametrize("content", ["{}", "[]", '{"kind": "model"}', "not json"])
def test_something_else_is_no_manifest(tmp_path: Path, content: str) -> None:
    (tmp_path / "manifest.json").write_text(content)
    with pytest.raises(UserError, match=r"not a manifest|not valid JSON"):
        read_manifest(tmp_path / "manifest.json")


def test_a_folder_without_weights_is_refused(tmp_path: Path) -> None:
    (tmp_path / "weights").mkdir()
    with pytest.raises(UserError, match=r"no \.safetensors file"):
        write_manifest(tmp_path / "manifest.json", tmp_path / "weights", "model")
    assert not (tmp_path / "manifest.json").exists()
