"""Figure: does an arm's lead survive another judge than the one that labelled its training pairs? Labeller by judge."""

from collections.abc import Iterable
from pathlib import Path

import matplotlib.pyplot as plt
import numpy as np
import pandas as pd

from marginbench.reporting.catalog import describe
from marginbench.reporting.online import CELL
from marginbench.reporting.style import COLOURS, GREY, RC, save


def _panel(axis: plt.Axes, rows: pd.DataFrame, largest: float) -> None:
    judges = sorted(set(rows["judge"]))
    lines = list(rows[["labeller", "ours", "theirs"]].drop_duplicates().itertuples(index=False, name=None))
    values = np.full((len(lines), len(judges)), np.nan)
    for row in rows.itertuples(index=False):
        place = lines.index((row.labeller, row.ours, row.theirs)), judges.index(row.judge)
        values[place] = row.difference
        text = describe("win_rate").show(row.difference, signed=True)
        if not pd.isna(row.low):
            text += f"\n[{row.low:+.1f}, {row.high:+.1f}]".replace("-", "−")
        light = abs(row.difference) > 0.6 * largest
        axis.text(*place[::-1], text, ha="center", va="center", fontsize=8, color="white" if light else "black")
        if row.judge_is_labeller:
            low, left = place[0] - 0.47, place[1] - 0.47
            axis.add_patch(plt.Rectangle((left, low), 0.94, 0.94, fill=False, edgecolor=COLOURS[1], linewidth=2))
    axis.imshow(values, cmap="PuOr", vmin=-largest, vmax=largest, aspect="auto")
    axis.set_xticks(range(len(judges)), [judge.replace("_", "\n") for judge in judges], fontsize=8)
    axis.set_yticks(range(len(lines)), [f"{who}\n{ours} − {theirs}" for who, ours, theirs in lines], fontsize=8)
    axis.set_xlabel("judged by")
    axis.set_ylabel("labelled by")
    axis.grid(False)
    axis.spines[:].set_visible(False)
    axis.tick_params(length=0)


def plot_matrix(matrix: pd.DataFrame, paths: Iterable[str | Path]) -> None:
    """Draw a panel per (dataset, model) of the frame of `reporting.online.matrix_online`.

    Args:
        matrix: that frame; without rows (a study that compares no arms) the figure says so.
        paths: files to write; the suffix gives the format.
    """
    panels = [(key, rows) for key, rows in matrix.groupby(CELL[:3], sort=True)]
    tall = [len(rows[["labeller", "ours", "theirs"]].drop_duplicates()) for _, rows in panels] or [1]
    wide = matrix["judge"].nunique() or 2
    known = matrix["difference"].abs().max()
    largest = float(known) if known > 0 else 1.0
    with plt.rc_context(RC):
        size = (2.2 + 1.5 * wide, sum(0.62 * lines + 1.1 for lines in tall))
        figure = plt.figure(figsize=size, layout="constrained")
        axes = figure.subplots(len(tall), 1, squeeze=False, height_ratios=tall)[:, 0]
        for axis, ((_, dataset, model), rows) in zip(axes, panels, strict=False):
            _panel(axis, rows, largest)
            axis.set_title(f"{dataset}, {model}: lead in win rate (points)", loc="left")
        if not panels:
            axes[0].set_axis_off()
            axes[0].text(0.5, 0.5, "the study compares no arms", ha="center", color=GREY)
        figure.supxlabel("Framed: this judge labelled the training pairs.", fontsize=8, color=GREY, x=0.01, ha="left")
        save(figure, list(paths))
        plt.close(figure)
