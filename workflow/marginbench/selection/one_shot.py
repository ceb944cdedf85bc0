"""A strategy on a pool that was scored beforehand: `marginbench select`. All stages on one table, nothing sampled."""

import json
from pathlib import Path

import numpy as np
import pandas as pd
import pyarrow as pa

from marginbench.errors import UserError
from marginbench.selection.base import prompt_ids
from marginbench.selection.registry import Strategy


def read_pool(path: str | Path) -> pd.DataFrame:
    """A pool from .parquet, or .json: `[{"prompt_id": ..., "entropy": ...}, ...]`, or an object of columns.

    Raises:
        UserError: no such file, another ending, not readable, not a table.
    """
    path = Path(path)
    if path.suffix not in (".parquet", ".json"):
        raise UserError(f"{path}: a pool is a .parquet or .json file")
    try:
        if path.suffix == ".parquet":
            return pd.read_parquet(path)
        return _frame(json.loads(path.read_text(encoding="utf-8")), path)
    except FileNotFoundError as error:
        raise UserError(f"{path}: no such file; name a file with a row for each prompt") from error
    except json.JSONDecodeError as error:
        raise UserError(f"{path}: line {error.lineno}: not JSON: {error.msg}") from error
    except (OSError, UnicodeDecodeError, pa.ArrowException) as error:
        reason = str(error).partition("\n")[0]
        raise UserError(f"{path}: cannot be read: {reason}; name a file with a row for each prompt") from error


def _frame(content: object, path: Path) -> pd.DataFrame:
    rows = isinstance(content, list) and all(isinstance(row, dict) for row in content)
    columns = isinstance(content, dict) and all(isinstance(values, list) for values in content.values())
    try:
        if rows or columns:
            return pd.DataFrame(content)
    except ValueError:  # columns of unequal lengths
        pass
    raise UserError(f'{path}: must be [{{"prompt_id": ..., "entropy": ...}}, ...], one object for each prompt')


def select(strategy: Strategy, table: pd.DataFrame, n: int, rng: np.random.Generator) -> list[str]:
    """The n prompt_ids that a strategy takes from a scored pool, in selection order.

    The pool is the whole table, whatever `pool_factor` says. Survivors of a stage stay in the table's order, so that
    ties go to the lower row in every stage.

    Args:
        strategy: parameters bound.
        table: one row for each prompt, with the columns of all the strategy's scores.
        n: how many are taken.
        rng: for strategies that draw.

    Raises:
        UserError: as `Strategy.rank`.
    """
    prompt_ids(table, n)
    for number, stage in enumerate(strategy.stages):
        ids = strategy.rank(table, stage.keep(len(table), n), rng, number)
        table = table[table["prompt_id"].isin(ids)]
    return ids
