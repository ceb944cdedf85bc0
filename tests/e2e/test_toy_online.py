"""An online study, run for real on the toy: two arms, two seeds, every stage, from pools to equivalence tests."""

import pandas as pd
import pytest
from dag_tools import make_project, planned, snakemake, toy_study, write_config
from marginbench.files import read_json
from marginbench.records import ONLINE_COSTS, ONLINE_METRICS, ROUNDS, read_table

pytestmark = pytest.mark.slow

CELL = "results/quickstart/toy_high/toy_llama"


@pytest.fixture(scope="module")
def project(tmp_path_factory):
    folder = make_project(tmp_path_factory.mktemp("online") / "project")
    study = toy_study("reviews.csv")
    study["seeds"] = [0, 1]
    del study["methods"]
    study["online"] = {
        "steps": 4,
        "query": 2,
        "updates_per_query": 2,
        "pool": 8,
        "evaluate_every": 1,
        "decoding": {"max_new_tokens": 6, "temperature": 0.9},
        "evaluation": {"max_new_tokens": 6, "temperature": 0.8},
    }
    study["training"]["batch_size"] = study["training"]["micro_batch_size"] = 2
    study["arms"] = {
        "random": {"strategy": "random", "labeller": "ground_truth"},
        "apl": {"strategy": "apl", "params": {"pool_factor": 4}, "labeller": "ground_truth"},
    }
    study["equivalence"] = {"pairs": [["apl", "random"]], "margins": {"win_rate": 5}}
    write_config(folder, study)
    result = snakemake(folder, "--cores", "2")
    logs = "\n".join(f"{log}\n{log.read_text()[-1500:]}" for log in sorted((folder / "logs").rglob("*.log")))
    assert result.returncode == 0, result.stderr[-3000:] + logs[-6000:]
    return folder


def test_every_arm_is_trained_measured_and_compared(project):
    results = project / "results" / "quickstart"
    frame = read_table(results / "online_metrics.parquet", ONLINE_METRICS)
    assert set(frame["arm"]) == {"random", "apl"}
    assert set(frame["judge"]) == {"", "ground_truth", "sentiment_half_b"}
    assert {"win_rate", "answer_tokens", "eos_rate", "kl", "review_perplexity"} <= set(frame["metric"])
    start = frame[(frame["round"] == 0) & (frame["metric"] == "win_rate")]
    assert set(start["value"]) == {50.0}
    verdicts = pd.read_csv(results / "online_verdicts.csv")
    assert set(verdicts["verdict"]) == {"undecided"}, "two seeds decide nothing"
    assert "apl" in (results / "online.md").read_text()
    for figure in ("dissociation", "labeller_judge"):
        assert (results / "figures" / f"{figure}.png").stat().st_size > 5000
    leads = pd.read_csv(results / "online_matrix.csv")
    assert leads[["ours", "labeller", "judge", "judge_is_labeller"]].to_numpy().tolist() == [
        ["apl", "ground_truth", "ground_truth", True],
        ["apl", "ground_truth", "sentiment_half_b", False],
    ]


def test_the_table_has_a_row_for_every_arm_and_seed(project):
    """Win rate by labeller and by independent judge, capability, length, and what was spent (condition 3)."""
    results = project / "results" / "quickstart"
    text = (results / "online.md").read_text()
    head = next(line for line in text.splitlines() if line.startswith("| arm |"))
    for name in ("win rate (%), ground_truth†", "win rate (%), sentiment_half_b ", "review bits/byte", "length"):
        assert f"| {name}" in head, name
    assert head.endswith("| rounds | labels | completions | tokens | seconds |")
    columns = head.count("|")
    for arm in ("random", "apl"):
        for seed in (0, 1):
            line = next(line for line in text.splitlines() if line.startswith(f"| {arm}, seed {seed} |"))
            assert line.count("|") == columns
            assert "–" not in line, "everything was measured"
    for budget in ("rounds", "labels", "generated tokens", "seconds"):
        row = next(line for line in text.splitlines() if f"sentiment_half_b, equal {budget} (" in line)
        assert "| undecided |" in row
    tex = (results / "online.tex").read_text()
    assert "apl, seed 1 & " in tex
    assert "undecided" in tex


def test_online_runs_are_entries_of_the_comparison(project):
    results = project / "results" / "quickstart"
    table = (results / "table.md").read_text()
    assert "random" in table
    assert "apl" in table


def test_both_arms_of_a_seed_meet_the_same_pools(project):
    rounds = {
        (arm, seed): read_table(project / CELL / arm / f"seed{seed}/policy/rounds.parquet", ROUNDS)
        for arm in ("random", "apl")
        for seed in (0, 1)
    }
    for seed in (0, 1):
        for number in (1, 2):
            random, apl = (
                set(table.loc[table["round"] == number, "prompt_id"])
                for table in (rounds["random", seed], rounds["apl", seed])
            )
            assert random < apl
            assert (len(random), len(apl)) == (2, 8)
    first = {seed: set(rounds["apl", seed].query("round == 1")["prompt_id"]) for seed in (0, 1)}
    assert first[0] != first[1]


def test_what_was_spent_is_what_the_sizes_say(project):
    costs = read_table(project / CELL / "apl/seed0/policy/online_costs.parquet", ONLINE_COSTS)
    trained = costs[costs["stage"] != "evaluate"].groupby("round")[["completions", "labels", "pair_updates"]].sum()
    assert trained.loc[1].tolist() == trained.loc[2].tolist() == [8 * 2 + 4 * 2, 2, 4]
    spec = read_json(project / CELL / "apl/seed0/spec.json")
    assert spec["n_train_pairs"] == 4
    assert spec["method"]["online"]["strategy"]["name"] == "apl"


def test_a_second_run_has_nothing_to_do(project):
    result = snakemake(project, "-n")
    assert result.returncode == 0, result.stderr
    assert planned(result.stdout) == {}
