"""Printed numbers: sources, arithmetic, the list of disagreements, and ours beside them with the judge in sight."""

import re
from pathlib import Path

import pandas as pd
import pytest
from marginbench.errors import UserError
from marginbench.methods.registry import method_names, variant_names
from marginbench.reporting.beside import MARKS, beside, shown
from marginbench.reporting.disagreements import FOUND_COLUMNS, disagreements, read_disagreements, readd
from marginbench.reporting.published import COLUMNS, JUDGED, read_published, read_targets
from marginbench.selection.registry import strategy_names
from marginbench.study import START

FOLDER = Path(__file__).resolve().parents[2] / "resources" / "published"
STUDIES = {
    *("madpo_imdb", "madpo_tldr", "betadpo_hh", "dpo_imdb", "mixdpo_ultrafeedback", "mixdpo_argilla"),
    *("mixdpo_subsets", "simpo_setup", "apl_harmless", "apl_helpful", "apl_ultrafeedback"),
}

LEAST = {
    "average": 19,
    "count of verdicts": 170,
    "difference": 22,
    "end of the interval": 6,
    "gain by dynamic beta": 3,
    "gain over beta-DPO": 3,
    "mean of the entries": 1,
    "p of the t-test": 13,
    "ratio": 2,
    "routing": 9,
    "same cell elsewhere": 110,
    "standard error of verdicts": 5,
    "sum": 1,
}
"""How many numbers each check must reach: a renamed row would leave it with nothing to do."""


@pytest.fixture(scope="module")
def published():
    return read_published(FOLDER)


@pytest.fixture(scope="module")
def found(published):
    return readd(published)


# --- what is printed ------------------------------------------------------------------------------------------------


def test_every_number_has_a_source_and_a_place(published):
    for name in ("paper", "version", "where", "source", "verified"):
        assert (published[name].str.len() > 0).all(), name
    assert len(published) > 1200


def test_what_is_judged_names_its_judge(published):
    judged = published["metric"].str.rpartition("/")[2].isin(JUDGED)
    assert judged.sum() > 700
    assert (published.loc[judged, "judge"] != "").all()


def test_methods_are_ours(published):
    known = {START, "", *method_names(), *variant_names(), *strategy_names()}
    assert set(published["method"]) <= known


def test_readme_explains_columns_judges_and_files(published):
    text = (FOLDER / "README.md").read_text()
    for name in [*COLUMNS, *published["judge"].unique(), *(path.name for path in FOLDER.glob("*.csv"))]:
        assert not name or f"`{name}`" in text, name


def test_targets_hold_what_is_printed(published):
    targets = read_targets(FOLDER).set_index("target")
    first = published[published["rank"] == 1]
    counts = first["target"].value_counts()
    assert set(counts.index) <= set(targets.index)
    assert targets["printed"].to_dict() == {name: int(counts.get(name, 0)) for name in targets.index}
    known = targets["printed"] > 0
    assert (targets["cells"][known] == targets["printed"][known]).all()
    assert (targets["cells"] > 0).all()
    assert set(targets["study"]) - {""} == STUDIES


def test_targets_name_the_papers_of_their_numbers(published):
    targets = read_targets(FOLDER).set_index("target")["paper"]
    for target, papers in published.groupby("target")["paper"].unique().items():
        assert targets[target] == ";".join(sorted(papers)), target


@pytest.mark.parametrize(
    ("target", "row", "dataset", "model", "metric", "value"),
    [
        ("table_madpo_main", "MADPO", "imdb_low", "gemma3_270m", "true_reward", 1.95),
        ("table_betadpo_hh", "beta-DPO", "hh", "pythia_2_8b", "win_rate", 57.07),
        ("table_mixdpo_main", "MixDPO", "ultrafeedback_binarized", "mistral_7b_base", "alpaca_eval/win_rate", 6.71),
        ("table_mixdpo_capability", "SimPO", "ultrafeedback_binarized", "llama3_8b_base", "truthfulqa_mc2/acc", 59.4),
        ("table_simpo_main", "SimPO", "ultrafeedback_armorm", "llama3_8b_instruct", "arena_hard/win_rate", 36.5),
    ],
)
def test_some_numbers_by_hand(published, target, row, dataset, model, metric, value):
    cell = {"target": target, "row": row, "dataset": dataset, "model": model, "metric": metric, "rank": 1}
    rows = published[(published[list(cell)] == pd.Series(cell)).all(axis=1)]
    assert rows["value"].tolist() == [value]


# --- arithmetic -----------------------------------------------------------------------------------------------------


def test_disagreements_are_exactly_those_listed(found):
    listed = read_disagreements(FOLDER)
    now = found[~found["agrees"]]
    names = [name for name in FOUND_COLUMNS if name not in ("low", "high")]
    order = [name for name in names if name != "printed"]
    now, known = (frame.sort_values(order).reset_index(drop=True) for frame in (now, listed))
    pd.testing.assert_frame_equal(now[names], known[names], check_dtype=False)
    for end in ("low", "high"):
        assert known[end].to_numpy() == pytest.approx(now[end].to_numpy(), rel=1e-5)
    assert (listed["note"].str.len() > 0).all()


def test_every_check_has_numbers_to_check(found, published):
    counts = found["check"].value_counts()
    assert set(counts.index) == set(LEAST)
    assert {name: least for name, least in LEAST.items() if counts[name] < least} == {}
    assert counts["same cell elsewhere"] == (published["repeats"] != "").sum()


def test_readme_counts_checks(found):
    stated = re.search(r"Of (\d+) checks all but (\d+) agree", (FOLDER / "README.md").read_text())
    assert (int(stated[1]), int(stated[2])) == (len(found), int((~found["agrees"]).sum()))


def test_gain_of_madpo_is_within_rounding(found):
    """2.23 over 1.67: printed +33.3 %, as printed 33.5 %, before rounding from 2.225 / 1.675 to 2.235 / 1.665."""
    gains = found[found["check"] == "gain over beta-DPO"].set_index("dataset")
    high = gains.loc["imdb_high"]
    as_printed = 100 * (2.23 / 1.67 - 1)
    assert as_printed == pytest.approx(33.53, abs=0.01)
    assert (high["printed"], high["low"], high["high"]) == pytest.approx((33.3, 32.8358, 34.2342), abs=1e-4)
    assert gains["agrees"].all()


def _change(published, value=None, **cell):
    changed = published.copy()
    place = changed.index[(changed[list(cell)] == pd.Series(cell)).all(axis=1)]
    assert len(place) == 1
    changed.loc[place, "value"] = value
    return changed


@pytest.mark.parametrize(
    ("check", "value", "cell"),
    [
        (
            "average",
            64.7,
            {
                "target": "table_mixdpo_capability",
                "row": "MixDPO",
                "model": "llama3_8b_base",
                "metric": "average_of_five",
            },
        ),
        (
            "average",
            61.5,
            {"target": "table_mixdpo_capability", "row": "CPO", "model": "mistral_7b_base", "metric": "hellaswag/acc"},
        ),
        ("gain over beta-DPO", 1.64, {"target": "table_madpo_main", "row": "beta-DPO", "dataset": "imdb_high"}),
        (
            "difference",
            15.4,
            {
                "target": "table_mixdpo_logp_shift",
                "row": "MixDPO",
                "model": "llama3_8b_base",
                "metric": "logp_shift_gap",
            },
        ),
        ("sum", 7378, {"target": "figure_mixdpo_margins", "setting": "margin=0"}),
        (
            "count of verdicts",
            16.67,
            {
                "target": "table_mixdpo_main",
                "row": "DPO",
                "model": "llama3_8b_base",
                "metric": "alpaca_eval/win_rate",
            },
        ),
    ],
)
def test_a_slip_is_found(published, found, check, value, cell):
    before, after = found[~found["agrees"]], disagreements(_change(published, value, **cell))
    assert len(after) > len(before)
    assert (after["check"] == check).sum() > (before["check"] == check).sum()


# --- reading --------------------------------------------------------------------------------------------------------

ROW = {
    **dict.fromkeys(COLUMNS, ""),
    **{"paper": "2510.05342", "version": "v1", "where": "table 1", "target": "table_mine", "row": "DPO"},
    **{"method": "dpo", "metric": "alpaca_eval/win_rate", "value": "12.5", "decimals": "1", "relation": "="},
    **{"judge": "someone", "source": "table 1", "verified": "read", "rank": "1"},
}


def write(folder, *rows, columns=COLUMNS):
    lines = [",".join(columns)] + [",".join(row.get(name, "") for name in columns) for row in rows]
    (folder / "mine.csv").write_text("\n".join(lines) + "\n")
    return folder


def test_a_good_row_is_read(tmp_path):
    frame = read_published(write(tmp_path, ROW))
    assert frame.loc[0, "value"] == 12.5
    assert frame.loc[0, ["se", "ci_low", "n_seeds"]].isna().all()


@pytest.mark.parametrize(
    ("change", "says"),
    [
        ({"source": ""}, "`source`"),
        ({"verified": "sure"}, "`verified`"),
        ({"value": "12.54"}, "more than the 1 digits"),
        ({"value": "twelve"}, "`value`"),
        ({"judge": ""}, "needs a `judge`"),
        ({"ci_low": "1"}, "both `ci_low` and `ci_high`"),
        ({"ci_low": "13", "ci_high": "14"}, "outside"),
        ({"verified": "digitised"}, "`read_error`"),
        ({"target": "Table 1"}, "`target`"),
        ({"paper": "MADPO"}, "`paper`"),
    ],
)
def test_a_bad_row_is_one_line_with_its_place(tmp_path, change, says):
    with pytest.raises(UserError) as error:
        read_published(write(tmp_path, ROW, {**ROW, "row": "IPO", **change}))
    assert says in str(error.value)
    assert "mine.csv: line 3" in str(error.value)
    assert "\n" not in str(error.value)


@pytest.mark.parametrize(
    ("rows", "columns", "says"),
    [
        ([ROW, ROW], COLUMNS, "printed twice"),
        ([{**ROW, "rank": "2"}], COLUMNS, "gap"),
        ([ROW], [name for name in COLUMNS if name != "source"], "source"),
        ([ROW], [*COLUMNS, "extra"], "extra"),
    ],
)
def test_a_bad_file_is_refused(tmp_path, rows, columns, says):
    with pytest.raises(UserError, match=says):
        read_published(write(tmp_path, *rows, columns=columns))


def test_an_empty_folder_is_refused(tmp_path):
    with pytest.raises(UserError, match="no printed numbers"):
        read_published(tmp_path)
    with pytest.raises(UserError, match="no such file"):
        read_targets(tmp_path)
    with pytest.raises(UserError, match="no such file"):
        read_disagreements(tmp_path)


# --- ours beside ----------------------------------------------------------------------------------------------------


def ours(**changes):
    row = {"dataset": "imdb_high", "method": "madpo", "metric": "true_reward", "value": 2.0, "ci_low": 1.8}
    return {**row, "ci_high": 2.2, "judge": "twitter_roberta_sentiment", **changes}


def main_table(published, *rows, **options):
    return beside(pd.DataFrame(rows), published[published["target"] == "table_madpo_main"], **options)


def test_a_cell_beside_its_printed_number(published):
    line = main_table(published, ours()).iloc[0]
    assert (line["ours"], line["printed"], line["row"]) == (2.0, 2.23, "MADPO")
    assert line["difference"] == pytest.approx(-0.23)
    assert (line["covers"], line["same_judge"], line["mark"]) == (False, "yes", "")


@pytest.mark.parametrize(("high", "covered"), [(2.2249, False), (2.2251, True)])
def test_covering_allows_for_the_printed_rounding(published, high, covered):
    assert main_table(published, ours(ci_high=high)).iloc[0]["covers"] == covered


def test_without_an_interval_nothing_is_covered(published):
    line = main_table(published, ours(ci_low=None, ci_high=None)).iloc[0]
    assert line["covers"] is None
    assert shown(main_table(published, ours(ci_low=None, ci_high=None))).iloc[0]["covered"] == ""


@pytest.mark.parametrize(("judge", "same"), [("sentiment_half_a", "no"), ("", "unknown"), (None, "unknown")])
def test_another_judge_is_marked_wherever_numbers_meet(published, judge, same):
    frame = main_table(published, ours(judge=judge), ours(judge=judge, dataset="imdb_low"))
    met = frame[frame["ours"].notna() & frame["printed"].notna()]
    assert met["same_judge"].tolist() == [same] * 2
    assert (met["mark"] == MARKS[same]).all()
    text = shown(met)
    for column in ("difference", "covered"):
        assert text[column].str.endswith(f" ({MARKS[same]})").all()


def test_no_judge_needs_no_mark(published):
    rows = published[(published["target"] == "table_mixdpo_capability") & (published["model"] == "llama3_8b_base")]
    mine = ours(method="mixdpo", metric="mmlu/acc", value=63.0, ci_low=62.5, ci_high=63.5, judge="")
    del mine["dataset"]
    line = beside(pd.DataFrame([mine]), rows).iloc[0]
    assert (line["printed"], line["same_judge"], line["mark"], line["covers"]) == (63.2, "no judge", "", True)


def test_of_two_printed_judges_ours_is_taken_or_both_are_marked(published):
    rows = published[(published["target"] == "table_mixdpo_judges") & (published["model"] == "llama3_8b_base")]
    mine = ours(method="simpo", metric="alpaca_eval/length_controlled_winrate", value=7.0)
    del mine["dataset"]
    alike = beside(pd.DataFrame([{**mine, "judge": "gpt_4_1_alpaca_ranking"}]), rows)
    assert alike[alike["ours"].notna()]["printed"].tolist() == [6.77]
    other = beside(pd.DataFrame([{**mine, "judge": "local"}]), rows)
    other = other[other["ours"].notna()]
    assert sorted(other["printed"]) == [6.77, 22.0]
    assert (other["mark"] == "other judge").all()


def test_what_only_one_side_has_stays_in_sight(published):
    frame = main_table(published, ours(), ours(method="simpo"))
    assert frame["ours"].notna().sum() == 2
    alone = frame[frame["ours"].notna() & frame["printed"].isna()]
    assert alone["method"].tolist() == ["simpo"]
    assert alone[["difference", "covers", "mark"]].isna().all(axis=None)
    assert frame["printed"].notna().sum() == 15
    text = shown(frame)
    assert len(text) == len(frame)
    assert not text.map(lambda cell: "nan" in cell or "None" in cell).any(axis=None)
    only = frame["ours"].isna() | frame["printed"].isna()
    assert only.sum() == 15
    assert (text.loc[only, ["difference", "covered", "same judge"]] == "").all(axis=None)


def test_an_entry_may_stand_for_a_printed_method(published):
    frame = main_table(published, ours(method="madpo_v1"), stands_for={"madpo_v1": "madpo"})
    assert (frame.iloc[0]["method"], frame.iloc[0]["printed"]) == ("madpo_v1", 2.23)


def test_only_first_ranked_numbers_are_compared(published):
    line = main_table(published, ours(method="ipo_sum")).iloc[0]
    assert line["printed"] == 0.35


def test_cells_that_are_not_unique_are_refused(published):
    sweep = published[published["target"] == "figure_madpo_c"]
    with pytest.raises(UserError, match="compare by `setting`"):
        beside(pd.DataFrame([ours()]), sweep)
    with pytest.raises(UserError, match="twice"):
        main_table(published, ours(), ours())
    with pytest.raises(UserError, match="`judge`"):
        beside(pd.DataFrame([ours()]).drop(columns="judge"), sweep)


def test_shown_says_how_the_printed_number_was_read(published):
    sweep = published[(published["target"] == "figure_madpo_c") & (published["setting"] == "c=4; tau=6.907")]
    line = shown(beside(pd.DataFrame([ours()]), sweep)).iloc[0]
    assert line["note"].startswith("read from a figure")
    assert (line["ours"], line["interval over seeds"], line["printed"]) == ("2.000", "[1.800, 2.200]", "2.230")
    assert line["difference"] == "-0.230"
