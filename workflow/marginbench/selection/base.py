"""What a strategy file is made of: the types that every `selection/<name>.py` uses. Importable without torch.

A strategy file holds, at module level:

- a docstring: what is selected and why, paper, and where released code deviates from it;
- `Params`: a subclass of `StrategyParams` with a description and bounds on every field;
- `stages(params) -> tuple[Stage, ...]`: what the round loop has to score, how many prompts survive, and whether they
  are sampled anew afterwards;
- `pool(params, n) -> int`: how many prompts are drawn from the pool in a round of n labels;
- `rank(table, n, rng, params, stage) -> list[str]`: the prompt_ids that survive a stage, in selection order. Pure: the
  same table and stream give the same ids. Ties go to the lower row. A prompt_id twice, a missing column, a value that
  is not finite and fewer rows than n are a UserError;
- `EXAMPLE`: a tuple of `Case`, small enough to check by hand;
- if needed, `LOOP = "accumulate"` (labels of all rounds are kept) and `RESETS_POLICY = True` (each round trains from
  the start again); without them a strategy is "continual".

A table has one row for each prompt, in pool order: `prompt_id`, and as the stage's score asks `entropy` (nats),
`margin` (implicit reward of the first answer minus that of the second) or `embedding` (a list of numbers).
"""

import math
import numbers
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Literal

import numpy as np
import pandas as pd
from pydantic import BaseModel, ConfigDict, Field

from marginbench.errors import UserError

Score = Literal["none", "entropy", "margin", "embedding"]
Loop = Literal["continual", "accumulate"]

PAIR = 2
"""Answers that a pair is made of."""


class StrategyParams(BaseModel):
    """Base of every strategy's `Params`: frozen, unknown keys refused, no infinities and no NaN."""

    model_config = ConfigDict(extra="forbid", frozen=True, allow_inf_nan=False)


class PoolParams(StrategyParams):
    """Parameters of a strategy that looks at more prompts than it takes."""

    pool_factor: int = Field(32, ge=1, description="Prompts drawn from the pool in a round, for each one taken.")


class EntropyParams(PoolParams):
    """Parameters of a strategy that estimates predictive entropies."""

    samples: int = Field(2, ge=1, description="Answers sampled to a prompt to estimate its entropy.")
    temperature: float | None = Field(
        1.0, gt=0, description="Their temperature, without truncation; null samples them as training answers are."
    )


@dataclass(frozen=True)
class Stage:
    """One step from a pool to fewer prompts, as the round loop drives it.

    Attributes:
        score: the column that is filled before the stage ranks; "none" needs no more than the prompt_ids.
        keep: (prompts that enter, n) -> how many survive; n in the last stage.
        fresh: the survivors' answers are sampled anew before the next stage, or before labelling after the last.
        samples: answers drawn to every prompt that enters, if it is the first stage or the one before it is `fresh`;
            otherwise the answers that are there are scored.
        temperature, top_k, top_p: how they are sampled where it differs from training answers; None as those are,
            top_k 0 and top_p 1 without truncation.
    """

    score: Score
    keep: Callable[[int, int], int]
    fresh: bool = False
    samples: int = PAIR
    temperature: float | None = None
    top_k: int | None = None
    top_p: float | None = None


@dataclass(frozen=True)
class Case:
    """A worked example: one stage on one table.

    Attributes:
        params: parameters of the strategy.
        table: column name -> values, one a prompt, in pool order.
        n: how many are kept.
        expected: their prompt_ids, in selection order.
        stage: the stage, from 0.
        seed: of the stream that is handed in; matters only where the strategy draws.
    """

    params: Mapping[str, Any]
    table: Mapping[str, Sequence[Any]]
    n: int
    expected: Sequence[str]
    stage: int = 0
    seed: int = 0


def only_n(size: int, n: int) -> int:
    """The `keep` of a last stage."""
    return n


def share_of(share: float) -> Callable[[int, int], int]:
    """The `keep` of a stage that keeps a share of what enters, rounded down, but never fewer than n.

    Rounded as in exact arithmetic: 0.29 of 100 is 29, though in binary the product falls short of it.
    """
    return lambda size, n: max(n, math.floor(share * size + 1e-9))


def entropy_stage(params: EntropyParams, keep: Callable[[int, int], int]) -> Stage:
    """A stage by predictive entropy, on answers of its own: an estimate from truncated sampling falls short."""
    if params.temperature is None:
        return Stage("entropy", keep, fresh=True, samples=params.samples)
    return Stage("entropy", keep, True, params.samples, params.temperature, top_k=0, top_p=1.0)


def prompt_ids(table: pd.DataFrame, n: int) -> list[str]:
    """The table's prompt_ids, in row order. Raises UserError if one stands there twice, or there are fewer than n."""
    if "prompt_id" not in table:
        raise UserError("column `prompt_id` is missing; give every prompt an id")
    if n < 1:
        raise UserError(f"n = {n}: at least one prompt must be taken")
    ids = table["prompt_id"].tolist()
    first: dict[str, int] = {}
    for row, value in enumerate(ids):
        if isinstance(value, bool) or not isinstance(value, str | int):
            raise UserError(f"row {row} (from 0): prompt_id {value!r} is neither a string nor a whole number")
        if value in first:
            raise UserError(f"row {row} (from 0): prompt_id {value!r} stands in row {first[value]} too; keep one")
        first[value] = row
    if len(ids) < n:
        raise UserError(f"{len(ids)} prompts, but n = {n}; take fewer or give more")
    return ids


def numbers_in(table: pd.DataFrame, column: str) -> np.ndarray:
    """A score of every prompt, float64, shape (rows,). Raises UserError on a missing column or a value not finite."""
    values = _values(table, column)
    for row, value in enumerate(values):
        if isinstance(value, bool) or not isinstance(value, numbers.Real) or not math.isfinite(value):
            raise UserError(f"column `{column}`, row {row} (from 0): {value!r} is not a finite number")
    return np.array(values, dtype=np.float64)


def vectors_in(table: pd.DataFrame, column: str) -> np.ndarray:
    """A vector for every prompt, float64, shape (rows, dimensions). Raises UserError as `numbers_in`, or on lengths."""
    found: list[np.ndarray] = []
    for row, value in enumerate(_values(table, column)):
        try:
            vector = np.asarray(value, dtype=np.float64)
        except (TypeError, ValueError):
            vector = np.empty(0)
        if vector.ndim != 1 or not len(vector) or not np.isfinite(vector).all():
            raise UserError(f"column `{column}`, row {row} (from 0): not a list of finite numbers")
        if found and len(vector) != len(found[0]):
            raise UserError(
                f"column `{column}`, row {row} (from 0): {len(vector)} numbers, but row 0 has {len(found[0])}"
            )
        found.append(vector)
    return np.stack(found) if found else np.empty((0, 0))


def _values(table: pd.DataFrame, column: str) -> list[Any]:
    if column not in table:
        raise UserError(f"column `{column}` is missing; the strategy ranks by it")
    return table[column].tolist()


def largest(table: pd.DataFrame, n: int, values: np.ndarray) -> list[str]:
    """prompt_ids of the n largest values, largest first, ties to the lower row; values has shape (rows,)."""
    ids = prompt_ids(table, n)
    return [ids[row] for row in np.argsort(-values, kind="stable")[:n]]
