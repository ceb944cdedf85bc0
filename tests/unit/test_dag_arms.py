"""Online arms that are refused before anything runs, and those on preference datasets that are not."""

import copy
from pathlib import Path

import pytest
from dag_tools import toy_study
from marginbench.dag.arms import check_arms
from marginbench.dag.checks import parse_study
from marginbench.errors import UserError
from marginbench.judging.spec import load_judges

JUDGES = load_judges(Path(__file__).parents[2] / "resources" / "judges.yaml")


def study(source: str, **changes):
    """A study with one online arm on a corpus of reviews or of a preference file; changes go into the arm."""
    raw = copy.deepcopy(toy_study("reviews.csv"))
    if source == "file":
        raw["corpora"] = {"toy": {"source": "file", "path": "pairs.jsonl"}}
        raw["datasets"] = {"toy_high": {"corpus": "toy"}}
    raw["judges"] = [name for name, judge in JUDGES.items() if judge.backend == "causal_lm"][:1]
    raw["online"] = {"query": 2, "pool": 8}
    raw["arms"] = {"apl": {"strategy": "apl", "params": {"pool_factor": 4}, "labeller": "reward_model", **changes}}
    return parse_study(raw, "here")


@pytest.mark.parametrize("source", ["reviews", "file"])
def test_an_arm_runs_on_reviews_and_on_preference_files(source):
    check_arms(study(source), "here", JUDGES)


@pytest.mark.parametrize("labeller", ["ground_truth", "sentiment_half_b"])
def test_a_sentiment_classifier_labels_reviews_only(labeller):
    check_arms(study("reviews", labeller=labeller), "here", JUDGES)
    with pytest.raises(UserError, match=rf"^here: arms.apl.labeller: `{labeller}` is a sentiment classifier"):
        check_arms(study("file", labeller=labeller), "here", JUDGES)


def test_a_pool_larger_than_the_prompts_of_reviews(tmp_path):
    with pytest.raises(UserError, match=r"corpora.toy.prompts is 16; lower online.pool"):
        check_arms(study("reviews", online={"pool": 17}), "here", JUDGES)


@pytest.mark.parametrize("name", ["decoding", "evaluation"])
def test_no_server_samples_a_policy_that_changes_in_every_round(name):
    check_arms(study("file", online={name: {"top_k": 50}}), "here", JUDGES)
    with pytest.raises(UserError, match=rf"arms.apl.online.{name}.server: .*; remove the key"):
        check_arms(study("file", online={name: {"server": {}}}), "here", JUDGES)
