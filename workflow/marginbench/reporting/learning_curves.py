"""Figure: how each method learned. Loss, implicit reward accuracy and margin against the optimiser step."""

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import matplotlib.pyplot as plt
import numpy as np
import pandas as pd

from marginbench.errors import UserError
from marginbench.records import TRAIN_LOG, read_table
from marginbench.reporting.style import GREY, RC, look, save
from marginbench.statistics.intervals import MIN_SEEDS, mean_interval

WINDOW_SHARE = 10
"""The running mean spans a tenth of the run: single batches of a few pairs are too noisy to read."""


@dataclass(frozen=True)
class Quantity:
    """One panel: a logged quantity, its axis label, and a level that means "nothing learned yet"."""

    name: str
    label: str
    level: float
    relative: bool = False
    from_step: int = 1


QUANTITIES = (
    Quantity("loss", "loss / loss of the first batch", 1.0, relative=True),
    # At step 1 the policy is the reference: every margin is 0 up to rounding, and the accuracy means nothing.
    Quantity("reward_accuracy", "implicit reward accuracy", 0.5, from_step=2),
    Quantity("reward_margin", "implicit reward margin (β × nats)", 0.0),
)

RunKey = tuple[str, str, str, int]
"""(dataset, model, method, seed)"""


def smooth(values: Sequence[float], window: int) -> np.ndarray:
    """Centred running mean; at the ends the window is cut, never padded."""
    array = np.asarray(values, dtype=float)
    half = window // 2
    return np.array([array[max(0, i - half) : i + half + 1].mean() for i in range(len(array))])


def curve(log: pd.DataFrame, quantity: Quantity) -> pd.Series:
    """A quantity by step, running mean over a tenth of the run; empty where the log has none.

    Relative ones are divided by their first value: losses of different methods have different scales (ln 2 for DPO,
    1 / (4 beta^2) for IPO). A first value that is not above 0 leaves no relative curve.
    """
    values = log[log["quantity"] == quantity.name].set_index("step")["value"].sort_index()
    if quantity.relative and len(values):
        if not values.iloc[0] > 0:
            return values.iloc[:0]
        values = values / values.iloc[0]
    values = values[values.index >= quantity.from_step]
    return pd.Series(smooth(values.to_numpy(), max(1, len(values) // WINDOW_SHARE)), index=values.index)


def band(curves: Sequence[pd.Series], confidence: float) -> pd.DataFrame:
    """Mean over seeds per step, with t-interval from MIN_SEEDS seeds on (else low and high are missing)."""
    table = pd.concat(curves, axis=1, join="inner").sort_index()
    rows = []
    for step, values in table.iterrows():
        low = high = np.nan
        if table.shape[1] >= MIN_SEEDS:
            interval = mean_interval(values.tolist(), confidence)
            low, high = interval.low, interval.high
        rows.append((step, float(values.mean()), low, high))
    return pd.DataFrame(rows, columns=["step", "mean", "low", "high"]).set_index("step")


def _draw(
    axis: plt.Axes, logs: Mapping[RunKey, pd.DataFrame], quantity: Quantity, styles: dict, confidence: float
) -> None:
    for method, (colour, _) in styles.items():
        curves = [curve(log, quantity) for (_, _, name, _), log in sorted(logs.items()) if name == method]
        curves = [values for values in curves if len(values)]
        if not curves:
            continue
        line = band(curves, confidence)
        if len(curves) > 1:
            for values in curves:
                axis.plot(values.index, values, color=colour, linewidth=0.6, alpha=0.45)
        if line["low"].notna().any():
            axis.fill_between(line.index, line["low"], line["high"], color=colour, alpha=0.15, linewidth=0)
        axis.plot(line.index, line["mean"], color=colour, linewidth=1.8, label=method)
    axis.axhline(quantity.level, color=GREY, linewidth=0.8, linestyle=(0, (4, 3)), zorder=1)
    axis.set_title(quantity.label, loc="left")
    axis.set_xlabel("optimiser step")
    if quantity.name == "reward_accuracy":
        axis.set_ylim(-0.03, 1.03)


def plot_learning_curves(
    logs: Mapping[RunKey, str | Path], paths: Iterable[str | Path], *, confidence: float, methods: Sequence[str] = ()
) -> None:
    """Draw the training logs: a row of three panels per (dataset, model), a colour per method.

    Args:
        logs: (dataset, model, method, seed) -> train.parquet.
        paths: files to write; the suffix gives the format.
        confidence: level of the band (t over seeds, from 3 seeds on; thin lines are single seeds).
        methods: order of the methods, for the same colours in every figure.
    """
    if not logs:
        raise UserError("no training log to draw; the study trains no method")
    frames = {key: read_table(path, TRAIN_LOG) for key, path in logs.items()}
    cells = sorted({key[:2] for key in frames})
    found = sorted({key[2] for key in frames})
    styles = look([*[m for m in methods if m in found], *[m for m in found if m not in methods]])
    seeds = len({key[3] for key in frames})
    with plt.rc_context(RC):
        figure, axes = plt.subplots(
            len(cells), len(QUANTITIES), figsize=(9.6, 2.9 * len(cells) + 0.5), squeeze=False, layout="constrained"
        )
        for row, cell in zip(axes, cells, strict=True):
            own = {key: frame for key, frame in frames.items() if key[:2] == cell}
            for axis, quantity in zip(row, QUANTITIES, strict=True):
                _draw(axis, own, quantity, styles, confidence)
            if len(cells) > 1:
                row[0].set_ylabel("\n".join(cell))
        handles, labels = axes[0][0].get_legend_handles_labels()
        figure.legend(handles, labels, loc="outside upper left", ncols=min(len(labels), 6))
        note = "one seed" if seeds == 1 else f"{seeds} seeds (thin lines)"
        if seeds >= MIN_SEEDS:
            note += f", band: {100 * confidence:g} % t-interval over seeds"
        figure.supxlabel(
            f"Running mean over a tenth of the run; {note}; dashed: policy = reference.",
            fontsize=8,
            color=GREY,
            x=0.01,
            ha="left",
        )
        save(figure, list(paths))
        plt.close(figure)
