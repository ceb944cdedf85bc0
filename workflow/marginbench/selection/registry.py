"""Finding strategies: a file in this folder, or in a folder named by MARGINBENCH_SELECTION, is one. No torch needed."""

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from types import ModuleType
from typing import Any

import numpy as np
import pandas as pd

from marginbench.discovery import Kind
from marginbench.errors import UserError, nearest
from marginbench.selection.base import PAIR, Case, Loop, Stage, StrategyParams

FOLDER = Path(__file__).resolve().parent
SEARCH_VARIABLE = "MARGINBENCH_SELECTION"
"""Environment variable with further folders of strategy files, separated as PATH is."""

NOT_STRATEGIES = frozenset({"__init__", "base", "one_shot", "pools", "registry", "scores"})
STRATEGIES = Kind("strategy", FOLDER, SEARCH_VARIABLE, NOT_STRATEGIES, ("Params", "stages", "pool", "rank", "EXAMPLE"))


@dataclass(frozen=True)
class Strategy:
    """A strategy file with its parameters bound.

    Attributes:
        name: the file's name.
        file: the file.
        module: the imported file.
        params: checked parameters.
    """

    name: str
    file: Path
    module: ModuleType
    params: StrategyParams

    @property
    def stages(self) -> tuple[Stage, ...]:
        """The steps from a pool to the prompts that are labelled; at least one."""
        return self.module.stages(self.params)

    @property
    def examples(self) -> tuple[Case, ...]:
        """Worked examples."""
        return self.module.EXAMPLE

    @property
    def doc(self) -> str:
        """The file's docstring."""
        return self.module.__doc__ or ""

    @property
    def loop(self) -> Loop:
        """What becomes of earlier rounds' labels unless a study says otherwise: dropped, or kept."""
        return getattr(self.module, "LOOP", "continual")

    @property
    def resets_policy(self) -> bool:
        """Whether every round trains from the start again."""
        return getattr(self.module, "RESETS_POLICY", False)

    def pool_size(self, n: int) -> int:
        """Prompts drawn from the pool in a round of n labels."""
        return self.module.pool(self.params, n)

    def completions(self, n: int, pool: int | None = None) -> int:
        """Answers sampled in a round of n labels, from a pool of the strategy's own size or of another."""
        size, total, fresh = self.pool_size(n) if pool is None else pool, 0, True
        for stage in self.stages:
            total += size * stage.samples if fresh else 0
            size, fresh = stage.keep(size, n), stage.fresh
        return total + (size * PAIR if fresh else 0)

    def rank(self, table: pd.DataFrame, n: int, rng: np.random.Generator, stage: int = 0) -> list[str]:
        """The n prompt_ids that survive a stage, in selection order.

        Args:
            table: one row for each prompt that entered, in pool order, with the column of the stage's score.
            n: how many survive, `stages[stage].keep(len(table), labels)`.
            rng: a stream of this seed, round and stage.
            stage: the stage, from 0.

        Raises:
            UserError: a prompt_id twice, a missing column, a value that is not finite, fewer rows than n, or a file
                that gives something else than n different prompt_ids of the table.
        """
        ids = self.module.rank(table, n, rng, self.params, stage)
        if len(ids) != n or len(set(ids)) != n or not set(ids) <= set(table["prompt_id"]):
            raise UserError(f"{self.file}: `rank` must give {n} different prompt_ids of the table; it gave {ids!r}")
        return ids


def strategy_names(folder: str | Path | None = None) -> list[str]:
    """Names of all strategies, sorted; nothing is imported.

    Args:
        folder: a further folder to search, beside those of MARGINBENCH_SELECTION.
    """
    return list(STRATEGIES.files(folder))


def strategy_file(name: str, folder: str | Path | None = None) -> Path:
    """The file of a strategy. Raises UserError with the nearest name when there is none."""
    files = STRATEGIES.files(folder)
    if name not in files:
        raise UserError(f"unknown strategy `{name}`; {nearest(name, files)}")
    return files[name]


def load_strategy(name: str, params: Mapping[str, Any] | None = None, folder: str | Path | None = None) -> Strategy:
    """A strategy by name, with its parameters bound (defaults where none are given).

    Raises:
        UserError: unknown strategy or parameter (with the nearest name), missing parameter, value out of bounds, or a
            file that lacks a part of a strategy.
    """
    path = strategy_file(name, folder)
    module = STRATEGIES.module(name, path)
    return Strategy(name, path, module, STRATEGIES.check(name, module.Params, params or {}))
