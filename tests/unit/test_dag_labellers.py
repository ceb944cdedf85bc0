"""Online arms of a study: who labels, who judges, and what is refused before anything runs."""

from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
from dag_tools import toy_study, write_reviews
from marginbench.dag.checks import load_studies
from marginbench.dag.plan import Plan
from marginbench.errors import UserError
from marginbench.judging.spec import load_judges

ROOT = Path(__file__).resolve().parents[2]
ARMS = {
    "random": {"strategy": "random", "labeller": "ground_truth"},
    "apl": {"strategy": "apl", "labeller": "ground_truth", "params": {"pool_factor": 4}},
    "random_rm": {"strategy": "random", "labeller": "reward_model"},
    "apl_rm": {"strategy": "apl", "labeller": "reward_model", "params": {"pool_factor": 4}},
}
SIZES = {"steps": 4, "query": 4, "updates_per_query": 2, "pool": 16}


def _plan(folder: Path, arms: dict[str, Any], **changes: Any) -> Plan:
    write_reviews(folder / "reviews.csv")
    study = {**toy_study(str(folder / "reviews.csv")), "online": SIZES, "arms": arms, **changes}
    judges = load_judges(ROOT / "resources" / "judges.yaml")
    return Plan(load_studies(study, [], judges), judges, ROOT / "workflow" / "scripts", "results")


def _run(arm: str) -> SimpleNamespace:
    return SimpleNamespace(study="quickstart", dataset="toy_high", model="toy_llama", method=arm, seed="0")


def test_every_run_is_compared_by_the_labellers_of_all_arms(tmp_path: Path) -> None:
    plan = _plan(tmp_path, ARMS)
    truth = ["results/quickstart/corpora/toy/classifiers/ground_truth.npz"]
    model = ["results/quickstart/toy_high/toy_llama/shared/reward_model/manifest.json"]
    for arm, own, others in (("apl", truth, model), ("random_rm", model, truth)):
        assert plan.labeller_weights(_run(arm)) == own
        assert plan.other_labellers_weights(_run(arm)) == others
    assert plan.arm_params(_run("apl"))["others"] == ["reward_model"]
    one = _plan(tmp_path, {name: ARMS[name] for name in ("random", "apl")})
    assert one.other_labellers(_run("apl")) == one.other_labellers_weights(_run("apl")) == []


def test_a_judge_that_labels_elsewhere_compares_once(tmp_path: Path) -> None:
    arms = {**ARMS, "random_b": {"strategy": "random", "labeller": "sentiment_half_b"}}
    plan = _plan(tmp_path, arms, online={**SIZES, "judge_may_label": True})
    assert plan.other_labellers(_run("apl")) == ["reward_model"], "sentiment_half_b judges every run anyway"
    assert plan.other_labellers(_run("random_b")) == ["ground_truth", "reward_model"]
    served = plan.arm_params(_run("random_b"))["labelling_judges"]
    assert list(served) == ["sentiment_half_b"]
    assert served["sentiment_half_b"]["backend"] == "classifier"


@pytest.mark.parametrize(
    ("changes", "words"),
    [
        ({"equivalence": {"pairs": [["apl", "random_rm"]]}}, "compare arms of one labeller"),
        ({"equivalence": {"pairs": [["apl", "apl"]]}}, "compared with itself"),
        ({"equivalence": {"pairs": [["apll", "random"]]}}, "no entry `apll` under arms; did you mean `apl`"),
        ({"online": {**SIZES, "pool": 8}}, "looks at 16 prompts a round, a round has 8"),
        ({"online": {**SIZES, "pool": 17}}, "a round's pool is 17 prompts"),
        ({"arms": {"a": {"strategy": "random", "labeller": "sentiment_half_b"}}}, "would measure its own taste"),
        ({"arms": {"a": {"strategy": "random", "labeller": "reward_modl"}}}, "did you mean `reward_model`"),
        ({"arms": {"a": {"strategy": "rand"}}}, "unknown"),
        ({"arms": {"a": {"strategy": "random", "method": "madpo"}}}, "reads margins"),
        ({"arms": {"a": {"strategy": "random", "training": {"tuning": {"kind": "full"}}}}}, "train adapters"),
        ({"arms": {"a": {"strategy": "random", "online": {"steps": 0}}}}, "steps"),
        ({"arms": {"a": {"strategy": "random", "labeller": "hub_reward_model"}}}, "no section `hub_reward_model`"),
    ],
)
def test_what_cannot_run_is_refused_in_one_line(tmp_path: Path, changes: dict[str, Any], words: str) -> None:
    with pytest.raises(UserError, match=words) as raised:
        _plan(tmp_path, **{"arms": ARMS, **changes})
    assert "\n" not in str(raised.value)
