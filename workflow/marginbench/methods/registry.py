"""Finding methods: a file in this folder, or in a folder named by MARGINBENCH_METHODS, is a method. No torch needed."""

from collections.abc import Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from types import ModuleType
from typing import Any

import numpy as np

from marginbench.discovery import Kind
from marginbench.errors import UserError, nearest
from marginbench.methods.base import Case, MethodParams, Needs, PairBatch, PairLoss, Plan, State
from marginbench.methods.curriculum import margins_seen, needs_of_curriculum, plan_of_curriculum

FOLDER = Path(__file__).resolve().parent
SEARCH_VARIABLE = "MARGINBENCH_METHODS"
"""Environment variable with further folders of method files, separated as PATH is."""

NOT_METHODS = frozenset({"__init__", "base", "curriculum", "evaluate", "formulas", "pages", "registry"})
METHODS = Kind("method", FOLDER, SEARCH_VARIABLE, NOT_METHODS, ("Params", "needs", "loss", "EXAMPLE"))


@dataclass(frozen=True)
class Method:
    """A method file with its parameters bound.

    Attributes:
        name: the file's name, or that of a variant.
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
        return needs_of_curriculum(self.module.needs(self.params), self.params)

    @property
    def examples(self) -> tuple[Case, ...]:
        """Worked examples."""
        return self.module.EXAMPLE

    @property
    def scorer(self) -> str | None:
        """The scorer of the margins that the parameters ask for; None leaves it to the study."""
        return getattr(self.params, "scorer", None)

    @property
    def variants(self) -> Mapping[str, Mapping[str, Any]]:
        """Names of the same formula with other parameters, and those parameters."""
        return _variants_of(self.module)

    @property
    def doc(self) -> str:
        """The file's docstring."""
        return self.module.__doc__ or ""

    def bind(self, params: Mapping[str, Any]) -> "Method":
        """The same method with other parameters. Raises UserError."""
        variant = self.variants.get(self.name, {})
        return replace(self, params=_validate(self.name, self.module, {**variant, **params}))

    def initial_state(self) -> State | None:
        """The state before the first batch; None for a method without state."""
        return self.module.initial_state(self.params) if self.needs.state else None

    def margins_seen(self, margins: np.ndarray | None) -> np.ndarray | None:
        """The margins of all pairs as the method is to see them: dealt out anew if the parameters say so."""
        return margins_seen(margins, self.params)

    def plan(self, margins: np.ndarray | None) -> Plan:
        """What is decided once from the margins of all pairs, as the method sees them, shape (pairs,)."""
        own = self.module.plan(margins, self.params) if hasattr(self.module, "plan") else Plan()
        return plan_of_curriculum(own, margins, self.params)

    def loss(self, batch: PairBatch, state: State | None = None) -> PairLoss:
        """Loss of every pair of a batch."""
        return self.module.loss(batch, self.params, state)


def method_names(folder: str | Path | None = None) -> list[str]:
    """Names of all methods, sorted; nothing is imported.

    Args:
        folder: a further folder to search, beside those of MARGINBENCH_METHODS.
    """
    return list(METHODS.files(folder))


def variant_names(folder: str | Path | None = None) -> dict[str, str]:
    """Names of all variants, sorted, and the method that each is a variant of. Every method file is imported."""
    files = METHODS.files(folder)
    found: dict[str, str] = {}
    for stem, path in files.items():
        for name in _variants_of(METHODS.module(stem, path)):
            if name in files or name in found:
                raise UserError(f"{path}: variant `{name}` has the name of another method; rename it")
            found[name] = stem
    return dict(sorted(found.items()))


def _resolve(name: str, folder: str | Path | None) -> tuple[str, Path]:
    """The stem and the file of a method, by its own name or that of a variant."""
    files = METHODS.files(folder)
    if name in files:
        return name, files[name]
    variants = variant_names(folder)
    if name not in variants:
        raise UserError(f"unknown method `{name}`; {nearest(name, [*files, *variants])}")
    return variants[name], files[variants[name]]


def method_file(name: str, folder: str | Path | None = None) -> Path:
    """The file of a method or variant. Raises UserError with the nearest name when there is none."""
    return _resolve(name, folder)[1]


def _variants_of(module: ModuleType) -> Mapping[str, Mapping[str, Any]]:
    return getattr(module, "VARIANTS", {})


def _validate(name: str, module: ModuleType, params: Mapping[str, Any]) -> MethodParams:
    checked = METHODS.check(name, module.Params, params)
    idle = [key for key in ("scorer", "shuffle_margins") if getattr(checked, key, None) is not None]
    if idle and not needs_of_curriculum(module.needs(checked), checked).margins:
        raise UserError(f"method `{name}`: `{idle[0]}` has no effect where no margins are read; remove it")
    return checked


def check_params(name: str, params: Mapping[str, Any], folder: str | Path | None = None) -> MethodParams:
    """The checked parameters of a method or variant.

    Raises:
        UserError: unknown method or parameter (with the nearest name), missing parameter, value out of bounds.
    """
    return load_method(name, params, folder).params


def load_method(name: str, params: Mapping[str, Any] | None = None, folder: str | Path | None = None) -> Method:
    """A method or variant by name, with its parameters bound (defaults where none are given).

    Raises:
        UserError: as `check_params`, or a file that lacks a part of a method.
    """
    stem, path = _resolve(name, folder)
    module = METHODS.module(stem, path)
    given = {**_variants_of(module).get(name, {}), **(params or {})}
    return Method(name, path, module, _validate(name, module, given))
