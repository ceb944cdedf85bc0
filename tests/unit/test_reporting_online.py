"""Online runs: verdicts at equal budgets, the table that people read, and the dissociation figure."""

import re

import numpy as np
import pandas as pd
import pytest
from marginbench.errors import UserError
from marginbench.records import ONLINE_METRICS, read_table, write_table
from marginbench.reporting import dissociation
from marginbench.reporting.dissociation import FLATTERED, plot_dissociation, points
from marginbench.reporting.labeller_judge import plot_matrix
from marginbench.reporting.online import (
    BUDGETS,
    COLUMN_DOCS,
    MATRIX_DOCS,
    VERDICT_COLUMNS,
    check_online,
    compare_online,
    last_round,
    matrix_online,
)
from marginbench.reporting.online_table import MARK, online_markdown, online_tex, write_online
from marginbench.reporting.style import COLOURS, START_COLOUR
from marginbench.statistics.agreement import difference_matrix
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


def text_of(frame, verdicts, arms=()):
    return online_markdown(frame, verdicts, matrix_online(frame, PAIR, 0.95), 0.95, arms)


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
    assert "2 seeds with both arms" in text_of(online_frame(seeds=range(2)), found)


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
    text = text_of(frame, verdicts, ["random", "apl"])
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
    text = text_of(frame, verdicts)
    lines = [line for line in text.splitlines() if line.startswith("|")]
    assert sum(f"{LABELLER}{MARK}" in line for line in lines) == 1 + len(BUDGETS)
    assert f"{JUDGE}{MARK}" not in text
    assert f"{MARK} This judge also labelled" in text
    apart = frame[frame["judge"] != LABELLER]
    assert MARK not in text_of(apart, compare_online(apart, PAIR, MARGINS, 0.05))


def two_labellers():
    """Arms of two labellers, as a study has them: other ids, the same strategies; each meets the other's labeller."""
    first, second = online_frame(), online_frame(labeller="ground_truth")
    second["arm"] += "_truth"
    met = [
        rows[rows["judge"] == JUDGE].assign(judge=judge)
        for rows, judge in ((first, "ground_truth"), (second, LABELLER))
    ]
    met[1]["value"] -= 3 * met[1]["arm"].str.startswith("apl")
    return pd.concat([first, second, *met], ignore_index=True), [*PAIR, ("apl_truth", "random_truth")]


def test_labellers_and_judges_meet_in_a_matrix():
    frame, pairs = two_labellers()
    matrix = matrix_online(frame, pairs, 0.95)
    assert list(matrix.columns) == list(MATRIX_DOCS)
    assert list(zip(matrix["ours"], matrix["labeller"], matrix["judge"], strict=True)) == [
        (ours, labeller, judge)
        for ours, labeller in (("apl", LABELLER), ("apl_truth", "ground_truth"))
        for judge in ("ground_truth", LABELLER, JUDGE)
    ]
    assert matrix["judge_is_labeller"].tolist() == [False, True, False, True, False, False]
    assert matrix["n_seeds"].tolist() == [5] * 6
    lead = at_last(frame, "apl_truth") - at_last(frame, "random_truth")
    assert matrix["difference"].tolist()[4:] == pytest.approx([lead.mean() - 3, lead.mean()])
    wins = last_round(frame)
    expected = difference_matrix(wins[wins["metric"] == "win_rate"], "apl", "random", 0.95)
    expected = expected[expected["labeller"] == LABELLER]
    for name in ("difference", "low", "high"):
        assert matrix[name].tolist()[:3] == expected[name].tolist()

    verdicts = compare_online(frame, pairs, {"win_rate": 3.0}, 0.05)
    assert len(verdicts) == 2 * 3 * len(BUDGETS), "arms of another labeller are no row"
    text = online_markdown(frame, verdicts, matrix, 0.95)
    head = f"| labelled by | ground_truth | {LABELLER} | {JUDGE} |"
    own, other = text.split(head)[1].splitlines()[2:4]
    assert own.startswith(f"| {LABELLER}: apl − random |")
    assert other.startswith("| ground_truth: apl_truth − random_truth |")
    assert own.count(MARK) == other.count(MARK) == 1
    assert head not in text_of(online_frame(), compare_online(online_frame(), PAIR, MARGINS, 0.05))


def test_a_judge_that_scores_with_the_labellers_weights_is_marked(frame):
    """Its id is another; the run says that it is the same."""
    served = frame.assign(judge_is_labeller=frame["judge"].isin([LABELLER, JUDGE]))
    verdicts = compare_online(served, PAIR, MARGINS, 0.05)
    assert set(verdicts.loc[verdicts["judge_is_labeller"], "judge"]) == {LABELLER, JUDGE}
    assert f"{JUDGE}{MARK}" in text_of(served, verdicts)
    assert matrix_online(served, PAIR, 0.95)["judge_is_labeller"].all()


def test_the_matrix_is_drawn_as_it_stands(tmp_path, monkeypatch):
    from marginbench.reporting import labeller_judge

    figures = []
    monkeypatch.setattr(labeller_judge, "save", lambda figure, paths: figures.append(figure))
    frame, pairs = two_labellers()
    matrix = matrix_online(frame, pairs, 0.95)
    plot_matrix(matrix, [])
    (axis,) = figures[0].axes
    shown = {tuple(map(round, text.get_position())): text.get_text().splitlines()[0] for text in axis.texts}
    wanted = [f"{value:+.1f}".replace("-", "−") for value in matrix["difference"]]
    assert [shown[i % 3, i // 3] for i in range(6)] == wanted
    framed = sorted(tuple(round(value + 0.47) for value in patch.get_xy()) for patch in axis.patches)
    assert framed == [(0, 1), (1, 0)]
    assert np.ma.filled(axis.images[0].get_array()).ravel().tolist() == pytest.approx(matrix["difference"].tolist())
    plot_matrix(matrix_online(frame, [], 0.95), [])
    assert "compares no arms" in figures[1].axes[0].texts[0].get_text()


def test_the_table_for_papers_says_the_same(frame, verdicts):
    matrix = matrix_online(frame, PAIR, 0.95)
    text, tex = text_of(frame, verdicts), online_tex(frame, verdicts, matrix, 0.95)
    rows = [
        line for line in text.splitlines() if line.startswith("| ") and not line.startswith(("| arm", "| at equal"))
    ]
    body = [line for line in tex.splitlines() if line.endswith(r" \\") and not line.startswith(("arm &", "at equal"))]
    assert len(body) == len(rows)
    assert r"apl, seed 0 & " in tex
    assert tex.count(r"\begin{tabular}") == tex.count(r"\end{tabular}") == 2
    assert all(ord(letter) < 128 for letter in tex), "LaTeX's fonts lack other letters"
    assert r"\label{tab:apl_made_up:online}" in tex


def test_a_run_that_stopped_early_shows_its_own_round(frame):
    short = frame[~((frame["arm"] == "apl") & (frame["seed"] == 3) & (frame["round"] > 12))].reset_index(drop=True)
    verdicts = compare_online(short, PAIR, MARGINS, 0.05)
    text = text_of(short, verdicts)
    assert next(line for line in text.splitlines() if line.startswith("| apl, seed 3 ")).endswith(
        "| 12 | 192 | 18,432 | 442,368 | 496 |"
    )
    assert row_of(verdicts, "round")["at"] == 12


def test_the_same_files_whatever_the_order_of_rows(frame, verdicts, tmp_path):
    shuffled = frame.sample(frac=1, random_state=3).reset_index(drop=True)
    for name, rows in (("a", frame), ("b", shuffled)):
        found = compare_online(rows, PAIR, MARGINS, 0.05)
        files = {kind: tmp_path / f"{name}.{kind}" for kind in ("md", "tex", "csv")}
        matrix = matrix_online(rows, PAIR, 0.95)
        write_online(rows, found, matrix, confidence=0.95, **files, matrix_csv=tmp_path / f"{name}.matrix.csv")
        plot_dissociation(rows, [tmp_path / f"{name}.png", tmp_path / f"{name}.pdf"], tasks=["piqa"], judges=[JUDGE])
    for kind in ("md", "tex", "csv", "matrix.csv", "png", "pdf"):
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
