"""From the long table to the cells of the comparison: mean over seeds, interval, difference to the start and to DPO."""

from collections.abc import Sequence
from dataclasses import replace

import numpy as np
import pandas as pd

from marginbench.reporting.catalog import describe, order_of
from marginbench.statistics.intervals import (
    NO_INTERVAL,
    OVER_SEEDS,
    Interval,
    headline_interval,
    paired_difference,
    paired_seeds_difference,
)
from marginbench.study import START

GROUP = ["study", "dataset", "model", "generation", "method", "metric", "judge"]
INTERVAL_PARTS = ("", "_low", "_high", "_over")
CELL_COLUMNS = [
    *GROUP,
    *(f"mean{part}" for part in INTERVAL_PARTS),
    "seeds",
    "items",
    *(f"vs_start{part}" for part in INTERVAL_PARTS),
    *(f"vs_dpo{part}" for part in INTERVAL_PARTS),
]
"""Columns of table.csv; explained in results/README.md."""

NO_CHANGE = 50.0
"""A win rate against the start is a difference already: no change is 50."""


def _parts(prefix: str, interval: Interval | None) -> dict[str, object]:
    if interval is None:
        return {f"{prefix}{part}": None for part in INTERVAL_PARTS[:3]} | {f"{prefix}_over": ""}
    values = (interval.mean, interval.low, interval.high, interval.how)
    return {f"{prefix}{part}": value for part, value in zip(INTERVAL_PARTS, values, strict=True)}


def _items_of(items: pd.DataFrame | None, cell: dict[str, object], method: str, seed: int) -> pd.DataFrame | None:
    if items is None or items.empty:
        return None
    keep = (items["method"] == method) & (items["seed"] == seed)
    for name in ("dataset", "model", "generation", "metric", "judge"):
        keep &= items[name] == cell[name]
    found = items[keep]
    return None if found.empty else found.set_index("item")


def _item_difference(
    a: pd.DataFrame | None, b: pd.DataFrame | None, difference: float, confidence: float
) -> Interval | None:
    """Paired by the items that both have, only where the items' mean is the metric (an F1 over a corpus has none)."""
    if a is None or b is None:
        return None
    shared = a.index.intersection(b.index)
    if len(shared) < 2:
        return None
    ours, theirs = a.loc[shared], b.loc[shared]
    weights = None if (ours["weight"] == 1).all() else ours["weight"]
    interval = paired_difference(ours["value"], theirs["value"], confidence, weights=weights)
    whole = len(shared) == len(a) == len(b)
    if whole and not np.isclose(interval.mean, difference, rtol=1e-6, atol=1e-9):
        return None
    return interval


def _difference(
    cell: dict[str, object],
    rows: pd.DataFrame,
    other: pd.DataFrame | None,
    items: pd.DataFrame | None,
    confidence: float,
) -> Interval | None:
    """Difference of two groups of runs, paired by seed; with one shared seed, paired by item within it."""
    if other is None or other is rows:
        return None
    ours, theirs = (frame.set_index("seed")["value"].dropna() for frame in (rows, other))
    seeds = ours.index.intersection(theirs.index).sort_values()
    if not len(seeds):
        return None
    if len(seeds) > 1:
        return paired_seeds_difference(ours.loc[seeds], theirs.loc[seeds], confidence)
    seed = int(seeds[0])
    difference = float(ours.loc[seed] - theirs.loc[seed])
    a = _items_of(items, cell, str(rows["method"].iloc[0]), seed)
    b = _items_of(items, cell, str(other["method"].iloc[0]), seed)
    by_item = _item_difference(a, b, difference, confidence)
    return by_item or Interval(difference, None, None, None, 1, NO_INTERVAL)


def _mean(cell: dict[str, object], rows: pd.DataFrame, confidence: float) -> Interval | None:
    known = rows[rows["value"].notna()]
    if known.empty:
        return None
    se = [None if pd.isna(value) else float(value) for value in known["se"]]
    metric = describe(str(cell["metric"]))
    interval = headline_interval(known["value"], se, known["n"].tolist(), confidence, metric.share)
    return _within(interval, *metric.bounds)


def _within(interval: Interval | None, low: float, high: float) -> Interval | None:
    """Ends that lie outside the values that the metric can take are moved to its bounds; coverage is unchanged."""
    if interval is None or interval.low is None or interval.high is None:
        return interval
    return replace(interval, low=max(interval.low, low), high=min(interval.high, high))


def compare(
    metrics: pd.DataFrame,
    confidence: float,
    items: pd.DataFrame | None = None,
    methods: Sequence[str] = (),
    dpo: str = "dpo",
) -> pd.DataFrame:
    """One row per (dataset, model, generation, method, metric, judge): columns CELL_COLUMNS, in the table's order.

    `metrics` is the METRICS frame, `items` that of `collect_items`; `methods` gives the order of the entries (the SFT
    start comes first; entries that are not named come last, by id). Intervals over seeds are used from 3 seeds on,
    within one seed they are over items, and `*_over` says which: seeds, items or none.
    """
    order = {START: -1, **{method: place for place, method in enumerate(methods) if method != START}}
    groups = {key: rows.sort_values("seed") for key, rows in metrics.groupby(GROUP, sort=True)}
    cells = []
    for key, rows in groups.items():
        cell = dict(zip(GROUP, key, strict=True))
        mean = _mean(cell, rows, confidence)
        known = rows[rows["value"].notna()]
        others = {
            name: None if cell["method"] == name else groups.get(_with_method(key, name)) for name in (START, dpo)
        }
        if describe(cell["metric"]).against_start:
            change = mean.shifted(-NO_CHANGE) if mean else None
        else:
            change = _difference(cell, rows, others[START], items, confidence)
        cells.append(
            {
                **cell,
                **_parts("mean", mean),
                "seeds": len(known),
                "items": int(known["n"].min()) if len(known) else 0,
                **_parts("vs_start", change),
                **_parts("vs_dpo", _difference(cell, rows, others[dpo], items, confidence)),
            }
        )
    frame = pd.DataFrame(cells, columns=CELL_COLUMNS)
    numbers = [name for name in CELL_COLUMNS if name.startswith(("mean", "vs_")) and not name.endswith("_over")]
    frame[numbers] = frame[numbers].astype(float)
    place = [
        (row.study, row.dataset, row.model, order.get(row.method, len(order)), row.method, row.generation)
        for row in frame.itertuples()
    ]
    columns = [(*order_of(metric), judge) for metric, judge in zip(frame["metric"], frame["judge"], strict=True)]
    return frame.iloc[sorted(range(len(frame)), key=lambda i: (place[i], columns[i]))].reset_index(drop=True)


def _with_method(key: tuple, method: str) -> tuple:
    return tuple(method if name == "method" else value for name, value in zip(GROUP, key, strict=True))


def over_seeds(cells: pd.DataFrame) -> bool:
    """Whether any interval of the comparison is one over seeds."""
    return bool((cells["mean_over"] == OVER_SEEDS).any())
