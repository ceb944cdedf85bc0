"""Two arms at the same budget: their learning paths read off where both have spent as much, by interpolation only.

An arm that generates 48 times as much per round has spent its whole budget elsewhere than its rival; which of the two
is ahead depends on what is held equal (rounds, labels, tokens, seconds), so each is asked separately.

A path is a Series of values indexed by what had been spent when they were measured, in order of measurement.
"""

from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np
import pandas as pd

OURS, THEIRS, BOTH = "ours", "theirs", "both"


@dataclass(frozen=True)
class Equalised:
    """Values of both arms at one budget, by seed.

    `budget` is None where no seed has a path in both arms; `ends_first` names the arm ("ours", "theirs", "both", or ""
    with no budget) whose shortest run set it. `ours` and `theirs` lack seeds whose path starts above the budget.
    `from_start` counts, for ours and theirs, the values that lie strictly between a path's first two checkpoints and so
    rest on a straight line from the start.
    """

    budget: float | None
    ends_first: str
    ours: pd.Series
    theirs: pd.Series
    from_start: tuple[int, int]


def _clean(path: pd.Series) -> pd.Series:
    """The path without missing values; where several were measured at the same budget the last one counts."""
    known = path.dropna()
    spent = known.index.to_numpy(dtype=float)
    if not np.isfinite(spent).all() or not np.isfinite(known.to_numpy(dtype=float)).all():
        raise ValueError("path: budgets and values must be finite")
    if (np.diff(spent) < 0).any():
        raise ValueError(f"path: what was spent falls after {spent[int(np.argmax(np.diff(spent) < 0))]:g}")
    return known[~known.index.duplicated(keep="last")]


def value_at(path: pd.Series, budget: float) -> float | None:
    """Value at a budget, on the straight line between the checkpoints around it; None outside of them.

    Checkpoints without a value are passed over. Raises ValueError where the budget falls along the path.
    """
    known = _clean(path)
    if known.empty or not known.index[0] <= budget <= known.index[-1]:
        return None
    return float(np.interp(budget, known.index.to_numpy(dtype=float), known.to_numpy(dtype=float)))


def _on_first_line(path: pd.Series, budget: float) -> bool:
    spent = _clean(path).index
    return len(spent) > 1 and bool(spent[0] < budget < spent[1])


def equalise(ours: Mapping[int, pd.Series], theirs: Mapping[int, pd.Series]) -> Equalised:
    """Both arms at the largest budget that all their runs have reached: one budget for all seeds that both have.

    `ours` and `theirs` map a seed to its path. One budget, so that the differences of all seeds estimate one quantity.
    """
    arms = [{seed: path for seed, path in arm.items() if path.notna().any()} for arm in (ours, theirs)]
    seeds = sorted(arms[0].keys() & arms[1].keys())
    if not seeds:
        return Equalised(None, "", pd.Series(dtype=float), pd.Series(dtype=float), (0, 0))
    ends = [min(float(_clean(arm[seed]).index[-1]) for seed in seeds) for arm in arms]
    budget = min(ends)
    first = BOTH if ends[0] == ends[1] else (OURS if ends[0] < ends[1] else THEIRS)
    values = [pd.Series({seed: value_at(arm[seed], budget) for seed in seeds}, dtype=float).dropna() for arm in arms]
    early = [sum(_on_first_line(arm[seed], budget) for seed in seeds) for arm in arms]
    return Equalised(budget, first, values[0], values[1], (early[0], early[1]))
