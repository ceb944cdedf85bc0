"""The length slope against a direct maximisation, its error by simulation; rank correlations with published scores."""

import numpy as np
import pytest
from marginbench.errors import UserError
from marginbench.identity import stream
from marginbench.statistics.calibration import calibration
from marginbench.statistics.length_slope import length_slope
from scipy import optimize, special, stats


def test_slope_is_the_maximum_of_the_likelihood():
    rng = stream("test_length_slope", 0)
    d, y = rng.normal(50, 200, 80), rng.beta(0.5, 0.5, 80)
    x = np.tanh(d / d.std(ddof=1))

    def loss(w):
        p = special.expit(w[0] + w[1] * x)
        return -float((y * np.log(p) + (1 - y) * np.log(1 - p)).sum())

    best = optimize.minimize(loss, [0.0, 0.0], tol=1e-12)
    slope, _ = length_slope(d, y, range(80))
    assert slope == pytest.approx(best.x[1], abs=1e-4)
    assert length_slope(-d, y, range(80))[0] == pytest.approx(-slope, abs=1e-6)
    assert length_slope(d, 1 - y, range(80))[0] == pytest.approx(-slope, abs=1e-6)


def test_error_is_that_of_questions_drawn_again():
    """Each question is judged twice with the same verdict: rows taken as independent would be 1.4 times too sure."""
    rng = stream("test_length_slope", 1)
    slopes, errors = [], []
    for _ in range(300):
        d = rng.normal(0, 1, 150)
        y = (rng.random(150) < special.expit(0.3 + d)).astype(float)
        slope, se = length_slope(np.repeat(d, 2), np.repeat(y, 2), np.repeat(np.arange(150), 2).tolist())
        slopes.append(slope)
        errors.append(se)
    assert np.median(errors) == pytest.approx(np.std(slopes), rel=0.15)


@pytest.mark.parametrize(
    ("longer", "wins"),
    [
        ([3.0, 3.0, 3.0], [1.0, 0.0, 1.0]),
        ([1.0, 2.0, 3.0], [1.0, 1.0, 1.0]),
        ([1.0, 2.0, 3.0], [0.0, 0.0, 1.0]),
        ([1.0, 2.0, 3.0], [1.0, 0.0, 0.0]),
        ([1.0], [0.5]),
        ([], []),
    ],
)
def test_a_slope_that_is_not_defined_is_missing(longer, wins):
    assert length_slope(longer, wins, range(len(wins))) == (None, None)


def test_rank_correlation_and_its_interval():
    rng = stream("test_calibration")
    truth = rng.normal(0, 1, 12)
    ours = truth + rng.normal(0, 0.4, 12)
    scores = {f"model{i}": 50 + 10 * value for i, value in enumerate(ours)}
    published = {f"model{i}": float(value) for i, value in enumerate(truth)} | {"another": 3.0}
    result = calibration(scores, published)
    assert result["spearman"] == pytest.approx(stats.spearmanr(ours, truth).statistic)
    assert result["n"] == 12
    assert result["low"] < result["spearman"] <= result["high"] <= 1
    assert calibration(dict(reversed(scores.items())), published) == result
    # The same draws by scipy, one at a time.
    drawn = stream("calibration", sorted(scores), 200).integers(12, size=(200, 12))
    order = [int(name.removeprefix("model")) for name in sorted(scores)]
    values = [stats.spearmanr(ours[order][d], truth[order][d]).statistic for d in drawn]
    few = calibration(scores, published, draws=200)
    assert (few["low"], few["high"]) == pytest.approx(tuple(np.quantile(values, [0.025, 0.975])), abs=1e-12)


def test_few_models_or_all_equal_have_no_interval():
    three = calibration({"a": 1, "b": 2, "c": 3}, {"a": 10, "b": 30, "c": 20})
    assert three["spearman"] == pytest.approx(0.5)
    assert (three["low"], three["high"], three["n"]) == (None, None, 3)
    equal = calibration(dict.fromkeys("abcde", 1.0), {name: i for i, name in enumerate("abcde")})
    assert equal["spearman"] is None
    # Most draws of four models are fine, the few in which all tie are left out and counted.
    assert (
        9000
        < calibration(dict(zip("abcd", range(4), strict=True)), dict(zip("abcd", range(4), strict=True)))["draws"]
        < 10_000
    )


def test_a_model_without_a_published_score_is_named():
    with pytest.raises(UserError, match="no published score of mine"):
        calibration({"a": 1, "b": 2, "mine": 3}, {"a": 1, "b": 2})
    with pytest.raises(UserError, match="2 models are too few"):
        calibration({"a": 1, "b": 2}, {"a": 1, "b": 2})
    with pytest.raises(UserError, match="not a finite number"):
        calibration({"a": 1, "b": 2, "c": float("nan")}, {"a": 1, "b": 2, "c": 3})
