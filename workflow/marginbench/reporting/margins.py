"""Figure: margins of the pairs by each scorer, and how the scorers agree on the same pairs."""

import math
from collections.abc import Iterable
from pathlib import Path

import matplotlib.pyplot as plt
import numpy as np
import pandas as pd

from marginbench.errors import UserError
from marginbench.records import MARGINS, read_table
from marginbench.reporting.shared import indifferent
from marginbench.reporting.style import COLOURS, GREY, RC, save

MOST_BINS = 40


def margins_by_cell(paths: Iterable[str | Path]) -> dict[str, pd.DataFrame]:
    """Margins from files `{dataset}/{model}/{shared}/margins/{scorer}.parquet`, by `dataset, model`.

    A value is one column per scorer in the order of the files, indexed by pair_id; a pair that a scorer has not scored
    is NaN there. Seeds of redrawn shared stages are cells of their own.
    """
    cells: dict[str, dict[str, pd.Series]] = {}
    for path in map(Path, paths):
        dataset, model, shared = path.parts[-5:-2]
        name = ", ".join([dataset, model] + ([shared.removeprefix("shared-")] if shared != "shared" else []))
        table = read_table(path, MARGINS)
        cells.setdefault(name, {})[path.stem] = table.set_index("pair_id")["margin"]
    return {name: pd.DataFrame(columns) for name, columns in cells.items()}


def agreement(margins: pd.DataFrame) -> pd.DataFrame:
    """Correlations of scorers, (scorers, scorers): Spearman above the diagonal, Pearson below, NaN on it.

    On the pairs that both have scored; NaN where a scorer gives all of them the same margin.
    """
    rank, linear = margins.corr(method="spearman"), margins.corr(method="pearson")
    upper = np.triu(np.ones(rank.shape, dtype=bool), 1)
    mixed = np.where(upper, rank.to_numpy(), linear.to_numpy())
    np.fill_diagonal(mixed, np.nan)
    return pd.DataFrame(mixed, index=margins.columns, columns=margins.columns)


def bin_edges(values: np.ndarray, line: float) -> np.ndarray:
    """Edges of equal bins over the values, one of them on the line, so that no bar stands on both its sides."""
    low, high = min(values.min(), line), max(values.max(), line)
    width = (high - low or 1.0) / np.clip(2 * math.sqrt(len(values)), 8, MOST_BINS)
    return line + width * np.arange(math.floor((low - line) / width), math.floor((high - line) / width) + 2)


def _histogram(axis: plt.Axes, margins: pd.Series, colour: str) -> None:
    values, line = margins.dropna().to_numpy(), indifferent(str(margins.name))
    axis.hist(values, bins=bin_edges(values, line), color=colour)
    axis.yaxis.get_major_locator().set_params(integer=True)
    axis.xaxis.get_major_locator().set_params(nbins=5)
    axis.axvline(line, color=GREY, linewidth=0.9, linestyle=(0, (4, 3)))
    share = 100 * float((values < line).mean())
    below = "h < 0" if line == 0 else "h < −log 2"
    axis.set_title(f"{margins.name}\n{below}: {share:.1f} % of {len(values)} pairs", loc="left")
    axis.set_xlabel("margin h")
    axis.set_ylabel("pairs")


def _matrix(axis: plt.Axes, margins: pd.DataFrame) -> None:
    found = agreement(margins)
    names = [str(name).replace("_", "\n") for name in found.columns]
    axis.imshow(found.to_numpy(), cmap="PuOr", vmin=-1, vmax=1)
    for row, column in np.ndindex(found.shape):
        value = found.iat[row, column]
        if row != column:
            dark = abs(value) > 0.6
            text = "–" if math.isnan(value) else f"{value:.2f}"
            axis.text(column, row, text, ha="center", va="center", color="white" if dark else "black", fontsize=8)
    axis.set_xticks(range(len(names)), names, fontsize=7)
    axis.set_yticks(range(len(names)), names, fontsize=7)
    axis.set_title("agreement: Spearman above the\ndiagonal, Pearson below", loc="left")
    axis.grid(False)
    axis.spines[:].set_visible(False)
    axis.tick_params(length=0)


def plot_margins(margins: Iterable[str | Path], paths: Iterable[str | Path]) -> None:
    """Draw a row per (dataset, model): a histogram per scorer and, with two scorers or more, their correlations.

    Args:
        margins: MARGINS files of all scorers, in the order in which they are drawn.
        paths: files to write; the suffix gives the format.

    Raises:
        UserError: no margins at all.
    """
    cells = margins_by_cell(margins)
    if not cells:
        raise UserError("margins: there is none to draw; name a scorer under `margins`")
    scorers = list(dict.fromkeys(str(name) for frame in cells.values() for name in frame.columns))
    colours = {scorer: COLOURS[i % len(COLOURS)] for i, scorer in enumerate(scorers)}
    panels = len(scorers) + (len(scorers) > 1)
    columns = 2 if panels == 4 else min(panels, 3)
    lines = -(-panels // columns)
    size = (max(3.3 * columns, 4.2), (2.7 * lines + 0.3) * len(cells))
    with plt.rc_context(RC):
        figure = plt.figure(figsize=size, layout="constrained")
        rows = np.atleast_1d(figure.subfigures(len(cells), 1))
        for row, (name, frame) in zip(rows, cells.items(), strict=True):
            row.suptitle(name, x=0.01, ha="left", fontsize=9.5, fontweight="bold")
            axes = row.subplots(lines, columns, squeeze=False).flat
            for axis in axes[panels:]:
                axis.remove()
            for axis, scorer in zip(axes, scorers, strict=False):
                _histogram(axis, frame[scorer], colours[scorer])
            if len(scorers) > 1:
                _matrix(axes[panels - 1], frame)
        save(figure, list(paths))
        plt.close(figure)
