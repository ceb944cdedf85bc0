"""Figure: reward against KL, the frontier on which methods are compared (DPO paper, figure 2)."""

from collections.abc import Iterable, Sequence
from pathlib import Path

import matplotlib.pyplot as plt
import pandas as pd

from marginbench.reporting.catalog import describe
from marginbench.reporting.layout import method_label
from marginbench.reporting.style import GREY, RC, look, save
from marginbench.statistics.intervals import OVER_SEEDS

PANEL = ["dataset", "model", "generation"]


def vertical(cells: pd.DataFrame) -> tuple[str, str]:
    """(metric, judge) of the vertical axis: the true reward, or the first judge's win rate where there is none."""
    known = cells[cells["mean"].notna()]
    if (known["metric"] == "true_reward").any():
        return "true_reward", ""
    judges = known.loc[known["metric"] == "win_rate", "judge"]
    return ("win_rate", str(judges.iloc[0])) if len(judges) else ("true_reward", "")


def _of(frame: pd.DataFrame, metric: str, judge: str) -> pd.DataFrame:
    return frame[(frame["metric"] == metric) & (frame["judge"] == judge)]


def _error(row: pd.Series) -> list[list[float]] | None:
    if pd.isna(row["mean_low"]):
        return None
    return [[row["mean"] - row["mean_low"]], [row["mean_high"] - row["mean"]]]


def _draw(axis: plt.Axes, cells: pd.DataFrame, runs: pd.DataFrame, axes: tuple[str, str], styles: dict) -> int:
    """Draw one panel; returns how many methods have both values."""
    x_cells = _of(cells[cells["mean"].notna()], "kl", "").set_index("method")
    y_cells = _of(cells[cells["mean"].notna()], *axes).set_index("method")
    drawn = [method for method in styles if method in x_cells.index and method in y_cells.index]
    for method in drawn:
        colour, marker = styles[method]
        x, y = x_cells.loc[method], y_cells.loc[method]
        size = 11 if marker == "*" else 7
        axis.errorbar(
            x["mean"], y["mean"], xerr=_error(x), yerr=_error(y), color=colour, elinewidth=1.1, capsize=2.5,
            linestyle="none", zorder=2,
        )  # fmt: skip
        axis.plot(
            x["mean"], y["mean"], color=colour, marker=marker, markersize=size, markeredgecolor="white",
            markeredgewidth=0.7, linestyle="none", label=method_label(method), zorder=3,
        )  # fmt: skip
        own = runs[runs["method"] == method]
        seeds = pd.DataFrame(
            {"x": _of(own, "kl", "").set_index("seed")["value"], "y": _of(own, *axes).set_index("seed")["value"]}
        ).dropna()
        if len(seeds) > 1:
            axis.scatter(seeds["x"], seeds["y"], s=16, marker=marker, facecolor="white", edgecolor=colour, zorder=4)
    return len(drawn)


def _note(texts: pd.DataFrame, confidence: float) -> str:
    seeds, level = int(texts["seeds"].max()), f"{100 * confidence:g} % t-intervals"
    single = "Small open points: single seeds."
    if (texts["mean_over"] == OVER_SEEDS).any():
        return f"Bars: {level} over {seeds} seeds. {single}"
    return f"Bars: {level} over prompts, one seed." if seeds < 2 else f"{seeds} seeds: no interval. {single}"


def plot_reward_kl(
    cells: pd.DataFrame,
    metrics: pd.DataFrame,
    paths: Iterable[str | Path],
    *,
    confidence: float,
    methods: Sequence[str] = (),
) -> None:
    """Draw reward against KL from the start: a panel per (dataset, model, generation), a point per method.

    A panel without KL (greedy or cut sampling) says so instead of staying empty.

    Args:
        cells: the frame of `compare` (means and intervals).
        metrics: the METRICS frame, for the small points of single seeds.
        paths: files to write; the suffix gives the format.
        confidence: level of the intervals in `cells`, for the note.
        methods: order of the methods, for the same colours in every figure.
    """
    texts, answered = cells[cells["generation"] != ""], metrics[metrics["generation"] != ""]
    groups = list(texts.groupby(PANEL, sort=False))
    found = list(dict.fromkeys(texts["method"]))
    styles = look([*[m for m in methods if m in found], *[m for m in found if m not in methods]])
    axes = vertical(texts)
    columns = min(len(groups), 3)
    lines = -(-len(groups) // columns)
    size = (4.8 if columns == 1 else 3.6 * columns, 3.4 * lines + 0.5)
    with plt.rc_context(RC):
        figure, grid = plt.subplots(lines, columns, figsize=size, squeeze=False, layout="constrained")
        for axis in grid.flat[len(groups) :]:
            axis.remove()
        for axis, (key, rows) in zip(grid.flat, groups, strict=False):
            own = answered[(answered[PANEL] == list(key)).all(axis=1)]
            if not _draw(axis, rows, own, axes, styles):
                axis.text(0.5, 0.5, "KL or reward not measured", transform=axis.transAxes, ha="center", color=GREY)
            axis.axvline(0, color=GREY, linewidth=0.8, linestyle=(0, (4, 3)), zorder=1)
            axis.set_title(", ".join(key), loc="left")
            axis.set_xlabel("KL from the SFT start (nats per answer)")
            axis.set_ylabel(describe(axes[0]).head + (f", {axes[1]}" if axes[1] else ""))
        handles = {label: h for axis in figure.axes for h, label in zip(*axis.get_legend_handles_labels(), strict=True)}
        if handles:
            figure.legend(handles.values(), handles.keys(), loc="outside upper left", ncols=min(len(handles), 4))
        figure.supxlabel(_note(texts, confidence), fontsize=8, color=GREY, x=0.01, ha="left")
        save(figure, list(paths))
        plt.close(figure)
