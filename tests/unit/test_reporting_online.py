"""Online runs: verdicts at equal budgets, the table that people read, and the dissociation figure."""

import re

import numpy as np
import pandas as pd
import pytest
from marginbench.errors import UserError
from marginbench.records import ONLINE_METRICS, read_table, write_table
from marginbench.reporting import dissociation
from marginbench.reporting.dissociation import FLATTERED, plot_dissociation, points
from marginbench.reporting.online import BUDGETS, COLUMN_DOCS, VERDICT_COLUMNS, check_online, compare_online, last_round
from marginbench.reporting.online_table import MARK, online_markdown, write_online
from marginbench.reporting.style import COLOURS, START_COLOUR
from marginbench.statistics.equivalence import UNDECIDED, paired_equivalence, smallest_margin
from matplotlib.colors import to_hex
from online_fixture import JUDGE, LABELLER, online_frame

PAIR = [("apl", "random")]
MARGINS = {"win_rate": 3.0, "piqa": 0.02}


@pytest.fixture(scope="module")
def frame():
    return online_frame()


@pytest.fixture(scope="module")
def verdicts(frame):
    return compare_online(frame, PAIR, MARGINS, 0.05)


def row_of(verdicts, budget, judge=JUDGE, metric="win_rate"):
    found = verdicts[(verdicts["budget"] == budget) & (verdicts["judge"] == judge) & (verdicts["metric"] == metric)]
    assert len(found) == 1
    return found.iloc[0]


def at_last(frame, arm, metric="win_rate", judge=JUDGE):
    own = last_round(frame)
    return own[(own["arm"] == arm) & (own["metric"] == metric) & (own["judge"] == judge)].set_index("seed")["value"]


# --- the contract -------------------------------------------------------------------------------------------------


def test_round_trip(frame, tmp_path):
    write_table(frame, tmp_path / "online.parquet", ONLINE_METRICS)
    assert check_online(read_table(tmp_path / "online.parquet", ONLINE_METRICS)).equals(frame)


def falls(frame):
    late = (frame["arm"] == "apl") & (frame["seed"] == 2) & (frame["round"] == 8)
    return frame.assign(labels=frame["labels"].mask(late, 1))


def two_numbers(frame):
    return frame.assign(seconds=frame["seconds"].mask(frame.index == 7, 999.0))


@pytest.mark.parametrize(
    ("change", "words"),
    [
        (lambda f: f.drop(columns="labels"), "missing column labels"),
        (falls, "not fall from round to round"),
        (two_numbers, "one number per round"),
        (lambda f: pd.concat([f, f.iloc[[0]]]), "repeats the key"),
        (lambda f: f.iloc[:0], "no online run has been evaluated"),
    ],
)
def test_a_broken_frame_is_refused(frame, change, words):
    with pytest.raises(UserError, match=words):
        compare_online(change(frame), PAIR, MARGINS, 0.05)


# --- verdicts -----------------------------------------------------------------------------------------------------


def test_a_row_for_every_metric_judge_and_budget(verdicts):
    assert list(verdicts.columns) == VERDICT_COLUMNS == list(COLUMN_DOCS)
    assert len(verdicts) == 3 * len(BUDGETS)
    assert set(verdicts.loc[verdicts["judge_is_labeller"], "judge"]) == {LABELLER}
    assert set(verdicts.loc[~verdicts["judge_is_labeller"], "judge"]) == {JUDGE, ""}


def test_equal_rounds_are_the_last_round(frame, verdicts):
    row, expected = row_of(verdicts, "round"), paired_equivalence(at_last(frame, "apl"), at_last(frame, "random"), 3.0)
    for name in ("difference", "low", "high", "p_tost", "p_difference", "verdict", "n_seeds"):
        assert row[name] == getattr(expected, name), name
    assert (row["at"], row["ends_first"], row["theirs_mean"]) == (20, "both", at_last(frame, "random").mean())
    spread = (at_last(frame, "apl") - at_last(frame, "random")).std()
    assert row["smallest_margin"] == pytest.approx(smallest_margin(spread, 5))
    labels = row_of(verdicts, "labels")
    assert (labels["at"], labels["difference"]) == (320, pytest.approx(row["difference"]))


def test_equal_tokens_end_where_random_ends(frame, verdicts):
    """random generates 640 x 24 tokens in all; apl has that after 20 / 48 rounds, long before its first evaluation."""
    row = row_of(verdicts, "generated_tokens")
    assert (row["at"], row["ends_first"]) == (640 * 24, "random")
    assert (row["ours_from_start"], row["theirs_from_start"]) == (5, 0)
    win = frame[(frame["arm"] == "apl") & (frame["metric"] == "win_rate") & (frame["judge"] == JUDGE)]
    first = win[win["round"] == 4].set_index("seed")["value"]
    assert row["ours_mean"] == pytest.approx((50 + (first - 50) * (20 / 48) / 4).mean())
    assert row["difference"] < -10
    assert row["verdict"] == "different"


def test_the_margin_of_each_metric_is_its_own(verdicts):
    assert row_of(verdicts, "round", "", "piqa")["margin"] == 0.02
    assert row_of(verdicts, "round")["margin"] == 3.0


def test_exchanging_the_arms_turns_the_sign(frame, verdicts):
    back = compare_online(frame, [("random", "apl")], MARGINS, 0.05)
    assert back["difference"].tolist() == pytest.approx((-verdicts["difference"]).tolist())
    assert back["verdict"].tolist() == verdicts["verdict"].tolist()
    assert back["ours_from_start"].tolist() == verdicts["theirs_from_start"].tolist()


def test_two_seeds_are_undecided_with_a_reason():
    found = compare_online(online_frame(seeds=range(2)), PAIR, MARGINS, 0.05)
    assert set(found["verdict"]) == {UNDECIDED}
    assert found["p_tost"].isna().all()
    assert found["difference"].notna().all()
    assert "2 seeds with both arms" in online_markdown(online_frame(seeds=range(2)), found, 0.95)


def test_an_arm_that_a_labeller_never_trained_is_a_row_too(frame):
    other = online_frame(labeller="other", arms=("random",))
    found = compare_online(pd.concat([frame, other], ignore_index=True), PAIR, {"win_rate": 3.0}, 0.05)
    empty = found[found["labeller"] == "other"]
    assert len(empty) == 8
    assert set(empty["reason"]) == {
        "0 seeds with both arms, and 3 are the fewest that say anything about training again"
    }


def test_a_null_is_not_a_value(frame):
    """A capability that failed at the last round: its seed is read where it was last measured, all with it."""
    lost = frame.copy()
    lost.loc[
        (lost["metric"] == "piqa") & (lost["round"] == 20) & (lost["seed"] == 0) & (lost["arm"] == "apl"), "value"
    ] = None
    row = row_of(compare_online(lost, PAIR, MARGINS, 0.05), "round", "", "piqa")
    assert (row["at"], row["ends_first"], row["n_seeds"]) == (16, "apl", 5)


@pytest.mark.parametrize(
    ("pairs", "margins", "words"),
    [
        ([("apll", "random")], {"win_rate": 3.0}, "arm `apll`; did you mean `apl`"),
        (PAIR, {"winrate": 3.0}, "metric `winrate`; did you mean `win_rate`"),
        (PAIR, {"win_rate": 0.0}, "margin of `win_rate` is 0"),
        (PAIR, {"win_rate": np.inf}, "margin of `win_rate` is inf"),
    ],
)
def test_what_nobody_ran_cannot_be_compared(frame, pairs, margins, words):
    with pytest.raises(UserError, match=re.escape(words)):
        compare_online(frame, pairs, margins, 0.05)


# --- the table ----------------------------------------------------------------------------------------------------


def test_every_run_and_every_verdict_is_in_the_table(frame, verdicts):
    text = online_markdown(frame, verdicts, 0.95, ["random", "apl"])
    for arm in ("random", "apl"):
        for seed in range(5):
            assert f"| {arm}, seed {seed} |" in text
    assert text.index("random, mean of 5") < text.index("apl, seed 0")
    for budget in ("equal rounds (20)", "equal labels (320)", "equal generated tokens (15,360)", "equal seconds (120)"):
        assert f"| win rate (%), {JUDGE}, {budget} |" in text
    value, spent = at_last(frame, "apl").loc[0], "20 | 320 | 30,720 | 737,280 | 820 |"
    line = next(line for line in text.splitlines() if line.startswith("| apl, seed 0 "))
    assert f" {value:.1f} |" in line
    assert line.endswith(spent)
    assert (
        "apl against random at equal generated tokens and seconds: apl is read between start and first evaluation"
        in text
    )


def test_the_flattering_judge_is_marked_everywhere_and_no_other(frame, verdicts):
    text = online_markdown(frame, verdicts, 0.95)
    lines = [line for line in text.splitlines() if line.startswith("|")]
    assert sum(f"{LABELLER}{MARK}" in line for line in lines) == 1 + len(BUDGETS)
    assert f"{JUDGE}{MARK}" not in text
    assert f"{MARK} This judge also labelled" in text
    apart = frame[frame["judge"] != LABELLER]
    assert MARK not in online_markdown(apart, compare_online(apart, PAIR, MARGINS, 0.05), 0.95)


def test_labellers_and_judges_meet_in_a_matrix(frame):
    both = pd.concat([frame, online_frame(labeller=JUDGE + "2")], ignore_index=True)
    text = online_markdown(both, compare_online(both, PAIR, MARGINS, 0.05), 0.95)
    head = f"| labelled by | {LABELLER} | {JUDGE} | {JUDGE}2 |"
    assert head in text
    own, other = text.split(head)[1].splitlines()[2:4]
    assert own.count(MARK) == other.count(MARK) == 1
    assert own.startswith(f"| {LABELLER} |")
    assert "–" in own
    assert head not in online_markdown(frame, compare_online(frame, PAIR, MARGINS, 0.05), 0.95)


def test_a_run_that_stopped_early_shows_its_own_round(frame):
    short = frame[~((frame["arm"] == "apl") & (frame["seed"] == 3) & (frame["round"] > 12))].reset_index(drop=True)
    verdicts = compare_online(short, PAIR, MARGINS, 0.05)
    text = online_markdown(short, verdicts, 0.95)
    assert next(line for line in text.splitlines() if line.startswith("| apl, seed 3 ")).endswith(
        "| 12 | 192 | 18,432 | 442,368 | 496 |"
    )
    assert row_of(verdicts, "round")["at"] == 12


def test_the_same_files_whatever_the_order_of_rows(frame, verdicts, tmp_path):
    shuffled = frame.sample(frac=1, random_state=3).reset_index(drop=True)
    for name, rows in (("a", frame), ("b", shuffled)):
        found = compare_online(rows, PAIR, MARGINS, 0.05)
        write_online(rows, found, confidence=0.95, md=tmp_path / f"{name}.md", csv=tmp_path / f"{name}.csv")
        plot_dissociation(rows, [tmp_path / f"{name}.png", tmp_path / f"{name}.pdf"], tasks=["piqa"], judges=[JUDGE])
    for kind in ("md", "csv", "png", "pdf"):
        assert (tmp_path / f"a.{kind}").read_bytes() == (tmp_path / f"b.{kind}").read_bytes(), kind
    back = pd.read_csv(tmp_path / "a.csv")
    assert list(back.columns) == VERDICT_COLUMNS
    assert np.allclose(back["difference"], verdicts["difference"])


# --- the figure ---------------------------------------------------------------------------------------------------


def test_points_are_rounds_with_both_values(frame):
    some = frame.copy()
    some.loc[(some["metric"] == "piqa") & (some["round"] == 8), "value"] = None
    some = some[~((some["metric"] == "win_rate") & (some["round"] == 16))].sample(frac=1, random_state=1)
    runs = points(some, JUDGE, "piqa")
    assert sorted(runs) == [(arm, seed) for arm in ("apl", "random") for seed in range(5)]
    run = runs["apl", 2]
    assert run.index.tolist() == [0, 4, 12, 20]
    assert (run["x"].iloc[0], run["y"].iloc[0]) == pytest.approx((66.0, 50.0))
    assert run["y"].iloc[-1] == at_last(frame, "apl").loc[2]


@pytest.fixture
def drawn(monkeypatch):
    """The figure instead of files."""
    figures = []
    monkeypatch.setattr(dissociation, "save", lambda figure, paths: figures.append(figure))
    return figures


def test_one_path_per_seed_and_arm_from_the_start(frame, drawn):
    plot_dissociation(frame, [], tasks=["piqa"], judges=[JUDGE], arms=["random", "apl"])
    (axis,) = drawn[0].axes
    paths = [line for line in axis.lines if len(line.get_xdata()) == 6]
    assert [line.get_color() for line in paths] == [COLOURS[0]] * 5 + [COLOURS[1]] * 5
    assert paths[7].get_ydata().tolist() == points(frame, JUDGE, "piqa")["apl", 2]["y"].tolist()
    stars = [line for line in axis.lines if line.get_marker() == "*"]
    assert [(line.get_color(), line.get_xdata()[0], line.get_ydata()[0]) for line in stars] == [
        (START_COLOUR, 66.0, 50.0)
    ]
    assert to_hex(axis.get_facecolor()) != FLATTERED
    assert [text.get_text() for text in drawn[0].legends[0].get_texts()] == ["random", "apl", "SFT start"]


def test_panels_of_the_labeller_are_marked(frame, drawn):
    plot_dissociation(frame, [])
    axes = drawn[0].axes
    assert [axis.get_ylabel() for axis in axes[::2]] == [f"win rate (%), {LABELLER}", f"win rate (%), {JUDGE}"]
    assert [to_hex(axis.get_facecolor()) == FLATTERED for axis in axes] == [True, True, False, False]
    assert ["judged by it, too" in axis.get_title("left") for axis in axes] == [True, False, False, False]


def test_the_figure_follows_the_data(frame, tmp_path):
    moved = frame.assign(value=frame["value"].where(frame["round"] < 20, frame["value"] * 1.01))
    for name, rows in (("a", frame), ("b", moved)):
        plot_dissociation(rows, [tmp_path / f"{name}.svg"], tasks=["piqa"], judges=[JUDGE])
    assert (tmp_path / "a.svg").read_bytes() != (tmp_path / "b.svg").read_bytes()


def test_nothing_to_draw_is_said(frame, tmp_path):
    apart = frame[(frame["metric"] != "piqa") & (frame["metric"] != "review_perplexity")]
    with pytest.raises(UserError, match="both a win rate and a capability"):
        plot_dissociation(apart, [tmp_path / "a.png"])
    assert not list(tmp_path.iterdir())
