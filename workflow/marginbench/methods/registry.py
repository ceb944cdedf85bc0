"""Finding methods: a file in this folder, or in a folder named by MARGINBENCH_METHODS, is a method. No torch needed."""

import importlib
import importlib.util
import os
import re
import sys
from collections.abc import Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from types import ModuleType
from typing import Any

import numpy as np
from pydantic import ValidationError

from marginbench.errors import UserError, nearest
from marginbench.identity import content_id
from marginbench.methods.base import Case, MethodParams, Needs, PairBatch, PairLoss, Plan, State

FOLDER = Path(__file__).resolve().parent
SEARCH_VARIABLE = "MARGINBENCH_METHODS"
"""Environment variable with further folders of method files, separated as PATH is."""

NOT_METHODS = frozenset({"__init__", "base", "pages", "registry"})
REQUIRED = ("Params", "needs", "loss", "EXAMPLE")


@dataclass(frozen=True)
class Method:
    """A method file with its parameters bound.

    Attributes:
        name: the file's name.
        file: the file.
        module: the imported file.
        params: checked parameters.
    """

    name: str
    file: Path
    module: ModuleType
    params: MethodParams

    @property
    def needs(self) -> Needs:
        """What the loss reads, with these parameters."""
        return self.module.needs(self.params)

    @property
    def examples(self) -> tuple[Case, ...]:
        """Worked examples."""
        return self.module.EXAMPLE

    @property
    def doc(self) -> str:
        """The file's docstring."""
        return self.module.__doc__ or ""

    def bind(self, params: Mapping[str, Any]) -> "Method":
        """The same method with other parameters. Raises UserError."""
        return replace(self, params=_validate(self.name, self.module, params))

    def initial_state(self) -> State | None:
        """The state before the first batch; None for a method without state."""
        return self.module.initial_state(self.params) if self.needs.state else None

    def plan(self, margins: np.ndarray | None) -> Plan:
        """What is decided once from the margins of all pairs, shape (pairs,)."""
        if not hasattr(self.module, "plan"):
            return Plan()
        return self.module.plan(margins, self.params)

    def loss(self, batch: PairBatch, state: State | None = None) -> PairLoss:
        """Loss of every pair of a batch."""
        return self.module.loss(batch, self.params, state)


def _folders(folder: str | Path | None) -> list[Path]:
    extra = [part for part in os.environ.get(SEARCH_VARIABLE, "").split(os.pathsep) if part]
    if folder is not None:
        extra.insert(0, str(folder))
    for part in extra:
        if not Path(part).is_dir():
            raise UserError(f"methods: `{part}` is not a folder; set {SEARCH_VARIABLE} to folders of method files")
    return [FOLDER, *(Path(part).resolve() for part in extra)]


def _files(folder: str | Path | None) -> dict[str, Path]:
    found: dict[str, Path] = {}
    for place in dict.fromkeys(_folders(folder)):
        for path in sorted(place.glob("*.py")):
            name = path.stem
            if name.startswith("_") or (place == FOLDER and name in NOT_METHODS):
                continue
            if not re.fullmatch(r"[a-z][a-z0-9_]*", name):
                raise UserError(f"{path}: not a method name; use lower-case letters, digits and underscores")
            if name in found:
                raise UserError(f"{path}: method `{name}` exists already in {found[name].parent}; rename the file")
            found[name] = path
    return dict(sorted(found.items()))


def method_names(folder: str | Path | None = None) -> list[str]:
    """Names of all methods, sorted; nothing is imported.

    Args:
        folder: a further folder to search, beside those of MARGINBENCH_METHODS.
    """
    return list(_files(folder))


def method_file(name: str, folder: str | Path | None = None) -> Path:
    """The file of a method. Raises UserError with the nearest name when there is none."""
    files = _files(folder)
    if name not in files:
        raise UserError(f"unknown method `{name}`; {nearest(name, files)}")
    return files[name]


def _module(name: str, path: Path) -> ModuleType:
    if path.parent == FOLDER:
        module = importlib.import_module(f"marginbench.methods.{name}")
    else:
        qualified = f"_marginbench_method_{name}_{content_id(str(path), path.read_text(encoding='utf-8'))}"
        module = sys.modules.get(qualified)
        if module is None:
            spec = importlib.util.spec_from_file_location(qualified, path)
            module = importlib.util.module_from_spec(spec)
            sys.modules[qualified] = module  # pydantic resolves annotations through sys.modules
            try:
                spec.loader.exec_module(module)
            except BaseException:
                del sys.modules[qualified]
                raise
    missing = [part for part in REQUIRED if not hasattr(module, part)]
    if missing:
        raise UserError(f"{path}: a method file must define {', '.join(REQUIRED)}; missing {', '.join(missing)}")
    return module


def _sentence(name: str, model: type[MethodParams], error: ValidationError) -> str:
    parts = []
    for item in error.errors():
        key = ".".join(str(part) for part in item["loc"])
        if item["type"] == "extra_forbidden":
            parts.append(f"unknown parameter `{key}`; {nearest(key, model.model_fields)}")
        elif item["type"] == "missing":
            parts.append(f"parameter `{key}` is missing")
        elif item["loc"]:
            parts.append(f"`{key}` = {item['input']!r}: {item['msg'].removeprefix('Input should ').strip()}")
        else:
            parts.append(item["msg"].removeprefix("Value error, "))
    return f"method `{name}`: " + "; ".join(part.replace(": be ", ": must be ") for part in parts)


def _validate(name: str, module: ModuleType, params: Mapping[str, Any]) -> MethodParams:
    try:
        return module.Params.model_validate(dict(params))
    except ValidationError as error:
        raise UserError(_sentence(name, module.Params, error)) from error


def check_params(name: str, params: Mapping[str, Any], folder: str | Path | None = None) -> MethodParams:
    """The checked parameters of a method.

    Raises:
        UserError: unknown method or parameter (with the nearest name), missing parameter, value out of bounds.
    """
    return _validate(name, _module(name, method_file(name, folder)), params)


def load_method(name: str, params: Mapping[str, Any] | None = None, folder: str | Path | None = None) -> Method:
    """A method by name, with its parameters bound (defaults where none are given).

    Raises:
        UserError: as `check_params`, or a file that lacks a part of a method.
    """
    path = method_file(name, folder)
    module = _module(name, path)
    return Method(name, path, module, _validate(name, module, params or {}))
