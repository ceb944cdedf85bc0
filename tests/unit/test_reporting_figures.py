"""Figures: the same bytes for the same data, the numbers that they draw, and every method in them."""

from pathlib import Path

import matplotlib.image
import numpy as np
import pandas as pd
import pytest
from marginbench.errors import UserError
from marginbench.records import TRAIN_LOG, read_table
from marginbench.reporting.comparison import compare
from marginbench.reporting.learning_curves import QUANTITIES, band, curve, plot_learning_curves, smooth
from marginbench.reporting.metrics import collect_items, collect_metrics, run_files
from marginbench.reporting.reward_kl import plot_reward_kl, vertical
from marginbench.reporting.style import COLOURS, START_COLOUR, look
from marginbench.statistics.intervals import seeds_interval
from marginbench.study import START
from reporting_fixture import settings, write_study


@pytest.fixture(scope="module")
def study(tmp_path_factory):
    records = write_study(tmp_path_factory.mktemp("figures"), [0, 1, 2])
    runs = [run_files(record) for record in records]
    metrics = collect_metrics(runs)
    logs = {(r["dataset"], r["model"], r["method"], r["seed"]): r["train"] for r in records if r["train"]}
    return logs, metrics, compare(metrics, 0.95, collect_items(runs), settings([0, 1, 2])["methods"])


def draw(study, folder: Path) -> list[Path]:
    logs, metrics, cells = study
    paths = [folder / name for name in ("curves.png", "curves.pdf", "kl.png", "kl.pdf", "kl.svg")]
    plot_learning_curves(logs, paths[:2], confidence=0.95, methods=["dpo", "ipo"])
    plot_reward_kl(cells, metrics, paths[2:], confidence=0.95, methods=[START, "dpo", "ipo"])
    return paths


def test_figures_are_deterministic_and_name_no_date(study, tmp_path):
    first, second = draw(study, tmp_path / "a"), draw(study, tmp_path / "b")
    for a, b in zip(first, second, strict=True):
        assert a.read_bytes() == b.read_bytes(), a.name
        assert len(a.read_bytes()) > 5000
        assert b"CreationDate" not in a.read_bytes()
    image = matplotlib.image.imread(first[0])
    assert image.shape[1] == 1920
    assert len(np.unique(image.reshape(-1, image.shape[2]), axis=0)) > 50


def test_figures_change_with_the_data(study, tmp_path):
    _, metrics, cells = study
    moved = cells.copy()
    moved.loc[(moved["method"] == "ipo") & (moved["metric"] == "kl"), ["mean", "mean_low", "mean_high"]] += 2
    for name, frame in (("a", cells), ("b", moved)):
        plot_reward_kl(frame, metrics, [tmp_path / f"{name}.svg"], confidence=0.95)
    assert (tmp_path / "a.svg").read_bytes() != (tmp_path / "b.svg").read_bytes()


def test_loss_is_relative_to_its_own_start(study):
    logs = study[0]
    loss, accuracy, _ = QUANTITIES
    for method in ("dpo", "ipo"):
        log = read_table(logs["imdb_high", "smollm2_135m", method, 0], TRAIN_LOG)
        raw = log[log["quantity"] == "loss"].set_index("step")["value"]
        assert curve(log, loss).loc[30] == pytest.approx(raw.loc[27:33].mean() / raw.loc[1], rel=1e-9)
        assert curve(log, accuracy).index[0] == 2
    flat = pd.DataFrame({"step": [1, 2], "quantity": "loss", "value": [0.0, 1.0]})
    assert curve(flat, loss).empty


def test_running_mean_by_hand():
    assert smooth([1.0, 2.0, 6.0, 3.0], 3).tolist() == [1.5, 3.0, 11 / 3, 4.5]
    assert smooth([1.0, 2.0], 1).tolist() == [1.0, 2.0]


def test_band_is_the_seeds_interval():
    curves = [pd.Series([1.0, value], index=[1, 2]) for value in (1.0, 2.0, 4.0)]
    found, expected = band(curves, 0.95), seeds_interval([1.0, 2.0, 4.0], 0.95)
    assert (found.loc[2, "low"], found.loc[2, "high"]) == pytest.approx((expected.low, expected.high))
    assert band(curves[:2], 0.95)["low"].isna().all()


def test_methods_keep_their_colour():
    assert look([START, "dpo", "ipo"]) == look(["dpo", START, "ipo"])
    styles = look([START, *(f"m{i}" for i in range(12))])
    assert styles[START][0] == START_COLOUR
    assert len(set(styles.values())) == 13
    assert START_COLOUR not in COLOURS


def test_without_ground_truth_the_judge_is_drawn(study, tmp_path):
    _, metrics, cells = study
    blind = cells[cells["metric"] != "true_reward"]
    assert vertical(cells) == ("true_reward", "")
    assert vertical(blind) == ("win_rate", "sentiment_half_b")
    plot_reward_kl(blind, metrics, [tmp_path / "a.png"], confidence=0.95)
    assert (tmp_path / "a.png").is_file()


def test_without_kl_the_panel_says_so(study, tmp_path):
    _, metrics, cells = study
    plot_reward_kl(cells[cells["metric"] != "kl"], metrics, [tmp_path / "a.svg"], confidence=0.95)
    assert (tmp_path / "a.svg").is_file()


def test_refuses_nothing_to_draw_and_unknown_formats(study, tmp_path):
    logs, _, _ = study
    with pytest.raises(UserError, match="no training log"):
        plot_learning_curves({}, [tmp_path / "a.png"], confidence=0.95)
    with pytest.raises(UserError, match=r"written as \.png"):
        plot_learning_curves(logs, [tmp_path / "a.gif"], confidence=0.95)
    assert not list(tmp_path.iterdir())
