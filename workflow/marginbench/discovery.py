"""Files that are found by their presence (methods, acquisition strategies): found, imported, parameters checked."""

import importlib
import importlib.util
import json
import os
import re
import sys
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from types import ModuleType
from typing import Any, TypeVar

from pydantic import BaseModel, ValidationError

from marginbench.errors import UserError, nearest
from marginbench.identity import content_id

Params = TypeVar("Params", bound=BaseModel)


@dataclass(frozen=True)
class Kind:
    """One kind of discovered file.

    Attributes:
        noun: what a file of it is called, e.g. "method".
        folder: the room whose files they are.
        variable: environment variable with further folders, separated as PATH is.
        others: stems of the room's files that are none of them.
        required: names that such a file must define.
    """

    noun: str
    folder: Path
    variable: str
    others: frozenset[str]
    required: tuple[str, ...]

    def _folders(self, folder: str | Path | None) -> list[Path]:
        extra = [part for part in os.environ.get(self.variable, "").split(os.pathsep) if part]
        if folder is not None:
            extra.insert(0, str(folder))
        for part in extra:
            if not Path(part).is_dir():
                raise UserError(
                    f"{self.folder.name}: `{part}` is not a folder; set {self.variable} to folders of {self.noun} files"
                )
        return [self.folder, *(Path(part).resolve() for part in extra)]

    def files(self, folder: str | Path | None = None) -> dict[str, Path]:
        """Name -> file, sorted by name; nothing is imported. Raises UserError on a bad name, or the same name twice."""
        found: dict[str, Path] = {}
        for place in dict.fromkeys(self._folders(folder)):
            for path in sorted(place.glob("*.py")):
                name = path.stem
                if name.startswith("_") or (place == self.folder and name in self.others):
                    continue
                if not re.fullmatch(r"[a-z][a-z0-9_]*", name):
                    raise UserError(f"{path}: not a {self.noun} name; use lower-case letters, digits and underscores")
                if name in found:
                    raise UserError(
                        f"{path}: {self.noun} `{name}` exists already in {found[name].parent}; rename the file"
                    )
                found[name] = path
        return dict(sorted(found.items()))

    def module(self, name: str, path: Path) -> ModuleType:
        """The imported file; one from outside the room is imported again when it was edited. Raises UserError."""
        if path.parent == self.folder:
            module = importlib.import_module(f"marginbench.{self.folder.name}.{name}")
        else:
            qualified = f"_marginbench_{self.noun}_{name}_{content_id(str(path), path.read_text(encoding='utf-8'))}"
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
        missing = [part for part in self.required if not hasattr(module, part)]
        if missing:
            raise UserError(
                f"{path}: a {self.noun} file must define {', '.join(self.required)}; missing {', '.join(missing)}"
            )
        return module

    def check(self, name: str, model: type[Params], params: Mapping[str, Any]) -> Params:
        """Checked parameters. Raises UserError: unknown (with the nearest name), missing, or out of bounds."""
        try:
            return model.model_validate(dict(params))
        except ValidationError as error:
            raise UserError(f"{self.noun} `{name}`: {_sentence(model, error)}") from error


def _message(item: Mapping[str, Any]) -> str:
    return item["msg"].removeprefix("Value error, ")


def _sentence(model: type[BaseModel], error: ValidationError) -> str:
    parts = []
    for item in error.errors():
        key = ".".join(str(part) for part in item["loc"])
        if item["type"] == "extra_forbidden":
            parts.append(f"unknown parameter `{key}`; {nearest(key, model.model_fields)}")
        elif item["type"] == "missing":
            parts.append(f"parameter `{key}` is missing")
        elif item["loc"]:
            parts.append(f"`{key}` = {item['input']!r}: {_message(item).removeprefix('Input should ').strip()}")
        else:
            parts.append(_message(item))
    return "; ".join(part.replace(": be ", ": must be ") for part in parts)


def parse_settings(settings: Sequence[str]) -> dict[str, Any]:
    """Parameters from `key=value` words; a value is JSON where it reads as JSON, else a string. Raises UserError."""
    found: dict[str, Any] = {}
    for setting in settings:
        key, equals, text = setting.partition("=")
        if not equals or not key:
            raise UserError(f"--set {setting}: not of the form key=value, e.g. --set beta=0.1")
        if key in found:
            raise UserError(f"--set {setting}: `{key}` is set twice; set it once")
        try:
            found[key] = json.loads(text)
        except json.JSONDecodeError:
            found[key] = text
    return found
