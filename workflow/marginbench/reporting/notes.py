"""What a reader must know before believing a cell: kind of interval, nulls, partial runs, cut answers.

Made from the cells (table.csv) and shared.json alone, so that table.md, table.tex and the closing screen say the same.
"""

from typing import Any

import pandas as pd

from marginbench.reporting.catalog import describe
from marginbench.reporting.flags import flags
from marginbench.reporting.layout import method_label
from marginbench.statistics.intervals import MIN_SEEDS, OVER_ITEMS, OVER_SEEDS

STAGES = {"data": "data", "sft": "SFT start", "reward_model": "reward model"}
MANY_TRUNCATED = 0.05
NULLS_ARE_NORMAL = frozenset({"repeated_trigrams"})
"""Metrics that some answers cannot have by their nature, so that fewer items are no fault."""


def interval_note(cells: pd.DataFrame, shared: dict[str, Any]) -> str:
    """One sentence: over what the intervals are, and on what they are conditional."""
    level = f"{100 * shared['confidence']:g} %"
    seeds = int(cells["seeds"].max())
    if seeds == 1:
        return f"One seed: {level} intervals are over prompts (documents), not over trainings."
    if seeds < MIN_SEEDS:
        return f"{seeds} seeds: too few for an interval over trainings; means only."
    once = [label for stage, label in STAGES.items() if stage not in shared.get("reseed", [])]
    condition = (
        f", conditional on the shared stages made once ({', '.join(once)})"
        if once
        else "; every shared stage is redrawn"
    )
    return f"{seeds} seeds: {level} t-intervals over seeds{condition}."


def _name(row: Any, cells: pd.DataFrame) -> str:
    parts = [method_label(row.method)]
    for column in ("dataset", "model", "generation"):
        value = getattr(row, column)
        if value and cells.loc[cells[column] != "", column].nunique() > 1:
            parts.append(value)
    return ", ".join(parts)


def _listed(names: list[str]) -> str:
    return "; ".join(dict.fromkeys(names))


def _truncated(cells: pd.DataFrame) -> list[str]:
    rows = cells[cells["metric"].str.endswith("truncated") & cells["mean"].notna()]
    many = rows[rows["mean"] > MANY_TRUNCATED]
    if many.empty:
        return []
    if len(many) == len(rows) and (many["mean"] > 0.99).all():
        return ["Every method's answers end at the token limit: texts are continued up to a fixed length."]
    shares = [f"{_name(row, cells)} {100 * row.mean:.0f} %" for row in _rows(many)]
    return [f"Answers cut at the token limit: {_listed(shares)}."]


def _rows(frame: pd.DataFrame) -> list[Any]:
    # `mean` and `items` are also names of pandas methods, not of tuple methods: named tuples are safe to read.
    return list(frame.itertuples(index=False, name="Cell"))


def _nulls(cells: pd.DataFrame) -> list[str]:
    notes = []
    verdicts = cells[cells["metric"].str.endswith("judge_null") & (cells["mean"] > 0)]
    if len(verdicts):
        shares = [f"{_name(row, cells)} {100 * row.mean:.1f} % by {row.judge}" for row in _rows(verdicts)]
        notes.append(f"Verdicts that are null and left out of the win rate: {_listed(shares)}.")
    for metric, rows in cells[cells["mean"].isna()].groupby("metric", sort=True):
        names = [_name(row, cells) for row in _rows(rows)]
        notes.append(f"Not measured: {describe(metric).label} ({_listed(names)}).")
    return notes


def _partial(cells: pd.DataFrame) -> list[str]:
    notes = []
    expected = int(cells["seeds"].max())
    fewer = cells[(cells["seeds"] < expected) & (cells["seeds"] > 0)]
    for seeds, rows in fewer.groupby("seeds"):
        names = [_name(row, cells) for row in _rows(rows)]
        notes.append(f"Only {seeds} of {expected} seeds: {_listed(names)}.")
    for key, rows in cells[cells["mean"].notna()].groupby(["dataset", "model", "generation", "metric", "judge"]):
        if key[3] in NULLS_ARE_NORMAL:
            continue
        most = rows["items"].max()
        few = [f"{_name(row, cells)} {row.items} of {most}" for row in _rows(rows[rows["items"] < most])]
        if few:
            notes.append(f"Fewer items behind {describe(key[3]).label}: {_listed(few)}.")
    return notes


def _no_difference(cells: pd.DataFrame) -> list[str]:
    """Differences that stand without an interval beside means that have one."""
    shown = cells["metric"].map(lambda metric: describe(metric).capability or metric == "true_reward")
    rows = cells[
        shown
        & cells["vs_start"].notna()
        & cells["vs_start_low"].isna()
        & cells["mean_over"].isin([OVER_ITEMS, OVER_SEEDS])
    ]
    labels = [describe(metric).label for metric in rows["metric"].unique()]
    if not labels:
        return []
    return [f"No interval of the difference to the start: {', '.join(labels)} (not a mean of paired items)."]


def notes(cells: pd.DataFrame, shared: dict[str, Any]) -> list[str]:
    """Every remark that belongs under the table, most general first."""
    judges = list(cells.loc[cells["metric"] == "win_rate", "judge"].unique())
    found = [interval_note(cells, shared)]
    if judges:
        found.append(f"Win rate: against the SFT start's answers, 50 % is no change; judged by {', '.join(judges)}.")
    found += flags(cells) + _nulls(cells) + _partial(cells) + _truncated(cells) + _no_difference(cells)
    found += [f"Not computed: {item['what']} ({item['why']})." for item in shared.get("not_computed", [])]
    return found
