"""The manifest: a small JSON file that stands for a folder of weights.

Snakemake checksums small files only, so rules pass manifests. A manifest lists the files of its folder with size and
SHA-256; `weights_hash` is one hash over what the model computes with (weights, adapter scale, and the base below an
adapter). Paths in it are relative to the manifest, so a results folder can be moved.
"""

import os
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Literal, get_args

from marginbench.errors import UserError
from marginbench.files import read_json, write_json
from marginbench.identity import content_id, file_sha256

Kind = Literal["model", "adapter", "reward_model"]
KEYS = {"kind", "weights", "files", "weights_hash", "base", "facts"}


@dataclass(frozen=True)
class Manifest:
    """A checked manifest: where the weights lie, their hash, and the model they sit on (None for a whole model)."""

    path: Path
    kind: Kind
    weights_dir: Path
    weights_hash: str
    base: "Manifest | None" = None
    facts: dict[str, Any] = field(default_factory=dict)


def _decides_output(name: str) -> bool:
    return name.endswith(".safetensors") or name == "adapter_config.json"


def _weights_hash(files: dict[str, dict[str, Any]], base_hash: str | None) -> str:
    weights = sorted((name, entry["sha256"]) for name, entry in files.items() if _decides_output(name))
    return content_id("weights", weights, base_hash, length=32)


def write_manifest(
    path: str | Path,
    weights_dir: str | Path,
    kind: Kind,
    base: "str | Path | Manifest | None" = None,
    facts: dict[str, Any] | None = None,
) -> Manifest:
    """Hash the files of `weights_dir` and write the manifest; returns it as read back.

    `base` is the manifest of the model below: required for an adapter or a reward model. For a fully trained policy
    it is the start that it was trained from. Raises UserError when the folder holds no safetensors file.
    """
    path, weights_dir = Path(path), Path(weights_dir)
    if kind not in get_args(Kind):
        raise ValueError(f"kind {kind!r} is none of {get_args(Kind)}")
    if kind != "model" and base is None:
        raise ValueError(f"a manifest of kind {kind} needs the manifest of the model below it")
    below = base if isinstance(base, Manifest) or base is None else read_manifest(base)
    found = sorted(p for p in weights_dir.iterdir() if p.is_file()) if weights_dir.is_dir() else []
    files = {p.name: {"sha256": file_sha256(p), "bytes": p.stat().st_size} for p in found if p.name[0] != "."}
    if not any(name.endswith(".safetensors") for name in files):
        raise UserError(f"{weights_dir}: holds no .safetensors file, so there are no weights to list; prepare it again")
    where = path.parent.resolve()
    base_entry = None
    if below is not None:
        relative = os.path.relpath(below.path.resolve(), where)
        base_entry = {"manifest": Path(relative).as_posix(), "weights_hash": below.weights_hash}
    document = {
        "kind": kind,
        "weights": Path(os.path.relpath(weights_dir.resolve(), where)).as_posix(),
        "files": files,
        "weights_hash": _weights_hash(files, below.weights_hash if below else None),
        "base": base_entry,
        "facts": facts or {},
    }
    write_json(path, document)
    return read_manifest(path)


def read_manifest(path: str | Path, verify: bool = False) -> Manifest:
    """Read a manifest and check that its files exist with the listed size, and the manifests below it likewise.

    With `verify` every file is hashed again. Raises UserError naming the file that is missing or has changed.
    """
    path = Path(path)
    if not path.is_file():
        raise UserError(f"{path}: there is no such manifest; run the rule that makes it, or mend the path")
    document = read_json(path)
    if not isinstance(document, dict) or set(document) != KEYS or document["kind"] not in get_args(Kind):
        raise UserError(f"{path}: not a manifest of weights; delete it and run again")
    weights_dir = path.parent / document["weights"]
    for name, entry in document["files"].items():
        file = weights_dir / name
        if not file.is_file():
            raise UserError(f"{path}: the file {file} is missing; restore it, or delete the manifest and run again")
        size = file.stat().st_size
        if size != entry["bytes"] or (verify and file_sha256(file) != entry["sha256"]):
            what = f"has {size} bytes instead of {entry['bytes']}" if size != entry["bytes"] else "has other content"
            raise UserError(f"{path}: the file {file} {what}; delete the manifest and run again")
    base = None
    if document["base"] is not None:
        base = read_manifest(path.parent / document["base"]["manifest"], verify)
        if base.weights_hash != document["base"]["weights_hash"]:
            raise UserError(
                f"{path}: was made on other weights than {base.path} now lists "
                f"({document['base']['weights_hash'][:8]} against {base.weights_hash[:8]}); delete it and run again"
            )
    expected = _weights_hash(document["files"], base.weights_hash if base else None)
    if expected != document["weights_hash"]:
        raise UserError(f"{path}: its weights_hash does not fit its own list of files; delete it and run again")
    return Manifest(path, document["kind"], weights_dir, document["weights_hash"], base, document["facts"])


def tokenizer_dir(manifest: Manifest) -> Path:
    """The folder that holds the tokenizer: that of the whole model at the bottom."""
    while manifest.kind != "model":
        assert manifest.base is not None
        manifest = manifest.base
    return manifest.weights_dir
