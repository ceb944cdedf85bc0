"""Every stage of the DAG, run for real on the toy study, twice: the same bytes, nothing to do the second time."""

import json
import math
import shutil
import subprocess
import sys
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pandas as pd
import pytest
from dag_tools import ROOT, make_project, planned, snakemake, toy_study, write_config
from marginbench.cli import main
from marginbench.files import read_json, read_jsonl
from marginbench.judging.ledger import Ledger
from marginbench.records import ALL_TABLES, ONLINE_TABLES, read_table

pytestmark = pytest.mark.slow

RUN = Path("results/quickstart/toy_high/toy_llama")


@pytest.fixture(scope="module")
def projects(tmp_path_factory):
    """Two clean projects in different folders, each run to the end on one core."""
    folders = [make_project(tmp_path_factory.mktemp(name) / name) for name in ("first", "second")]
    study = toy_study("reviews.csv")
    study["methods"]["newcomer"] = {"method": "exponential", "params": {"beta": 0.2}}
    for folder in folders:  # a method that somebody adds: its file and an entry, no other edit
        shutil.copy(ROOT / "tests/fixtures/exponential.py", folder / "workflow/marginbench/methods")
        write_config(folder, study)
    with ThreadPoolExecutor(2) as pool:
        results = list(pool.map(lambda folder: snakemake(folder, "--cores", "1"), folders))
    for folder, result in zip(folders, results, strict=True):
        logs = "\n".join(f"{log}\n{log.read_text()[-1500:]}" for log in sorted((folder / "logs").rglob("*.log")))
        assert result.returncode == 0, result.stderr[-4000:] + logs[-6000:]
    return folders


def test_two_clean_runs_give_the_same_bytes(projects):
    first, second = projects
    names = ["metrics.csv", "metrics.parquet", "wide.csv", "table.csv", "table.md", "table.tex", "claims.csv"]
    names += ["shared.json", "figures/margins.png"]
    names += ["figures/learning_curves.png", "figures/reward_kl.png", "figures/learning_curves.pdf"]
    for name in names:
        one, two = (folder / "results" / "quickstart" / name for folder in (first, second))
        assert one.read_bytes() == two.read_bytes(), name


def test_a_method_file_that_was_added_is_run_and_reported(projects):
    results = projects[0] / "results" / "quickstart"
    spec = read_json(projects[0] / RUN / "newcomer" / "seed0" / "spec.json")
    assert spec["method"]["params"]["beta"] == 0.2
    log = pd.read_parquet(projects[0] / RUN / "newcomer" / "seed0" / "train.parquet")
    assert log[(log["step"] == 1) & (log["quantity"] == "loss")]["value"].item() == pytest.approx(1, abs=1e-5)
    metrics = pd.read_csv(results / "metrics.csv")
    assert set(metrics[metrics["method"] == "newcomer"]["metric"]) == set(metrics[metrics["method"] == "dpo"]["metric"])
    assert "newcomer" in (results / "table.md").read_text()


def test_a_second_run_has_nothing_to_do(projects):
    result = snakemake(projects[0], "-n")
    assert result.returncode == 0
    assert planned(result.stdout) == {}


def test_no_half_written_files_are_left(projects):
    leftovers = [
        path for path in (projects[0] / "results").rglob("*") if ".part" in path.name or "checkpoint" in path.name
    ]
    assert leftovers == []


def test_every_table_keeps_its_contract(projects):
    by_name = {table.name: table for table in ALL_TABLES}
    read = set()
    for path in (projects[0] / "results").rglob("*.parquet"):
        kind = {"margins": "margins", "in_domain": "answer_scores"}.get(path.stem, path.stem)
        kind = "margins" if path.parent.name == "margins" else kind
        kind = "answer_scores" if "answer_scores" in path.parts else kind
        if path.stem == "items":
            continue
        read_table(path, by_name[kind])
        read.add(kind)
    assert read == set(by_name) - {table.name for table in ONLINE_TABLES}


def test_policy_equals_reference_at_the_first_step(projects):
    log = pd.read_parquet(projects[0] / RUN / "dpo" / "seed0" / "train.parquet")
    first = log[(log["step"] == 1) & (log["quantity"] == "loss")]["value"].item()
    assert first == pytest.approx(math.log(2), abs=1e-5)


def test_every_benchmark_is_answered_judged_and_scored(projects, capsys):
    """The files in the official formats, scored by the command for files from elsewhere, give the study's numbers."""
    run = projects[0] / RUN / "dpo" / "seed0"
    scores = {path.parent.name: read_json(path) for path in (run / "scores" / "t08").rglob("*.json")}
    assert set(scores) == {"in_domain", "alpaca_eval", "arena_hard", "mt_bench"}
    official, annotations = run / "official" / "t08", run / "annotations" / "t08"
    commands = {
        "alpaca_eval": ["alpaca-eval", annotations / "alpaca_eval" / "sentiment_half_b.json"],
        "arena_hard": ["arena-hard", "--version", "v2.0", official / "arena_hard" / "sentiment_half_b_arena.jsonl"],
        "mt_bench": ["mt-bench", official / "mt_bench" / "sentiment_half_b_rating.jsonl"],
    }
    for bench, command in commands.items():
        assert main(["score", *map(str, command)]) == 0
        printed = json.loads(capsys.readouterr().out)
        printed = printed["models"]["dpo"] if "models" in printed else printed
        shared = set(printed) & set(scores[bench])
        assert len(shared) >= 6, bench
        assert {name: printed[name] for name in shared} == {name: scores[bench][name] for name in shared}
    metrics = pd.read_csv(projects[0] / "results" / "quickstart" / "metrics.csv")
    found = metrics[(metrics["method"] == "dpo") & metrics["judge"].notna()].set_index("metric")["value"]
    assert found["mt_bench"] == pytest.approx(scores["mt_bench"]["average"])
    assert found["arena_score"] == pytest.approx(scores["arena_hard"]["score"])
    assert found["alpaca_eval/win_rate"] == pytest.approx(scores["alpaca_eval"]["win_rate"])


def test_a_second_turn_is_asked_after_the_first_answer(projects):
    rows = read_jsonl(projects[0] / RUN / "dpo" / "seed0" / "answers" / "t08" / "mt_bench.jsonl")
    assert [row["turn"] for row in rows] == [1, 2] * 3
    assert {row["prompt_text"] for row in rows if row["turn"] == 2} == {"And the music?"}
    temperatures = [row["decoding"]["temperature"] for row in rows]
    assert temperatures == [0.7, 0.7, 0.1, 0.1, 0.0, 0.0]  # writing, stem, extraction


def test_no_verdict_is_asked_for_twice(projects):
    """The ledger holds one row for every key of every judgment file: what runs share was sent once."""
    judged = [row for path in (projects[0] / RUN).rglob("judgments/**/*.jsonl") for row in read_jsonl(path)]
    keys = {row["key"] for row in judged if row["reason"] != "identical"}
    with Ledger(projects[0] / "results" / "judgments.sqlite") as ledger:
        assert set(ledger.get(keys)) == keys
        assert all(len(ledger.tries(key)) == 1 for key in keys)
    assert len(keys) < len(judged)


def test_judged_over_http_with_nothing_lost(projects):
    run = projects[0] / RUN / "dpo" / "seed0"
    judgments = read_jsonl(run / "judgments" / "t08" / "in_domain" / "sentiment_half_b.jsonl")
    answers = read_jsonl(run / "answers" / "t08" / "in_domain.jsonl")
    assert {row["question_id"] for row in judgments} == {row["question_id"] for row in answers}
    assert all(row["preference"] is not None for row in judgments)
    scores = read_json(run / "scores" / "t08" / "in_domain" / "sentiment_half_b.json")
    assert scores["n_total"] == len(answers) == 6
    start = read_json(projects[0] / RUN / "sft_start/seed0/scores/t08/in_domain/sentiment_half_b.json")
    assert start["win_rate"] == 50.0


def test_spec_tells_what_made_the_run(projects):
    spec = read_json(projects[0] / RUN / "dpo" / "seed0" / "spec.json")
    assert spec["method"]["name"] == "dpo"
    assert {"beta": 0.1, "label_smoothing": 0.0, "order": "seeded", "keep": "all"}.items() <= spec["method"][
        "params"
    ].items()
    assert spec["effective_batch"] == 4
    assert spec["packages"]["trl"] == "1.16.0"
    assert set(spec["seeds"]) == {"training", "data_order", "initialisation"}
    ipo = read_json(projects[0] / RUN / "ipo" / "seed0" / "spec.json")
    assert ipo["seeds"] == spec["seeds"], "methods of one seed see the same order and the same start"
    assert ipo["spec_hash"] != spec["spec_hash"]


def test_report_is_one_offline_file(projects):
    folder = projects[0]
    result = snakemake(folder, "quickstart", "--report", "report.html")
    assert result.returncode == 0, result.stderr
    text = (folder / "report.html").read_text()
    assert 'src="http' not in text
    assert 'href="http' not in text.replace('href="https://snakemake', "")


def test_the_closing_screen_reads_files_only(projects):
    command = [sys.executable, "-m", "marginbench", "show", "results/quickstart"]
    result = subprocess.run(command, cwd=projects[0], capture_output=True, text=True, check=False)
    assert result.returncode == 0, result.stderr
    for words in ("SFT start", "dpo", "ipo", "One seed", "metrics.csv"):
        assert words in result.stdout


def test_a_broken_result_is_named_not_used(projects, tmp_path):
    broken = tmp_path / "metrics.parquet"
    broken.write_bytes((projects[0] / "results/quickstart/metrics.parquet").read_bytes()[:200])
    from marginbench.errors import UserError
    from marginbench.records import METRICS

    with pytest.raises(UserError, match="not a readable parquet file"):
        read_table(broken, METRICS)
    assert json.loads((projects[0] / "results/quickstart/shared.json").read_text())["study"] == "quickstart"
