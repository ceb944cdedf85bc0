"""From a run's files to the long table, the cells, the table in three forms and the closing screen."""

import io
import subprocess
import sys
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
from marginbench.errors import UserError
from marginbench.files import read_json, write_json
from marginbench.records import ANSWER_SCORES, METRICS, read_table, write_table
from marginbench.reporting import terminal
from marginbench.reporting.claims import CLAIM_COLUMNS, collect_claims, read_claims
from marginbench.reporting.comparison import compare
from marginbench.reporting.metrics import (
    collect_items,
    collect_metrics,
    read_items,
    run_files,
    write_items,
    write_metrics,
)
from marginbench.reporting.shared import collect_shared, shared_lines
from marginbench.reporting.table import read_cells, write_tables
from marginbench.reporting.timings import collect_timings
from marginbench.statistics.intervals import paired_difference, seeds_interval
from marginbench.study import START
from reporting_fixture import FAMILY, JUDGE, METHODS, QUESTIONS, settings, table_paths, write_shared, write_study
from rich.console import Console


def aggregate(root: Path, seeds: list[int]) -> tuple[list[dict], pd.DataFrame, pd.DataFrame, pd.DataFrame]:
    """Runs, metrics, items and cells of a made-up study."""
    records = write_study(root, seeds)
    runs = [run_files(record) for record in records]
    metrics, items = collect_metrics(runs), collect_items(runs)
    return records, metrics, items, compare(metrics, 0.95, items, settings(seeds)["methods"])


def cell(cells: pd.DataFrame, method: str, metric: str) -> pd.Series:
    """The one cell of a method and metric."""
    found = cells[(cells["method"] == method) & (cells["metric"] == metric)]
    assert len(found) == 1
    return found.iloc[0]


@pytest.fixture(scope="module")
def one(tmp_path_factory):
    return aggregate(tmp_path_factory.mktemp("one"), [0])


@pytest.fixture(scope="module")
def three(tmp_path_factory):
    return aggregate(tmp_path_factory.mktemp("three"), [0, 1, 2])


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    """A finished study of one seed, as the workflow leaves it."""
    root = tmp_path_factory.mktemp("study")
    return finish(root, [0])


def finish(root: Path, seeds: list[int]) -> Path:
    records, metrics, items, cells = aggregate(root, seeds)
    claims = collect_claims(metrics, items, FAMILY)
    out = root / "made_up"
    scores = [path for record in records for path in record["scores"].values()]
    shared = collect_shared("made_up", settings(seeds), **write_shared(root), scores=scores)
    write_metrics(metrics, out / "metrics.parquet", out / "metrics.csv")
    write_json(out / "shared.json", shared)
    write_tables(cells, shared, claims, **table_paths(out))
    return out


# --- the long table -----------------------------------------------------------------------------------------------


def test_metrics_keep_the_contract_and_their_files(one, tmp_path):
    records, metrics, _, _ = one
    write_metrics(metrics, tmp_path / "m.parquet", tmp_path / "m.csv")
    assert read_table(tmp_path / "m.parquet", METRICS).equals(metrics)
    record = next(r for r in records if r["method"] == "dpo")
    answers = read_table(record["answer_scores"]["t08/in_domain"], ANSWER_SCORES)
    row = metrics[(metrics["method"] == "dpo") & (metrics["metric"] == "true_reward")].iloc[0]
    assert row["value"] == pytest.approx(answers["true_reward"].mean(), abs=1e-12)
    assert row["se"] == pytest.approx(answers["true_reward"].std(ddof=1) / np.sqrt(QUESTIONS), abs=1e-12)
    score = read_json(record["scores"][f"t08/in_domain/{JUDGE}"])
    row = metrics[(metrics["method"] == "dpo") & (metrics["metric"] == "win_rate")].iloc[0]
    assert (row["value"], row["se"], row["n"], row["judge"]) == (
        score["win_rate"],
        score["standard_error"],
        score["n_total"],
        JUDGE,
    )
    assert row["spec_hash"] == read_json(record["spec"])["spec_hash"]
    assert set(metrics.loc[metrics["generation"] == "", "metric"]) == {"piqa", "review_perplexity"}


def test_equal_inputs_give_equal_bytes(one, tmp_path):
    records, metrics, _, _ = one
    again = collect_metrics([run_files(record) for record in reversed(records)])
    for name, frame in (("a", metrics), ("b", again)):
        write_metrics(frame, tmp_path / f"{name}.parquet", tmp_path / f"{name}.csv")
    assert (tmp_path / "a.csv").read_bytes() == (tmp_path / "b.csv").read_bytes()
    assert (tmp_path / "a.parquet").read_bytes() == (tmp_path / "b.parquet").read_bytes()
    header = (tmp_path / "a.csv").read_text().split("\n")[0]
    assert header == ",".join(METRICS.columns)


def test_standard_error_is_clustered_by_question(tmp_path):
    """Every question answered twice with the same value: twice the rows, the same information."""
    record = write_study(tmp_path, [0])[1]
    path = Path(record["answer_scores"]["t08/in_domain"])
    answers = read_table(path, ANSWER_SCORES)
    once = collect_metrics([run_files(record)])
    double = pd.concat([answers, answers.assign(answer_id=answers["answer_id"] + "x")])
    write_table(double, path, ANSWER_SCORES)
    twice = collect_metrics([run_files(record)])
    pd.testing.assert_frame_equal(once, twice)


def test_unmeasured_values_stay_as_null_rows(tmp_path):
    record = write_study(tmp_path, [0])[1]
    path = Path(record["answer_scores"]["t08/in_domain"])
    answers = read_table(path, ANSWER_SCORES)
    answers["kl"] = None
    answers.loc[0, "true_reward"] = None
    write_table(answers, path, ANSWER_SCORES)
    metrics = collect_metrics([run_files(record)]).set_index("metric")
    assert pd.isna(metrics.loc["kl", "value"])
    assert metrics.loc["kl", "n"] == 0
    assert metrics.loc["true_reward", "n"] == QUESTIONS - 1


def test_length_controlled_rate_only_where_there_is_one(tmp_path):
    record = write_study(tmp_path, [0])[1]
    path = Path(record["scores"][f"t08/in_domain/{JUDGE}"])
    assert "length_controlled_winrate" not in set(collect_metrics([run_files(record)])["metric"])
    write_json(path, {**read_json(path), "length_controlled_winrate": 61.5, "lc_reason": None})
    metrics = collect_metrics([run_files(record)]).set_index("metric")
    assert metrics.loc["length_controlled_winrate", "value"] == 61.5
    assert pd.isna(metrics.loc["length_controlled_winrate", "se"])


def test_a_second_benchmark_has_its_own_rows(tmp_path):
    record = write_study(tmp_path, [0])[1]
    for kind, old, new in (
        ("answer_scores", "t08/in_domain", "t08/arena"),
        ("scores", f"t08/in_domain/{JUDGE}", f"t08/arena/{JUDGE}"),
    ):
        record[kind][new] = record[kind][old]
    metrics = collect_metrics([run_files(record)])
    assert {"win_rate", "arena/win_rate", "kl", "arena/kl"} <= set(metrics["metric"])
    assert compare(metrics, 0.95)["metric"].str.startswith("arena/").any()


@pytest.mark.parametrize(
    ("kind", "content", "words"),
    [
        ("scores", {"win_rate": 50.0, "n_total": 3, "n_null": 0}, "key `standard_error` is missing"),
        ("spec", {}, "key `spec_hash` is missing"),
    ],
)
def test_a_file_without_its_keys_is_refused(tmp_path, kind, content, words):
    record = write_study(tmp_path, [0])[1]
    path = record["spec"] if kind == "spec" else record["scores"][f"t08/in_domain/{JUDGE}"]
    write_json(path, content)
    with pytest.raises(UserError, match=words) as error:
        collect_metrics([run_files(record)])
    assert str(path) in str(error.value)
    assert "\n" not in str(error.value)


def test_an_empty_capability_folder_is_refused(tmp_path):
    record = write_study(tmp_path, [0])[1]
    (tmp_path / "none").mkdir()
    with pytest.raises(UserError, match="holds no task results"):
        run_files({**record, "capability": str(tmp_path / "none")})


def test_items_hold_what_the_values_are_means_of(one, tmp_path):
    _, metrics, items, _ = one
    write_items(items, tmp_path / "items.parquet")
    pd.testing.assert_frame_equal(read_items(tmp_path / "items.parquet"), items)
    keys = ["method", "metric"]
    for key, rows in items.groupby(keys):
        value = metrics.set_index(keys).loc[key, "value"]
        assert np.average(rows["value"], weights=rows["weight"]) == pytest.approx(value, abs=1e-9), key
    assert set(items["metric"]) == set(metrics["metric"]) - {"judge_null"}


# --- the cells ----------------------------------------------------------------------------------------------------


def test_one_seed_pairs_by_question(one):
    _, _, items, cells = one
    by = items[items["metric"] == "true_reward"].pivot_table(index="item", columns="method", values="value")
    expected = paired_difference(by["dpo"], by[START], 0.95)
    found = cell(cells, "dpo", "true_reward")
    assert (found["vs_start"], found["vs_start_low"], found["vs_start_high"]) == pytest.approx(
        (expected.mean, expected.low, expected.high), abs=1e-9
    )
    assert (found["mean_over"], found["vs_start_over"], found["seeds"]) == ("items", "items", 1)


def test_one_seed_keeps_the_weights_of_documents(one):
    _, metrics, _, cells = one
    found = cell(cells, "dpo", "review_perplexity")
    values = metrics[metrics["metric"] == "review_perplexity"].set_index("method")["value"]
    assert found["vs_start"] == pytest.approx(values["dpo"] - values[START], abs=1e-9)
    assert found["vs_start_over"] == "items"


def test_three_seeds_pair_by_seed(three):
    _, metrics, _, cells = three
    by = metrics[metrics["metric"] == "true_reward"].pivot_table(index="seed", columns="method", values="value")
    expected, difference = seeds_interval(by["dpo"], 0.95), seeds_interval(by["dpo"] - by[START], 0.95)
    found = cell(cells, "dpo", "true_reward")
    assert (found["mean"], found["mean_low"], found["mean_high"]) == pytest.approx(
        (expected.mean, expected.low, expected.high), abs=1e-12
    )
    assert (found["vs_start_low"], found["vs_start_high"]) == pytest.approx(
        (difference.low, difference.high), abs=1e-12
    )
    assert (found["mean_over"], found["vs_start_over"], found["seeds"]) == ("seeds", "seeds", 3)
    against = cell(cells, "ipo", "true_reward")
    assert against["vs_dpo"] == pytest.approx((by["ipo"] - by["dpo"]).mean(), abs=1e-12)
    assert pd.isna(cell(cells, "dpo", "true_reward")["vs_dpo"])


def test_two_seeds_have_no_interval(tmp_path):
    cells = aggregate(tmp_path, [0, 1])[3]
    assert set(cells["mean_over"]) == {"none"}
    assert cells["mean_low"].isna().all()
    assert cells.loc[cells["method"] != START, "vs_start"].notna().all()


def test_a_win_rate_is_already_a_difference(three):
    cells = three[3]
    found = cell(cells, "dpo", "win_rate")
    assert found["vs_start"] == pytest.approx(found["mean"] - 50, abs=1e-12)
    assert found["vs_start_low"] == pytest.approx(found["mean_low"] - 50, abs=1e-12)


def test_intervals_stay_inside_the_metric(three):
    metrics = three[1].copy()
    wins = (metrics["method"] == "dpo") & (metrics["metric"] == "win_rate")
    for values, end, bound in (([99.0, 90.0, 98.0], "mean_high", 100.0), ([1.0, 10.0, 2.0], "mean_low", 0.0)):
        metrics.loc[wins, "value"] = values
        found = cell(compare(metrics, 0.95), "dpo", "win_rate")
        assert found[end] == bound
        assert found["mean_low"] < np.mean(values) < found["mean_high"]


def test_methods_stand_in_the_order_of_the_study(three):
    metrics = three[1]
    order = list(dict.fromkeys(compare(metrics, 0.95, methods=["ipo", START, "dpo"])["method"]))
    assert order == [START, "ipo", "dpo"]


def test_a_start_of_other_seeds_gives_no_difference(three):
    metrics = three[1]
    moved = metrics.copy()
    moved.loc[moved["method"] == START, "seed"] += 10
    assert compare(moved, 0.95).loc[lambda f: f["metric"] == "true_reward", "vs_start"].isna().all()


# --- the table and what stands under it ---------------------------------------------------------------------------


def test_table_csv_comes_back(folder, one):
    cells = read_cells(folder / "table.csv")
    assert list(cells.columns) == list(one[3].columns)
    assert (cells["generation"] == "").any()
    np.testing.assert_allclose(cells["mean"], one[3]["mean"], rtol=1e-9)
    (folder / "other.csv").write_text("a,b\n1,2\n")
    with pytest.raises(UserError, match=r"not a table\.csv"):
        read_cells(folder / "other.csv")


def test_markdown_says_what_a_reader_needs(folder):
    text = (folder / "table.md").read_text()
    assert "One seed: 95 % intervals are over prompts (documents), not over trainings." in text
    assert "length-controlled win rate (its constants are for AlpacaEval 2)" in text
    assert "70.0 % [53.5, 83.4] right on 40 labels" in text
    rows = [line for line in text.splitlines() if line.startswith("|")]
    widths = {line.count("|") for line in rows[: 2 + len(METHODS)]}
    assert len(widths) == 1
    assert rows[2].startswith("| SFT start |")


def test_three_seeds_name_the_condition(tmp_path):
    text = (finish(tmp_path, [0, 1, 2]) / "table.md").read_text()
    assert "3 seeds: 95 % t-intervals over seeds, conditional on the shared stages" in text
    assert "made once (data, SFT start, reward model)." in text


def test_nulls_and_partial_cells_are_listed(tmp_path):
    records = write_study(tmp_path, [0, 1, 2])
    path = Path(records[3]["scores"][f"t08/in_domain/{JUDGE}"])  # dpo, seed 0
    write_json(path, {**read_json(path), "n_total": QUESTIONS - 4, "n_null": 4})
    records = [record for record in records if (record["method"], record["seed"]) != ("ipo", 2)]
    answers = Path(records[4]["answer_scores"]["t08/in_domain"])
    write_table(read_table(answers, ANSWER_SCORES).assign(truncated=False), answers, ANSWER_SCORES)
    runs = [run_files(record) for record in records]
    shared = collect_shared("made_up", settings([0, 1, 2]), **write_shared(tmp_path))
    cells = compare(collect_metrics(runs), 0.95, collect_items(runs), list(METHODS))
    found = write_tables(cells, shared, pd.DataFrame(columns=CLAIM_COLUMNS), **table_paths(tmp_path))
    text = "\n".join(found)
    assert f"dpo 2.1 % by {JUDGE}" in text
    assert "Fewer items behind win rate: dpo 60 of 64." in text
    assert "Only 2 of 3 seeds: ipo." in text
    assert "Answers cut at the token limit: SFT start 100 %; dpo 67 %; ipo 100 %." in text


def test_a_doubtful_reward_model_is_called_so():
    part = {"accuracy": 0.6, "ci": [0.43, 0.75], "n": 40}
    shared = {"reward_models": {"d/m": {"holdout": part, "holdout_true_order": {**part, "ci": [0.51, 0.75]}}}}
    line = shared_lines(shared)[0]
    assert line.count("not clearly above chance") == 1


def test_tex_is_balanced_and_escaped(folder):
    text = (folder / "table.tex").read_text()
    assert text.count(r"\begin{tabular}") == text.count(r"\end{tabular}") == 2
    assert text.count("{") == text.count("}")
    assert r"imdb\_high" in text
    for line in text.splitlines():
        bare = line.replace(r"\_", "").replace(r"\%", "").replace(r"\&", "")
        assert "_" not in bare or line.startswith(r"\label"), line
        assert "%" not in bare or line.startswith("%"), line
    text.encode("ascii")
    body = text.split(r"\begin{tabular}{l")[1]
    columns = 1 + body.index("}")
    rows = [line for line in body.split(r"\end{tabular}")[0].splitlines() if line.endswith(r"\\")]
    assert len(rows) == 1 + len(METHODS)
    assert all(line.count(" & ") == columns - 1 for line in rows)


# --- the closing screen -------------------------------------------------------------------------------------------


def shown(folder: Path) -> str:
    stream = io.StringIO()
    terminal.show(folder, Console(file=stream, width=terminal.WIDTH, highlight=False))
    return stream.getvalue()


def test_terminal_fits_100_columns_and_cuts_nothing(folder):
    text = shown(folder)
    lines = text.splitlines()
    paths = [line for line in lines if str(folder) in line]
    assert max(len(line) for line in lines if line not in paths) <= 100
    assert "…" not in text
    cells = read_cells(folder / "table.csv")
    assert f"{cell(cells, 'dpo', 'true_reward')['vs_start']:+.2f}" in text
    for words in ("SFT start", "win rate", "(tokens)", "One seed: 95 %", "table.md", "metrics.csv"):
        assert words in text, words


def test_many_columns_are_split_not_squeezed(folder):
    extra = read_cells(folder / "table.csv")
    tasks = extra[extra["metric"] == "piqa"]
    more = [tasks.assign(metric=name) for name in ("hellaswag", "mmlu", "gsm8k", "my_task")]
    wide = folder.parent / "wide"
    shared = read_json(folder / "shared.json")
    cells = pd.concat([extra, *more], ignore_index=True)
    write_json(wide / "shared.json", shared)
    write_tables(cells, shared, read_claims(folder / "claims.csv"), **table_paths(wide))
    text = shown(wide)
    assert max(len(line) for line in text.splitlines() if "wide" not in line) <= 100
    assert all(name in text for name in ("HellaSwag", "MMLU", "GSM8K", "my_task"))


def test_terminal_refuses_an_unfinished_study(tmp_path):
    with pytest.raises(UserError, match=r"table\.csv: not there yet; run `snakemake"):
        terminal.show(tmp_path)


@pytest.mark.slow
def test_terminal_needs_neither_torch_nor_matplotlib():
    code = "import sys, marginbench.reporting.terminal as t; print({'torch', 'matplotlib', 'trl'} & set(sys.modules))"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "set()"


# --- timings ------------------------------------------------------------------------------------------------------


def test_timings_from_both_forms_of_benchmark_file(tmp_path):
    (tmp_path / "train").mkdir()
    (tmp_path / "train/dpo.jsonl").write_text('{"s": 2.0, "max_rss": 100.5}\n{"s": 4.0, "max_rss": "NA"}\n')
    (tmp_path / "judge.tsv").write_text("s\th:m:s\tmax_rss\tcpu_time\n1.5\t0:00:01\t-\t1.2\n")
    found = collect_timings(tmp_path.rglob("*.*"), root=tmp_path).set_index("job")
    assert found.loc["train/dpo", "seconds"] == 3.0
    assert found.loc["train/dpo", "peak_rss_mb"] == 100.5
    assert pd.isna(found.loc["judge", "peak_rss_mb"])
    (tmp_path / "bad.jsonl").write_text('{"a": 1}\n')
    with pytest.raises(UserError, match=r"bad\.jsonl: not a Snakemake benchmark file"):
        collect_timings(tmp_path.rglob("*.jsonl"))
