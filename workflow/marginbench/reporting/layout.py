"""The comparison laid out as panels of text cells, which table.md, table.tex and the terminal each print their way."""

from dataclasses import dataclass

import numpy as np
import pandas as pd

from marginbench.reporting.catalog import Metric, describe, in_main_panel, order_of
from marginbench.study import START


@dataclass(frozen=True)
class Cell:
    """A value as text, and its interval as text or nothing."""

    value: str
    interval: str = ""

    @property
    def line(self) -> str:
        """Both on one line."""
        return f"{self.value} {self.interval}".strip()


@dataclass(frozen=True)
class Panel:
    """A small table: a title, heads, and a row of cells per method. `rows[i][0]` belongs to `heads[0]`."""

    title: str
    heads: tuple[str, ...]
    rows: tuple[tuple[str, tuple[Cell, ...]], ...]


BLANK = Cell("–")


def _cell(metric: Metric, row: pd.Series | None, prefix: str) -> Cell:
    if row is None or pd.isna(row[prefix]):
        return BLANK
    signed = prefix != "mean"
    low, high = row[f"{prefix}_low"], row[f"{prefix}_high"]
    if pd.isna(low) or np.isclose(low, high, rtol=0, atol=1e-9):
        return Cell(metric.show(row[prefix], signed))
    return Cell(metric.show(row[prefix], signed), f"[{metric.show(low, signed)}, {metric.show(high, signed)}]")


def _columns(cells: pd.DataFrame, capability: bool) -> list[tuple[str, str, str]]:
    """(metric, judge, prefix) of the columns that have anything to show."""
    known = cells[cells["mean"].notna()]
    columns = []
    for metric, judge in sorted(
        set(zip(known["metric"], known["judge"], strict=True)), key=lambda c: (order_of(c[0]), c[1])
    ):
        entry = describe(metric)
        if entry.capability != capability or not (capability or in_main_panel(metric)):
            continue
        columns.append((metric, judge, "mean"))
        same = known[(known["metric"] == metric) & (known["judge"] == judge)]
        if (capability or metric == "true_reward") and same["vs_start"].notna().any():
            columns.append((metric, judge, "vs_start"))
    return columns


def _head(metric: Metric, judge: str, prefix: str, judges: int) -> str:
    if prefix == "vs_start":
        unit = " (points)" if metric.unit == "%" else ""
        return f"Δ {metric.label}{unit}"
    by = f", {judge}" if judge and judges > 1 else ""
    return f"{metric.head}{by} {metric.arrow}".strip()


def _panel(title: str, cells: pd.DataFrame, columns: list[tuple[str, str, str]]) -> Panel:
    judges = len({judge for _, judge, _ in columns if judge})
    heads = tuple(_head(describe(metric), judge, prefix, judges) for metric, judge, prefix in columns)
    rows = []
    for method in cells["method"].unique():
        own = cells[cells["method"] == method].set_index(["metric", "judge"])
        line = []
        for metric, judge, prefix in columns:
            row = own.loc[(metric, judge)] if (metric, judge) in own.index else None
            line.append(_cell(describe(metric), row, prefix))
        rows.append((method, tuple(line)))
    return Panel(title, heads, tuple(rows))


def panels(cells: pd.DataFrame) -> list[Panel]:
    """Per dataset and model: what was gained and what it cost (one panel per generation), then capability.

    Values come in the catalog's units; `Δ` is the difference to the SFT start, with its own (paired) interval.
    """
    found = []
    for (dataset, model), block in cells.groupby(["dataset", "model"], sort=False):
        texts = block[block["generation"] != ""]
        for generation, rows in texts.groupby("generation", sort=False):
            columns = _columns(rows, capability=False)
            if columns:
                found.append(_panel(f"{dataset}, {model}, answers {generation}", rows, columns))
        tasks = block[block["generation"] == ""]
        columns = _columns(tasks, capability=True)
        if columns:
            found.append(_panel(f"{dataset}, {model}, capability", tasks, columns))
    return found


def method_label(method: str) -> str:
    """A method's id, the SFT start in words."""
    return "SFT start" if method == START else method
