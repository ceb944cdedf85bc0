"""Figure: win rate against capability, one path per seed and arm. A win rate that rises while capability falls."""

from collections.abc import Iterable, Sequence
from pathlib import Path

import matplotlib.pyplot as plt
import numpy as np
import pandas as pd

from marginbench.errors import UserError
from marginbench.reporting.catalog import describe, order_of
from marginbench.reporting.layout import method_label
from marginbench.reporting.online import CELL, check_online
from marginbench.reporting.style import GREY, RC, look, save
from marginbench.study import START

FLATTERED = "#fdf3ea"
"""Background where the judge labelled the training pairs, too."""


def points(rows: pd.DataFrame, judge: str, task: str) -> dict[tuple[str, int], pd.DataFrame]:
    """(arm, seed) -> evaluated rounds that have both values: columns x (capability) and y (win rate), by round.

    Values are in the units that people read (per cent). Runs without any such round are left out.
    """
    x = rows[rows["metric"] == task]
    y = rows[(rows["metric"] == "win_rate") & (rows["judge"] == judge)]
    both = x.merge(y, on=["arm", "seed", "round"], suffixes=("_x", "_y")).dropna(subset=["value_x", "value_y"])
    both = both.assign(x=both["value_x"] * describe(task).scale, y=both["value_y"] * describe("win_rate").scale)
    runs = both.sort_values("round").groupby(["arm", "seed"], sort=True)
    return {(str(arm), int(seed)): run.set_index("round")[["x", "y"]] for (arm, seed), run in runs}


def _draw(axis: plt.Axes, runs: dict[tuple[str, int], pd.DataFrame], styles: dict) -> None:
    starts = []
    for arm, (colour, marker) in styles.items():
        label = arm
        for (name, _), run in runs.items():
            if name != arm:
                continue
            axis.plot(run["x"], run["y"], color=colour, linewidth=1.1, alpha=0.75, marker=".", markersize=4, zorder=2)
            axis.plot(
                run["x"].iloc[-1:], run["y"].iloc[-1:], color=colour, marker=marker, markersize=7,
                markeredgecolor="white", markeredgewidth=0.7, linestyle="none", label=label, zorder=3,
            )  # fmt: skip
            label = None
            starts += [run.loc[0]] if 0 in run.index else []
    if not starts:
        return
    colour, marker = styles[START]
    xs, ys = zip(*dict.fromkeys((start["x"], start["y"]) for start in starts), strict=True)
    axis.plot(
        xs, ys, color=colour, marker=marker, markersize=11, markeredgecolor="white", markeredgewidth=0.7,
        linestyle="none", label=method_label(START), zorder=4,
    )  # fmt: skip
    dashes = {"color": GREY, "linewidth": 0.8, "linestyle": (0, (4, 3)), "zorder": 1}
    axis.axhline(float(np.mean(ys)), **dashes)
    axis.axvline(float(np.mean(xs)), **dashes)


def _ordered(found: Iterable[str], first: Sequence[str]) -> list[str]:
    unique = list(dict.fromkeys(found))
    return [*(name for name in first if name in unique), *(name for name in unique if name not in first)]


def plot_dissociation(
    frame: pd.DataFrame,
    paths: Iterable[str | Path],
    *,
    tasks: Sequence[str] = (),
    judges: Sequence[str] = (),
    arms: Sequence[str] = (),
) -> None:
    """Draw a row of panels per (dataset, model, labeller, judge), a panel per capability task.

    Args:
        frame: ONLINE_METRICS frame.
        paths: files to write; the suffix gives the format.
        tasks: capability tasks to draw; all that were measured where none is named.
        judges: judges to draw; all where none is named.
        arms: order of the arms, for the same colours in every figure.

    Raises:
        UserError: no round of any run has both a win rate and a capability.
    """
    frame = check_online(frame)
    measured = sorted({metric for metric in frame["metric"] if describe(metric).capability}, key=order_of)
    tasks = list(tasks or measured)
    rows: list[tuple[tuple, list[dict]]] = []
    for key, block in frame.groupby(CELL, sort=True):
        known = sorted(set(block.loc[block["metric"] == "win_rate", "judge"]))
        for judge in [name for name in (judges or known) if name in known]:
            runs = [points(block, judge, task) for task in tasks]
            if any(runs):
                flatters = bool(block.loc[block["judge"] == judge, "judge_is_labeller"].any())
                rows.append(((*key[1:], judge, flatters), runs))
    if not rows:
        raise UserError("dissociation: no round has both a win rate and a capability; evaluate both in the same rounds")
    styles = look([START, *_ordered(sorted(set(frame["arm"])), arms)])
    wide = 3.4 * len(tasks) if len(tasks) > 1 else 4.8
    with plt.rc_context(RC):
        figure = plt.figure(figsize=(wide, 3.3 * len(rows) + 0.7), layout="constrained")
        axes = figure.subplots(len(rows), len(tasks), squeeze=False)
        for line, ((dataset, model, labeller, judge, flatters), runs) in zip(axes, rows, strict=True):
            for axis, task, own in zip(line, tasks, runs, strict=True):
                if own:
                    _draw(axis, own, styles)
                else:
                    axis.text(0.5, 0.5, "not measured", transform=axis.transAxes, ha="center", color=GREY)
                entry = describe(task)
                axis.set_xlabel(f"{entry.head} {entry.arrow}".strip())
                if flatters:
                    axis.set_facecolor(FLATTERED)
            line[0].set_ylabel(f"win rate (%), {judge}")
            too = "\nand judged by it, too" if flatters else ""
            line[0].set_title(f"{dataset}, {model}, labelled by {labeller}{too}", loc="left")
        handles = {label: h for axis in figure.axes for h, label in zip(*axis.get_legend_handles_labels(), strict=True)}
        figure.legend(handles.values(), handles.keys(), loc="outside upper left", ncols=min(len(handles), 5))
        note = "A path is one seed, in order of rounds; large: the last one. Dashed: SFT start."
        figure.supxlabel(note, fontsize=8, color=GREY, x=0.01, ha="left")
        save(figure, list(paths))
        plt.close(figure)
