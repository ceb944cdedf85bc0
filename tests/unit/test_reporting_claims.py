"""claims.csv, wide.csv and the remarks on methods that did nothing or left the language."""

import io
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pandas as pd
import pytest
from dag_tools import toy_study
from marginbench.dag.plan import Plan
from marginbench.errors import UserError
from marginbench.files import write_json
from marginbench.reporting import terminal
from marginbench.reporting.claims import CLAIM_COLUMNS, claim_lines, claim_panels, collect_claims, read_claims
from marginbench.reporting.comparison import compare
from marginbench.reporting.flags import flags
from marginbench.reporting.metrics import collect_items, collect_metrics, run_files, write_csv
from marginbench.reporting.table import read_cells, write_tables
from marginbench.reporting.wide import widen
from marginbench.statistics.claims import crossed_test, holm, seeds_test
from marginbench.study import START, Study
from reporting_fixture import FAMILY, JUDGE, METHODS, QUESTIONS, settings, table_paths, write_study
from rich.console import Console


@pytest.fixture(scope="module")
def five(tmp_path_factory):
    runs = [run_files(record) for record in write_study(tmp_path_factory.mktemp("five"), [0, 1, 2, 3, 4])]
    return collect_metrics(runs), collect_items(runs)


def of_seeds(pair, count):
    return tuple(frame[frame["seed"] < count].reset_index(drop=True) for frame in pair)


def row(claims, metric, method="ipo"):
    found = claims[(claims["metric"] == metric) & (claims["method"] == method)]
    assert len(found) == 1
    return found.iloc[0]


# --- claims.csv ---------------------------------------------------------------------------------------------------


def test_each_row_is_the_crossed_test_of_its_items(five):
    metrics, items = five
    claims = collect_claims(metrics, items, FAMILY)
    assert list(claims.columns) == CLAIM_COLUMNS
    assert list(claims["metric"]) == FAMILY["metrics"]
    for metric in FAMILY["metrics"]:
        grids = items[items["metric"] == metric].pivot(index=["method", "seed"], columns="item", values="value")
        expected = crossed_test((grids.loc["ipo"] - grids.loc["dpo"]).to_numpy())
        found = row(claims, metric)
        assert (found["difference"], found["se"], found["t"], found["p"]) == pytest.approx(
            (expected.difference, expected.se, expected.t, expected.p), rel=1e-9
        )
        assert (found["n_seeds"], found["n_prompts"], found["df"]) == (5, QUESTIONS, 4)
        means = metrics[metrics["metric"] == metric].groupby("method")["value"].mean()
        assert found["difference"] == pytest.approx(means["ipo"] - means["dpo"], abs=1e-9)
    assert claims["p_holm"].tolist() == pytest.approx(holm(claims["p"].tolist()))
    assert claims["claimed"].tolist() == (claims["p_holm"] <= 0.05).tolist()


def test_the_whole_family_is_corrected_together(five):
    metrics, items = five
    alone = collect_claims(metrics, items, {**FAMILY, "metrics": ["win_rate"]})
    wider = collect_claims(metrics, items, {**FAMILY, "methods": ["ipo", START, "never_run"]})
    assert row(alone, "win_rate")["p_holm"] == pytest.approx(row(alone, "win_rate")["p"])
    assert len(wider) == 6, "an entry without runs was planned and counts"
    smallest = wider["p"].idxmin()
    assert wider.loc[smallest, "p_holm"] == pytest.approx(6 * wider.loc[smallest, "p"])
    assert not row(wider, "win_rate", "never_run")["claimed"]
    assert "Not tested, and not claimed: never_run" in claim_lines(wider)[-1]


def test_weights_of_documents_are_kept(five):
    metrics, items = five
    claims = collect_claims(metrics, items, {**FAMILY, "metrics": ["review_perplexity", "piqa"]})
    for metric in ("review_perplexity", "piqa"):
        values = metrics[metrics["metric"] == metric].groupby("method")["value"].mean()
        found = row(claims, metric)
        assert found["difference"] == pytest.approx(values["ipo"] - values["dpo"], abs=1e-9)
        assert found["how"] == "seeds x prompts"


def test_a_metric_that_is_no_mean_of_its_items_is_tested_by_seed(five):
    metrics, items = five
    shifted = metrics.copy()
    chosen = (shifted["metric"] == "win_rate") & (shifted["method"] == "ipo")
    shifted.loc[chosen, "value"] = shifted.loc[chosen, "value"] ** 1.01
    by_seed = shifted[shifted["metric"] == "win_rate"].pivot(index="seed", columns="method", values="value")
    expected = seeds_test(by_seed["ipo"] - by_seed["dpo"])
    for own in (items, items.iloc[:0]):
        found = row(collect_claims(shifted, own, FAMILY), "win_rate")
        assert (found["p"], found["how"], found["n_prompts"]) == (pytest.approx(expected.p), "seeds", 0)


def test_null_verdicts_take_their_question_out(five):
    metrics, items = five
    lost = (items["metric"] == "win_rate") & (items["method"] == "ipo") & (items["seed"] == 1)
    found = row(collect_claims(metrics, items.drop(items[lost].index[:3]), FAMILY), "win_rate")
    assert (found["n_prompts"], found["n_seeds"], found["how"]) == (QUESTIONS - 3, 5, "seeds x prompts")


def test_seeds_that_both_have(five):
    metrics, items = five
    kept = [frame[(frame["method"] != "ipo") | (frame["seed"] != 2)] for frame in (metrics, items)]
    assert set(collect_claims(*kept, FAMILY)["n_seeds"]) == {4}


def test_what_the_baseline_has_not_is_no_part_of_the_family(five):
    metrics, items = five
    unknown = metrics.copy()
    unknown.loc[unknown["metric"] == "true_reward", "value"] = np.nan
    assert list(collect_claims(unknown, items, FAMILY)["metric"]) == ["win_rate"]
    assert collect_claims(metrics, items, {**FAMILY, "baseline": None, "methods": []}).empty


def test_equal_inputs_give_equal_bytes_and_come_back(five, tmp_path):
    metrics, items = five
    family = {**FAMILY, "methods": ["ipo", "never_run"]}
    claims = collect_claims(metrics, items, family)
    write_csv(claims, tmp_path / "a.csv")
    write_csv(collect_claims(metrics[::-1], items[::-1], family), tmp_path / "b.csv")
    assert (tmp_path / "a.csv").read_bytes() == (tmp_path / "b.csv").read_bytes()
    pd.testing.assert_frame_equal(read_claims(tmp_path / "a.csv"), claims, rtol=1e-9)
    empty = collect_claims(metrics, items, {**FAMILY, "methods": []})
    write_csv(empty, tmp_path / "none.csv")
    assert read_claims(tmp_path / "none.csv").empty
    (tmp_path / "c.csv").write_text("a\n1\n")
    with pytest.raises(UserError, match=r"not a claims\.csv"):
        read_claims(tmp_path / "c.csv")


# --- what is said -------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(("count", "why"), [(1, "1 seed, and 3 are"), (2, "2 seeds, and 3 are")])
def test_too_few_seeds_claim_nothing_and_say_why(five, count, why):
    claims = collect_claims(*of_seeds(five, count), FAMILY)
    assert not claims["claimed"].any()
    assert claims["p"].isna().all()
    assert claims["difference"].notna().all()
    assert claim_panels(claims) == []
    lines = claim_lines(claims)
    assert len(lines) == 1
    assert lines[0].startswith("No difference to dpo is claimed: ")
    assert why in lines[0]


def test_when_none_survives_it_is_said_with_what_it_would_take(five):
    family = {**FAMILY, "methods": ["ipo", *(f"other{i}" for i in range(24))]}
    lines = claim_lines(collect_claims(*of_seeds(five, 3), family))
    assert lines[0].startswith("No difference to dpo is claimed (true reward, win rate;")
    assert "Holm over all 50, level 5 %" in lines[0]
    assert lines[1] == "Of 50 differences the clearest must be at least 31.6 (3 seeds) standard errors from 0."


@pytest.fixture(scope="module")
def claimed(five):
    """The cells and claims of a family in which one of two differences is large enough."""
    metrics, items = (frame.copy() for frame in five)
    for frame in (metrics, items):
        frame.loc[(frame["method"] == "ipo") & (frame["metric"] == "true_reward"), "value"] -= 5
        frame.loc[(frame["method"] == "ipo") & (frame["metric"] == "win_rate"), "value"] += 13.5
    return compare(metrics, 0.95, items, list(METHODS)), collect_claims(metrics, items, FAMILY)


def test_only_claimed_differences_are_shown_with_their_p(claimed):
    _, claims = claimed
    assert claims["claimed"].tolist() == [True, False]
    (panel,) = claim_panels(claims)
    assert panel.title.endswith("differences to dpo that are claimed")
    assert panel.heads == ("Δ true reward",)
    ((method, (shown,)),) = panel.rows
    expected = f"−{-row(claims, 'true_reward')['difference']:.2f}"
    assert (method, shown.value, shown.interval) == ("ipo", expected, "[p < 0.001]")
    assert claim_lines(claims)[0].startswith("1 of 2 differences to dpo claimed (")


def test_several_judges_and_generations_are_named(claimed):
    _, claims = claimed
    both = pd.concat([claims, claims.assign(generation="t10")], ignore_index=True)
    assert claim_panels(both)[0].heads == ("Δ true reward, t08", "Δ true reward, t10")


def test_table_and_screen_hold_the_claims(claimed, tmp_path):
    cells, claims = claimed
    shared = {**settings([0, 1, 2, 3, 4]), "study": "made_up"}
    write_json(tmp_path / "shared.json", shared)
    paths = table_paths(tmp_path)
    write_tables(cells, shared, claims, **paths)
    stream = io.StringIO()
    terminal.show(tmp_path, Console(file=stream, width=terminal.WIDTH, highlight=False))
    markdown, screen, tex = paths["md"].read_text(), stream.getvalue(), paths["tex"].read_text()
    assert "[p < 0.001] |" in next(line for line in markdown.splitlines() if line.startswith("| ipo | −5."))
    assert "- 1 of 2 differences to dpo claimed (" in markdown
    assert "[p < 0.001]" in screen
    assert "1 of 2 differences to dpo claimed" in screen
    assert r"[p $<$ 0.001]" in tex
    assert tex.count("{") == tex.count("}")


def test_twenty_five_methods_fit_the_screen(claimed, tmp_path):
    """Names as long as the study's longest; every method once in every block, nothing cut, at most 100 columns."""
    cells, claims = claimed
    names = [f"madpo_shuffled_margin{i:02d}" for i in range(24)]
    copies = [cells[cells["method"] == "ipo"].assign(method=name) for name in names]
    more = pd.concat([claims, *(claims[claims["claimed"]].assign(method=name) for name in names)])
    shared = {**settings([0, 1, 2, 3, 4]), "study": "made_up"}
    write_json(tmp_path / "shared.json", shared)
    paths = table_paths(tmp_path)
    write_tables(pd.concat([cells, *copies]), shared, more, **paths)
    stream = io.StringIO()
    terminal.show(tmp_path, Console(file=stream, width=terminal.WIDTH, highlight=False))
    lines = [line for line in stream.getvalue().splitlines() if str(tmp_path) not in line]
    assert max(map(len, lines)) <= 100
    assert not any("…" in line for line in lines)
    blocks = sum(line.startswith("method") or line.startswith("SFT start") for line in lines)
    assert blocks >= 4
    for name in names:
        assert sum(line.startswith(name + " ") for line in lines) == sum(line.startswith("ipo ") for line in lines)


# --- the study's family -------------------------------------------------------------------------------------------


def family_of(**changes):
    study = Study.model_validate({**toy_study("reviews.csv"), **changes})
    return Plan({"quickstart": study}, {}, None, "results").claims_params(SimpleNamespace(study="quickstart"))


def test_the_family_is_every_entry_against_dpo_unless_named():
    assert family_of() == {**FAMILY, "level": 0.05}
    named = {"baseline": START, "methods": ["dpo"], "metrics": ["kl"], "level": 0.1}
    assert family_of(claims=named) == named
    assert family_of(claims={"methods": []})["methods"] == []
    assert family_of(claims={"methods": [START, "ipo"]})["methods"] == [START, "ipo"]


def test_without_an_entry_dpo_nothing_is_compared():
    family = family_of(methods={"mine": {"method": "dpo", "params": {"beta": 0.1}}})
    assert (family["baseline"], family["methods"]) == (None, [])


# --- wide.csv -----------------------------------------------------------------------------------------------------


def test_wide_holds_every_value_of_the_long_table(five):
    metrics, _ = five
    wide = widen(metrics, ["ipo", "dpo"])
    assert len(wide) == 15
    assert list(dict.fromkeys(wide["method"])) == [START, "ipo", "dpo"]
    assert list(wide.columns[:7]) == ["study", "dataset", "model", "method", "seed", "true_reward", "win_rate"]
    long = wide.melt(["study", "dataset", "model", "method", "seed", "spec_hash"], var_name="metric").dropna()
    key = ["method", "seed", "metric"]
    pd.testing.assert_series_equal(
        long.set_index(key)["value"].sort_index(), metrics.set_index(key)["value"].sort_index(), check_names=False
    )


def test_columns_name_judge_and_generation_only_where_there_are_several(five):
    metrics, _ = five
    judged = metrics[metrics["judge"] != ""]
    wide = widen(pd.concat([metrics, judged.assign(judge="other", value=1.0)]))
    assert f"win_rate.{JUDGE}" in wide.columns
    assert (wide["win_rate.other"] == 1).all()
    assert "true_reward" in wide.columns
    both = widen(pd.concat([metrics, metrics[metrics["generation"] != ""].assign(generation="t10")]))
    assert {"kl.t08", "kl.t10", "piqa"} <= set(both.columns)


# --- methods that did nothing or left the language ----------------------------------------------------------------


def changed(cells, method, metric, **values):
    cells = cells.copy()
    cells.loc[(cells["method"] == method) & (cells["metric"] == metric), list(values)] = list(values.values())
    return cells


@pytest.fixture(scope="module")
def cells(five):
    return compare(five[0], 0.95, five[1], list(METHODS))


def test_ordinary_methods_are_not_flagged(cells):
    assert flags(cells) == []


def test_a_policy_that_did_not_move_is_named(cells):
    still = changed(cells, "ipo", "kl", mean=-0.01, mean_low=-0.06, mean_high=0.04)
    assert flags(still) == ["Hardly moved, by a KL below 0.05 nats: ipo (0.01 nats, at most 0.04)."]
    alone = changed(cells, "ipo", "kl", mean=0.0, mean_low=np.nan, mean_high=np.nan)
    assert flags(alone) == ["Hardly moved, by a KL below 0.05 nats: ipo (0.00 nats)."]
    assert flags(changed(cells, "ipo", "kl", mean=0.06, mean_low=-0.1, mean_high=0.2)) == []
    assert flags(changed(cells, "ipo", "kl", mean=np.nan, mean_low=np.nan, mean_high=np.nan)) == []


def test_a_policy_that_left_the_language_is_named_with_the_signs(cells):
    far = changed(cells, "dpo", "kl", mean=31.2)
    assert "dpo (KL 31 nats)." in flags(far)[0]
    assert flags(changed(far, "dpo", "answer_tokens", mean=200.0)) == [], "0.16 nats a token is no explosion"
    start = cells.loc[(cells["method"] == START) & (cells["metric"] == "review_perplexity"), "mean"].item()
    assert "review bits/byte +40 %" in flags(changed(cells, "dpo", "review_perplexity", mean=1.4 * start))[0]
    assert flags(changed(cells, "dpo", "review_perplexity", mean=1.2 * start)) == []
    assert "25 % of trigrams repeated" in flags(changed(cells, "dpo", "repeated_trigrams", mean=0.25))[0]


def test_flags_stand_under_the_table(cells, tmp_path):
    shared = {**settings([0, 1, 2, 3, 4]), "study": "made_up"}
    far = changed(cells, "dpo", "kl", mean=31.2)
    paths = table_paths(tmp_path)
    found = write_tables(far, shared, pd.DataFrame(columns=CLAIM_COLUMNS), **paths)
    assert any(line.startswith("Left the language of the start") for line in found)
    assert "Left the language of the start" in paths["md"].read_text()


def test_the_committed_finding_is_flagged():
    """IPO at 30 nats in the first small study: the case that the bounds were made for."""
    folder = Path(__file__).parents[2] / "docs/findings/small"
    (line,) = flags(read_cells(folder / "table.csv"))
    assert "ipo (KL 30 nats, review bits/byte +40 %)" in line
