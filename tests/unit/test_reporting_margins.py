"""The figure of margins: what is counted as contradicting a label, and how scorers agree."""

import math
from pathlib import Path

import matplotlib.image
import numpy as np
import pandas as pd
import pytest
from marginbench.errors import UserError
from marginbench.margins.rows import margin_rows
from marginbench.records import MARGINS, write_table
from marginbench.reporting.margins import agreement, bin_edges, margins_by_cell, plot_margins
from marginbench.reporting.shared import collect_shared, indifferent


def write(root: Path, scorer: str, values: np.ndarray, cell: str = "d/m/shared", first: int = 0) -> Path:
    pairs = [f"p{first + i}" for i in range(len(values))]
    frame = margin_rows(pairs, values, np.zeros(len(values)), scorer=scorer, scorer_hash="h")
    path = root / cell / "margins" / f"{scorer}.parquet"
    write_table(frame, path, MARGINS)
    return path


@pytest.fixture
def files(tmp_path: Path) -> list[Path]:
    draw = np.random.default_rng(0)
    base = draw.normal(0.4, 1, 300)
    loss = -np.logaddexp(0, -(base + draw.normal(0, 0.5, 300)))
    return [
        write(tmp_path, "reward_model", base),
        write(tmp_path, "held_out_loss", loss),
        write(tmp_path, "implicit_reward", base**3 / 4 + draw.normal(0, 1, 300)),
    ]


def test_agreement_by_hand() -> None:
    margins = pd.DataFrame({"a": [1.0, 2, 3, 4], "b": [1.0, 4, 9, 100], "c": [1.0, -1, 1, -1], "d": [2.0] * 4})
    found = agreement(margins)
    assert found.loc["a", "b"] == pytest.approx(1.0)  # Spearman: the same order
    assert found.loc["b", "a"] == pytest.approx(np.corrcoef([1, 2, 3, 4], [1, 4, 9, 100])[0, 1])  # Pearson
    assert found.loc["a", "c"] == pytest.approx(-1 / math.sqrt(5))
    assert found["d"].isna().all()
    assert math.isnan(found.loc["a", "a"])


def test_scorers_are_compared_on_the_pairs_that_both_have_scored(tmp_path: Path) -> None:
    one = write(tmp_path, "a", np.array([9.0, 1, 2, 3]))
    other = write(tmp_path, "b", np.array([3.0, 2, 1, 7]), first=1)
    (frame,) = margins_by_cell([one, other]).values()
    assert len(frame) == 5
    assert agreement(frame).loc["b", "a"] == pytest.approx(-1.0)
    assert agreement(frame).loc["a", "b"] == pytest.approx(-1.0)


def test_cells_are_rows_with_readable_names(tmp_path: Path) -> None:
    cells = ["d/m/shared", "d/other/shared", "d/m/shared-seed1"]
    found = margins_by_cell([write(tmp_path, "a", np.array([1.0, 2.0]), cell) for cell in cells])
    assert list(found) == ["d, m", "d, other", "d, m, seed1"]


def test_a_held_out_loss_contradicts_above_log_2(tmp_path: Path) -> None:
    assert indifferent("reward_model") == 0
    assert indifferent("held_out_loss") == pytest.approx(-math.log(2))
    paths = [
        write(tmp_path, scorer, np.array([-1.0, -0.5, -0.2, -0.9])) for scorer in ("reward_model", "held_out_loss")
    ]
    settings = {"title": "", "seeds": [0], "reseed": [], "confidence": 0.95, "methods": []}
    found = collect_shared("s", settings, margins=paths)["margins"]
    assert [found[f"d/m/{path.stem}"]["agrees"]["value"] for path in paths] == [0.0, 0.5]


def test_no_bar_stands_on_both_sides_of_the_line() -> None:
    for values, line in (([-1.0, 0.3, 2.0], 0.0), ([0.5, 0.5], 0.0), ([0.0], 0.0), ([-3.0, -0.1], -math.log(2))):
        edges = bin_edges(np.array(values), line)
        assert np.abs(edges - line).min() < 1e-12
        assert np.histogram(values, edges)[0].sum() == len(values)


def test_the_figure_says_the_share(files: list[Path], tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    titles: list[str] = []
    from matplotlib.axes import Axes

    set_title = Axes.set_title
    monkeypatch.setattr(Axes, "set_title", lambda axis, text, **k: titles.append(text) or set_title(axis, text, **k))
    plot_margins(files, [tmp_path / "m.png"])
    (frame,) = margins_by_cell(files).values()
    share = 100 * (frame["reward_model"] < 0).mean()
    assert f"reward_model\nh < 0: {share:.1f} % of 300 pairs" in titles
    hard = 100 * (frame["held_out_loss"] < -math.log(2)).mean()
    assert 0 < hard < 100
    assert f"held_out_loss\nh < −log 2: {hard:.1f} % of 300 pairs" in titles
    assert len(titles) == 4


def test_the_same_bytes_for_the_same_margins(files: list[Path], tmp_path: Path) -> None:
    for name in ("a", "b"):
        plot_margins(files, [tmp_path / f"{name}.png", tmp_path / f"{name}.pdf"])
    for kind in ("png", "pdf"):
        assert (tmp_path / f"a.{kind}").read_bytes() == (tmp_path / f"b.{kind}").read_bytes()
    image = matplotlib.image.imread(tmp_path / "a.png")
    assert len(np.unique(image.reshape(-1, image.shape[2]), axis=0)) > 50
    plot_margins(files[:1], [tmp_path / "one.png"])
    assert (tmp_path / "one.png").read_bytes() != (tmp_path / "a.png").read_bytes()


def test_equal_margins_can_be_drawn_and_none_cannot(tmp_path: Path) -> None:
    plot_margins([write(tmp_path, "a", np.zeros(4)), write(tmp_path, "b", np.ones(4))], [tmp_path / "m.png"])
    assert (tmp_path / "m.png").stat().st_size > 5000
    with pytest.raises(UserError, match="none to draw"):
        plot_margins([], [tmp_path / "n.png"])
