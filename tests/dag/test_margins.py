"""Scorers in the real DAG: who waits for whom, and that editing one scorer makes only its own margins again."""

import re
from pathlib import Path

import pytest
from dag_tools import make_project, planned, snakemake, toy_study, write_config
from marginbench.identity import import_closure

pytestmark = pytest.mark.slow

ROOT = Path(__file__).resolve().parents[2]
SCRIPTS = ROOT / "workflow" / "scripts"
CELL = "results/quickstart/toy_high/toy_llama/shared"
RUNS = "results/quickstart/toy_high/toy_llama"


@pytest.fixture(scope="module")
def project(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = make_project(tmp_path_factory.mktemp("scorers"))
    study = toy_study("reviews.csv")
    study["margins"] = ["reward_model", "implicit_reward"]
    study["methods"]["selective"] = {"method": "selective_dpo", "params": {"beta": 0.1}}
    write_config(folder, study)
    return folder


def jobs_for(folder: Path, target: str) -> dict[str, int]:
    result = snakemake(folder, "-n", target)
    assert result.returncode == 0, result.stderr
    jobs = planned(result.stdout)
    jobs.pop("total")
    return jobs


BEFORE_ANY_POLICY = {
    "read_corpus": 1,
    "prepare_model": 1,
    "train_sft": 1,
    "sample_candidates": 1,
    "fit_classifiers": 1,
    "make_pairs": 1,
    "tokenise_pairs": 1,
    "score_reference": 1,
}


def test_selective_dpo_waits_for_its_held_out_losses_and_nothing_else_new(project: Path) -> None:
    plain = jobs_for(project, f"{RUNS}/dpo/seed0/policy/manifest.json")
    assert plain == {**BEFORE_ANY_POLICY, "train_policy": 1}
    selective = jobs_for(project, f"{RUNS}/selective/seed0/policy/manifest.json")
    assert selective == {**plain, "score_held_out_loss": 1}


def test_implicit_rewards_wait_for_one_policy(project: Path) -> None:
    jobs = jobs_for(project, f"{CELL}/margins/implicit_reward.parquet")
    assert jobs == {**BEFORE_ANY_POLICY, "train_policy": 1, "score_implicit_reward": 1}


def test_the_figure_has_every_scorer(project: Path) -> None:
    jobs = jobs_for(project, "results/quickstart/figures/margins.png")
    scorers = {name for name in jobs if name.startswith("score_")} - {"score_reference"}
    assert scorers == {"score_reward_model", "score_implicit_reward", "score_held_out_loss"}
    result = snakemake(project, "-n")
    assert planned(result.stdout)["plot_margins"] == 1


def test_editing_a_scorer_changes_the_code_of_its_own_rule_only() -> None:
    """The code hash of a rule is made of these files, and a rule reruns when it changes."""
    rules = {script.stem for script in SCRIPTS.glob("score_*.py")}
    modules = list((ROOT / "workflow" / "marginbench" / "margins").glob("*.py"))
    found = {module.stem: {r for r in rules if module in import_closure(SCRIPTS / f"{r}.py")} for module in modules}
    scorers = re.findall(r"^rule score_(\w+):", (ROOT / "workflow" / "rules" / "margins.smk").read_text(), re.M)
    assert {name: found[name] for name in scorers} == {name: {f"score_{name}"} for name in scorers}
    assert found["log_ratios"] == {"score_held_out_loss", "score_implicit_reward"}
