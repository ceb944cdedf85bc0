"""Content hashes, code hashes and seeds: what makes two things the same thing.

Seeds are split by axis (DESIGN section 4): data order depends on (dataset, seed), initialisation on (model, seed),
sampling on (prompt, seed). The method is deliberately no axis, so that methods can be compared pair by pair.
"""

import ast
import hashlib
import json
from functools import cache
from pathlib import Path
from typing import Any

import numpy as np

PACKAGE_ROOT = Path(__file__).resolve().parent


def content_id(*parts: Any, length: int = 16) -> str:
    """Hex id of any JSON-able parts: equal content, equal id, on every machine."""
    text = json.dumps(parts, sort_keys=True, ensure_ascii=False, separators=(",", ":"))
    return hashlib.sha256(text.encode()).hexdigest()[:length]


def file_sha256(path: str | Path) -> str:
    """SHA-256 of a file's bytes."""
    with open(path, "rb") as handle:
        return hashlib.file_digest(handle, "sha256").hexdigest()


def seed_for(*axes: Any) -> int:
    """A 31-bit seed for a named purpose, e.g. `seed_for("data_order", dataset, seed)`."""
    return int(content_id("seed", *axes, length=8), 16) & 0x7FFFFFFF


def stream(*axes: Any) -> np.random.Generator:
    """A counter-based random stream (Philox) keyed by named axes; drawing from one never moves another."""
    return np.random.Generator(np.random.Philox(key=int(content_id("stream", *axes, length=32), 16)))


def _module_file(name: str) -> Path | None:
    parts = name.split(".")
    if parts[0] != PACKAGE_ROOT.name:
        return None
    base = PACKAGE_ROOT.joinpath(*parts[1:])
    for candidate in (base.with_suffix(".py"), base / "__init__.py"):
        if candidate.is_file():
            return candidate
    return None


@cache
def _imports(path: Path) -> frozenset[Path]:
    """Files of this package that a file imports anywhere in its text, packages' `__init__` on the way included."""
    names: set[str] = set()
    for node in ast.walk(ast.parse(path.read_bytes(), filename=str(path))):
        if isinstance(node, ast.Import):
            names.update(alias.name for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            if node.level:
                raise ValueError(f"{path}: relative imports are not used in this package")
            if node.module:
                names.add(node.module)
                names.update(f"{node.module}.{alias.name}" for alias in node.names)
    found: set[Path] = set()
    for name in names:
        parts = name.split(".")
        for depth in range(1, len(parts) + 1):
            file = _module_file(".".join(parts[:depth]))
            if file is not None:
                found.add(file)
    return frozenset(found)


def import_closure(*entries: str | Path) -> list[Path]:
    """Every file of this package that the entries reach through static imports, the entries included, sorted."""
    todo = [Path(entry).resolve() for entry in entries]
    seen: set[Path] = set()
    while todo:
        path = todo.pop()
        if path in seen:
            continue
        seen.add(path)
        todo.extend(_imports(path) - seen)
    return sorted(seen)


@cache
def _code_hash(entries: tuple[Path, ...]) -> str:
    digest = hashlib.sha256()
    root = PACKAGE_ROOT.parent
    for path in import_closure(*entries):
        digest.update(path.relative_to(root).as_posix().encode() if path.is_relative_to(root) else path.name.encode())
        digest.update(b"\0" + path.read_bytes() + b"\0")
    return digest.hexdigest()[:16]


def code_hash(*entries: str | Path) -> str:
    """Hash of the entries and of all the project's code that they import: what a rule's result depends on.

    Snakemake tracks only the script file, so every rule carries this as `params.code` (docs/decisions/0003).
    """
    return _code_hash(tuple(Path(entry).resolve() for entry in entries))
