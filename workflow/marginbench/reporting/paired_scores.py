"""`marginbench compare scores`: two AlpacaEval annotation files against one baseline, instruction by instruction."""

import math
from pathlib import Path
from typing import Any

import pandas as pd
from scipy import stats

from marginbench.benchmarks.alpaca_files import read_annotations
from marginbench.benchmarks.alpaca_metrics import to_unit
from marginbench.errors import UserError
from marginbench.statistics.intervals import paired_difference


def compare_scores(a: str | Path, b: str | Path, confidence: float = 0.95) -> dict[str, Any]:
    """Difference of two win rates (A minus B, percent) over the instructions that both have a verdict for.

    SE is sd(d) / sqrt(n) of the differences d (Miller 2024, arXiv 2411.00640), interval and p are Student's t. The
    interval is over instructions for these two sets of answers and says nothing about training again. `correlation` is
    null where one side never varies. Raises UserError when the baselines differ in name or answers, and with fewer than
    2 common instructions.
    """
    if not 0 < confidence < 1:
        raise UserError(f"--confidence {confidence:g}: a number between 0 and 1 is expected, e.g. 0.95")
    sides = [pd.DataFrame(read_annotations(path), dtype=object).set_index("instruction") for path in (a, b)]
    first, second = sides
    names = [str(side["generator_1"].iloc[0]) for side in sides]
    if names[0] != names[1]:
        raise UserError(f"{a} has the baseline {names[0]} and {b} has {names[1]}; their win rates can't be compared")
    shared = first.index.intersection(second.index)
    unequal = int((first.loc[shared, "output_1"] != second.loc[shared, "output_1"]).sum())
    if unequal:
        raise UserError(f"{a} and {b}: the baseline's answer differs for {unequal} of {len(shared)} instructions")
    x, y = (pd.Series(to_unit(side.loc[shared, "preference"].astype(float)), index=shared) * 100 for side in sides)
    common = shared[(x.notna() & y.notna()).to_numpy()]
    if len(common) < 2:
        raise UserError(f"{a} and {b}: {len(common)} instructions have a verdict in both; at least 2 are needed")
    judges = [_judge(side) for side in sides]
    difference = paired_difference(x[common], y[common], confidence)
    varies = x[common].nunique() > 1 and y[common].nunique() > 1
    return {
        "a": str(first["generator_2"].iloc[0]),
        "b": str(second["generator_2"].iloc[0]),
        "baseline": names[0],
        "judge_a": judges[0],
        "judge_b": judges[1],
        "same_judge": judges[0] == judges[1] if None not in judges else None,
        "win_rate_a": float(x[common].mean()),
        "win_rate_b": float(y[common].mean()),
        "diff": difference.mean,
        "se_paired": difference.se,
        "ci_low": difference.low,
        "ci_high": difference.high,
        "confidence": confidence,
        "p": _p_value(difference.mean, float(difference.se or 0.0), len(common)),
        "correlation": float(x[common].corr(y[common])) if varies else None,
        "n_common": len(common),
        "n_only_a": len(first) - len(shared),
        "n_only_b": len(second) - len(shared),
        "n_null_a": int(x.isna().sum()),
        "n_null_b": int(y.isna().sum()),
    }


def _judge(side: pd.DataFrame) -> str | None:
    names = side["annotator"].dropna() if "annotator" in side else []
    return str(names.iloc[0]) if len(names) else None


def _p_value(mean: float, se: float, n: int) -> float:
    """Two-sided paired t-test; without any spread the answer is certain."""
    if se == 0:
        return 1.0 if mean == 0 else 0.0
    return float(2 * stats.t.sf(math.fabs(mean) / se, n - 1))
