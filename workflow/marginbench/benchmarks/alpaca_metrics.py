"""AlpacaEval's numbers written out: win rates, the length-control model at a given C, and its bootstrap.

`alpaca_eval`'s own functions give what is reported (alpaca_length_control.py, alpaca_eval.py); this file checks them,
and refits length control where the package cannot: on resampled prompts. Written from the formulas of Dubois et al.
2024 (arXiv 2404.04475) and the settings of alpaca_eval 0.6.6. Pure functions of arrays.
"""

from typing import Any, NamedTuple

import numpy as np

GAMED_WEIGHT = 0.1
"""Weight of a row of a gamed baseline beside 1 for the model's: lambda = 0.2, shared by two gamed baselines."""

SEED = 123
"""Seed of the coordinate order in liblinear, as in the package."""


class Gamed(NamedTuple):
    """The 1,610 rows of the two gamed baselines: what length and difficulty do where the content is the baseline's."""

    length: np.ndarray
    """Standardised difference in characters, as it stands in df_gamed.csv."""
    difficulty: np.ndarray
    p: np.ndarray


def win_rates(preferences: np.ndarray) -> dict[str, float | int]:
    """Win rates in percent from preferences (n,) in [1, 2]; 0 is a draw of older files, NaN a verdict not read.

    `standard_error` is sd / sqrt(n) over items and NaN for one item. `discrete_win_rate` counts a draw as half.
    """
    p = to_unit(preferences)
    p = p[~np.isnan(p)]
    wins, losses, draws = (int(count) for count in ((p > 0.5).sum(), (p < 0.5).sum(), (p == 0.5).sum()))
    n = len(p)
    return {
        "win_rate": 100 * float(p.mean()) if n else float("nan"),
        "standard_error": 100 * float(p.std(ddof=1)) / n**0.5 if n > 1 else float("nan"),
        "discrete_win_rate": 100 * (wins + draws / 2) / n if n else float("nan"),
        "n_wins": wins,
        "n_wins_base": losses,
        "n_draws": draws,
        "n_total": n,
    }


def to_unit(preferences: np.ndarray) -> np.ndarray:
    """P(method wins) from preferences, NaN kept."""
    q = np.asarray(preferences, dtype=float)
    return np.where(q == 0, 0.5, q - 1)


def equal_length_predictions(
    difference: np.ndarray,
    difficulty: np.ndarray,
    p: np.ndarray,
    gamed: Gamed,
    c: float,
    counts: np.ndarray | None = None,
) -> np.ndarray:
    """P(method wins) of every item (n,) had both answers the same length: 100 times its mean is LC.

    `difference` (n,) is characters of the baseline's answer minus the method's, `difficulty` (n,), `p` (n,) with NaN
    for items that the fit leaves out. `counts` (n,) says how often each item was drawn (default: once each).
    Logistic regression without intercept on tanh(difference / sd), difficulty and a constant for the method's rows;
    L1 penalty, soft labels as a weighted win and a weighted loss.
    """
    from sklearn.linear_model import LogisticRegression

    drawn = np.ones(len(p)) if counts is None else np.asarray(counts, dtype=float)
    spread = difference - np.average(difference, weights=drawn)
    sd = np.sqrt((drawn * spread**2).sum() / (drawn.sum() - 1))
    features = np.column_stack(
        [
            np.tanh(np.concatenate([gamed.length, difference / sd])),
            np.concatenate([gamed.difficulty, difficulty]),
            np.repeat([0.0, 1.0], [len(gamed.p), len(p)]),
        ]
    )
    wins = np.concatenate([gamed.p, p])
    weight = np.concatenate([np.full(len(gamed.p), GAMED_WEIGHT), drawn])
    used = ~np.isnan(wins) & (weight > 0)
    features, wins, weight = features[used], wins[used], weight[used]
    model = LogisticRegression(C=c, l1_ratio=1.0, solver="liblinear", fit_intercept=False, random_state=SEED)
    model.fit(
        np.concatenate([features, features]),
        np.repeat([1, 0], len(wins)),
        sample_weight=np.concatenate([wins * weight, (1 - wins) * weight]),
    )
    _, by_difficulty, constant = model.coef_[0]
    return 1 / (1 + np.exp(-(by_difficulty * difficulty + constant)))


def bootstrap_length_control(
    difference: np.ndarray,
    difficulty: np.ndarray,
    p: np.ndarray,
    gamed: Gamed,
    c: float,
    draws: int,
    rng: np.random.Generator,
) -> dict[str, Any]:
    """Percentile interval (95 %) of LC over prompts drawn again, the model refitted each time at the same C.

    What the package calls lc_standard_error is the spread of predictions within one fit, 2 to 6 times less.
    """
    n = len(p)
    values = []
    while len(values) < draws:
        counts = rng.multinomial(n, np.full(n, 1 / n))
        if np.ptp(difference[counts > 0]) > 0 and not np.isnan(p[counts > 0]).all():
            predictions = equal_length_predictions(difference, difficulty, p, gamed, c, counts)
            values.append(100 * float(np.average(predictions, weights=counts)))
    low, high = np.percentile(values, [2.5, 97.5])
    return {
        "lc_ci_low": float(low),
        "lc_ci_high": float(high),
        "lc_se": float(np.std(values, ddof=1)) if draws > 1 else None,
        "lc_bootstrap": draws,
    }
