"""Figure: reward against KL, the frontier on which methods are compared (DPO paper, figure 2)."""

from collections.abc import Iterable, Sequence
from pathlib import Path

import matplotlib.pyplot as plt
import pandas as pd

from marginbench.errors import UserError
from marginbench.reporting.catalog import describe
from marginbench.reporting.layout import method_label
from marginbench.reporting.style import GREY, RC, look, save
from marginbench.statistics.intervals import OVER_SEEDS


def _error(row: pd.Series) -> list[list[float]] | None:
    if pd.isna(row["mean_low"]):
        return None
    return [[row["mean"] - row["mean_low"]], [row["mean_high"] - row["mean"]]]


def _points(cells: pd.DataFrame, reward: str) -> pd.DataFrame:
    """One row per method that has both values: x is KL, y is the reward."""
    x = cells[cells["metric"] == "kl"].set_index("method")
    y = cells[cells["metric"] == reward].drop_duplicates("method").set_index("method")
    both = [method for method in y.index if method in x.index]
    both = [method for method in both if pd.notna(x.loc[method, "mean"]) and pd.notna(y.loc[method, "mean"])]
    return pd.DataFrame({"x": [x.loc[m] for m in both], "y": [y.loc[m] for m in both]}, index=both)


def _seed_points(metrics: pd.DataFrame, method: str, reward: str) -> pd.DataFrame:
    own = metrics[metrics["method"] == method]
    wide = own[own["metric"].isin(["kl", reward])].pivot_table(index="seed", columns="metric", values="value")
    return wide.dropna() if {"kl", reward} <= set(wide.columns) else wide.iloc[:0]


def _draw(axis: plt.Axes, cells: pd.DataFrame, metrics: pd.DataFrame, reward: str, styles: dict) -> None:
    for method, point in _points(cells, reward).iterrows():
        colour, marker = styles[method]
        x, y = point["x"], point["y"]
        seeds = _seed_points(metrics, method, reward)
        if len(seeds) > 1:
            axis.scatter(
                seeds["kl"], seeds[reward], s=10, color=colour, marker=marker, alpha=0.45, linewidth=0, zorder=2
            )
        axis.errorbar(
            x["mean"], y["mean"], xerr=_error(x), yerr=_error(y), color=colour, marker=marker, markersize=7,
            markeredgecolor="white", markeredgewidth=0.7, elinewidth=1.1, capsize=2.5, linestyle="none",
            label=method_label(method), zorder=3,
        )  # fmt: skip
    axis.axvline(0, color=GREY, linewidth=0.8, linestyle=(0, (4, 3)), zorder=1)


def plot_reward_kl(
    cells: pd.DataFrame,
    metrics: pd.DataFrame,
    paths: Iterable[str | Path],
    *,
    confidence: float,
    methods: Sequence[str] = (),
    reward: str = "true_reward",
) -> None:
    """Draw reward against KL from the start: a panel per (dataset, model, generation), a point per method.

    Args:
        cells: the frame of `compare` (means and intervals).
        metrics: the METRICS frame, for the small points of single seeds.
        paths: files to write; the suffix gives the format.
        confidence: level of the intervals in `cells`, for the note.
        methods: order of the methods, for the same colours in every figure.
        reward: metric on the vertical axis.
    """
    texts = cells[cells["generation"] != ""]
    panels = [
        key for key, rows in texts.groupby(["dataset", "model", "generation"], sort=False) if len(_points(rows, reward))
    ]
    if not panels:
        raise UserError(f"no run has both `kl` and `{reward}`; sample answers with top_p 1 and a temperature above 0")
    found = list(dict.fromkeys(texts["method"]))
    styles = look([*[m for m in methods if m in found], *[m for m in found if m not in methods]])
    seeds = int(texts["seeds"].max())
    columns = min(len(panels), 3)
    rows_of_panels = -(-len(panels) // columns)
    with plt.rc_context(RC):
        figure, axes = plt.subplots(
            rows_of_panels, columns, figsize=(4.6 if columns == 1 else 3.6 * columns, 3.4 * rows_of_panels + 0.5),
            squeeze=False, layout="constrained",
        )  # fmt: skip
        for axis in axes.flat[len(panels) :]:
            axis.remove()
        for axis, key in zip(axes.flat, panels, strict=False):
            keep = (texts["dataset"] == key[0]) & (texts["model"] == key[1]) & (texts["generation"] == key[2])
            own = metrics[
                (metrics["dataset"] == key[0]) & (metrics["model"] == key[1]) & (metrics["generation"] == key[2])
            ]
            _draw(axis, texts[keep], own, reward, styles)
            axis.set_title(", ".join(key), loc="left")
            axis.set_xlabel("KL from the SFT start (nats per answer)")
            axis.set_ylabel(describe(reward).head)
        handles, labels = axes.flat[0].get_legend_handles_labels()
        figure.legend(handles, labels, loc="outside upper left", ncols=min(len(labels), 4))
        over = f"{seeds} seeds" if (texts["mean_over"] == OVER_SEEDS).any() else "prompts, one seed"
        note = f"Bars: {100 * confidence:g} % t-intervals over {over}."
        if seeds > 1:
            note = ("" if seeds == 2 else note + " ") + "Small points: single seeds."
        figure.supxlabel(note, fontsize=8, color=GREY, x=0.01, ha="left")
        save(figure, list(paths))
        plt.close(figure)
