"""Printed numbers that others contradict: found by arithmetic, and listed in resources/published/disagreements.csv.

A disagreement says that printed numbers can't all be right as printed, not which of them is wrong.
"""

from dataclasses import replace
from pathlib import Path

import pandas as pd

from marginbench.errors import UserError
from marginbench.reporting import rounding
from marginbench.reporting.published import range_of
from marginbench.reporting.readding import CHECKS
from marginbench.reporting.rounding import Range

LABELS = ["target", "row", "dataset", "model", "setting", "metric", "judge", "rank"]
FOUND_COLUMNS = ["check", *LABELS, "printed", "low", "high"]
LISTED_COLUMNS = [*FOUND_COLUMNS, "note"]


def readd(published: pd.DataFrame) -> pd.DataFrame:
    """Every printed number that can be computed from others: FOUND_COLUMNS and `agrees`, in the order of CHECKS.

    `low` to `high` is what the other numbers allow for the unrounded one; it `agrees` if rounding can lead from there
    to what is printed. A number may be checked in more than one way.
    """
    rows = []
    for check in CHECKS:
        for place, allowed in check.find(published):
            row = published.loc[place]
            printed = _printed(row, check.column, check.decimals)
            found = {"printed": row[check.column], "low": allowed.low, "high": allowed.high}
            labels = {name: row[name] for name in LABELS}
            rows.append({"check": check.name, **labels, **found, "agrees": printed.meets(allowed)})
    return pd.DataFrame(rows, columns=[*FOUND_COLUMNS, "agrees"])


def _printed(row: pd.Series, column: str, decimals: int) -> Range:
    if column != "value":
        return rounding.printed_range(float(row[column]), decimals)
    printed = range_of(row)
    return replace(printed, low=min(0.0, printed.low)) if row["relation"] == "<" else printed


def disagreements(published: pd.DataFrame) -> pd.DataFrame:
    """The rows of `readd` that don't agree: FOUND_COLUMNS, sorted by cell and check."""
    found = readd(published)
    found = found[~found["agrees"]].sort_values([*LABELS, "check"], kind="stable")
    return found[FOUND_COLUMNS].reset_index(drop=True)


def read_disagreements(folder: str | Path) -> pd.DataFrame:
    """The listed disagreements: FOUND_COLUMNS and a note on what is known; UserError on other columns."""
    path = Path(folder) / "disagreements.csv"
    numbers = {"rank": int, "printed": float, "low": float, "high": float}
    text = dict.fromkeys(set(LISTED_COLUMNS) - set(numbers), str)
    try:
        listed = pd.read_csv(path, keep_default_na=False, dtype={**text, **numbers})
    except FileNotFoundError as error:
        raise UserError(f"{path}: no such file; disagreements between printed numbers are listed there") from error
    except ValueError as error:
        raise UserError(f"{path}: {error}") from error
    if list(listed.columns) != LISTED_COLUMNS:
        raise UserError(f"{path}: columns must be {', '.join(LISTED_COLUMNS)}")
    return listed
