"""What a scorer waits for, who waits for it, and which studies are refused because a scorer could not score."""

import copy
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
from dag_tools import toy_study, write_reviews
from marginbench.dag.checks import load_studies
from marginbench.dag.plan import Plan
from marginbench.dag.scorers import SCORERS, scorers_of
from marginbench.errors import UserError
from marginbench.judging.spec import load_judges
from marginbench.study import Study

ROOT = Path(__file__).resolve().parents[2]
CELL = "results/quickstart/toy_high/toy_llama/shared"


def plan_of(**changes: Any) -> Plan:
    study = Study.model_validate({**toy_study("reviews.csv"), **changes})
    return Plan({"quickstart": study}, {}, ROOT / "workflow" / "scripts", "results")


def wildcards(**more: str) -> SimpleNamespace:
    return SimpleNamespace(study="quickstart", dataset="toy_high", model="toy_llama", **more)


def test_every_scorer_is_a_module_a_rule_and_a_script() -> None:
    rules = (ROOT / "workflow" / "rules" / "margins.smk").read_text()
    for scorer in SCORERS:
        assert (ROOT / "workflow" / "marginbench" / "margins" / f"{scorer}.py").is_file()
        assert f"rule score_{scorer}:" in rules
        assert f'"<cell>/margins/{scorer}.parquet"' in rules


def test_a_scorer_that_only_a_method_names_is_made_and_drawn() -> None:
    plan = plan_of(methods={"dpo": {"method": "dpo"}, "selective": {"method": "selective_dpo"}})
    assert scorers_of(plan.studies["quickstart"]) == ["reward_model", "held_out_loss"]
    assert plan.margins_of_method(wildcards(method="selective", seed="0")) == f"{CELL}/margins/held_out_loss.parquet"
    assert plan.margins_of_method(wildcards(method="dpo", seed="0")) == []
    files = [f"{CELL}/margins/{scorer}.parquet" for scorer in ("reward_model", "held_out_loss")]
    assert plan.margin_files(wildcards()) == files


def test_no_margins_no_figure() -> None:
    assert plan_of().has_margins("quickstart")
    assert not plan_of(margins=[]).has_margins("quickstart")
    assert plan_of(margins=[], methods={"s": {"method": "selective_dpo"}}).has_margins("quickstart")


def test_the_policy_behind_implicit_rewards() -> None:
    run = "results/quickstart/toy_high/toy_llama/dpo"
    plan = plan_of(seeds=[0, 3], margins=["implicit_reward"], implicit_reward={"seed": 3})
    assert plan.implicit_policy(wildcards(shared="shared")) == f"{run}/seed3/policy/manifest.json"
    assert plan.implicit_params(wildcards())["beta"] == 0.1
    redrawn = plan_of(seeds=[0, 3], margins=["implicit_reward"], reseed=["data"])
    assert redrawn.implicit_policy(wildcards(shared="shared-seed3")) == f"{run}/seed3/policy/manifest.json"
    scaled = plan_of(margins=["implicit_reward"], implicit_reward={"beta": 2})
    assert scaled.implicit_params(wildcards())["beta"] == 2


def test_runs_of_the_held_out_loss_are_told_their_settings() -> None:
    plan = plan_of(held_out_loss={"runs": 6, "beta": 0.01, "training": {"epochs": 3}})
    told = plan.held_out_params(wildcards())
    assert told["settings"] == {"runs": 6, "beta": 0.01}
    assert told["training"] == {**plan.studies["quickstart"].training.model_dump(mode="json"), "epochs": 3.0}


def test_the_sanity_set_is_the_packaged_one_or_the_studys(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(ROOT)
    folder = {"source": "folder", "path": "rm"}
    assert plan_of(hub_reward_model=folder).sanity_set(wildcards()) == "resources/reward_sanity.jsonl"
    assert plan_of(hub_reward_model={**folder, "sanity": "my.jsonl"}).sanity_set(wildcards()) == "my.jsonl"
    assert plan_of(hub_reward_model=folder).hub_reward_params(wildcards())["sanity_losses"] == 2


RM = {"source": "folder", "path": "."}

REFUSED = {
    "no ratings": ({"margins": ["dataset_ratings"]}, ["dataset_ratings", "columns.score_chosen"]),
    "no ratings for the method": (
        {"methods": {"m": {"method": "mixdpo", "params": {"scorer": "dataset_ratings"}}}},
        ["dataset_ratings", "columns.score_chosen"],
    ),
    "odd runs": ({"held_out_loss": {"runs": 3}}, ["held_out_loss", "runs 3 is odd"]),
    "override": ({"held_out_loss": {"training": {"epoch": 1}}}, ["held_out_loss.training.epoch", "`epochs`"]),
    "no such entry": (
        {"margins": ["implicit_reward"], "implicit_reward": {"method": "dppo"}},
        ["implicit_reward.method", "`dppo`", "did you mean `dpo`?"],
    ),
    "no such seed": (
        {"margins": ["implicit_reward"], "implicit_reward": {"seed": 5}},
        ["implicit_reward.seed: 5", "[0]"],
    ),
    "a seed that the entry does not take": (
        {
            "seeds": [0, 1],
            "margins": ["implicit_reward"],
            "methods": {"dpo": {"method": "dpo", "seeds": [1]}},
        },
        ["implicit_reward.seed: 0", "[1]"],
    ),
    "a redrawn seed without a policy": (
        {
            "seeds": [0, 1],
            "reseed": ["data"],
            "margins": ["implicit_reward"],
            "methods": {"dpo": {"method": "dpo", "seeds": [0]}},
        },
        ["implicit_reward.method", "`reseed`"],
    ),
    "a cycle": (
        {
            "methods": {"dpo": {"method": "dpo_sorted", "params": {"scorer": "implicit_reward"}}},
            "implicit_reward": {"method": "dpo"},
        },
        ["implicit_reward.method", "a cycle"],
    ),
    "a cycle by default": (
        {"margins": ["implicit_reward"], "methods": {"dpo": {"method": "dpo_sorted"}}},
        ["implicit_reward.method", "a cycle"],
    ),
    "no beta": (
        {"margins": ["implicit_reward"], "methods": {"dpo": {"method": "sft"}}},
        ["implicit_reward.beta", "missing"],
    ),
    "no reward model": ({"margins": ["hub_reward_model"]}, ["hub_reward_model", "missing"]),
    "no such folder": (
        {"margins": ["hub_reward_model"], "hub_reward_model": {**RM, "path": "nowhere"}},
        ["hub_reward_model.path", "`nowhere`"],
    ),
    "no such sanity set": (
        {"margins": ["hub_reward_model"], "hub_reward_model": {**RM, "sanity": "no.jsonl"}},
        ["hub_reward_model.sanity", "`no.jsonl`"],
    ),
    "unknown key": ({"hub_reward_model": {**RM, "max_lenght": 5}}, ["hub_reward_model.max_lenght", "`max_length`"]),
    "unknown source": ({"hub_reward_model": {"source": "hbu"}}, ["hub_reward_model.source", "`hub`"]),
    "unknown scorer": ({"margins": ["held_out"]}, ["margins", "`held_out_loss`"]),
    "unknown scorer of a method": (
        {"methods": {"m": {"method": "selective_dpo", "params": {"scorer": "heldout_loss"}}}},
        ["methods.m.params.scorer", "did you mean `held_out_loss`?"],
    ),
}


@pytest.mark.parametrize("name", REFUSED)
def test_a_scorer_that_could_not_score_is_refused(name: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    changes, expected = REFUSED[name]
    monkeypatch.chdir(tmp_path)
    write_reviews(tmp_path / "reviews.csv", rows=20)
    study = {**copy.deepcopy(toy_study("reviews.csv")), **changes}
    with pytest.raises(UserError) as caught:
        load_studies(study, [], load_judges(ROOT / "resources" / "judges.yaml"))
    assert "\n" not in str(caught.value)
    for words in expected:
        assert words in str(caught.value), caught.value
