"""What a rule is told of a method: its margins, its file, and its parameters as JSON."""

import json
from pathlib import Path
from types import SimpleNamespace

from dag_tools import toy_study
from marginbench.dag.plan import Plan
from marginbench.methods.registry import load_method
from marginbench.study import Study


def _plan(seeds: tuple[int, ...] = (0,), **methods: dict) -> Plan:
    more = {"margins": ["reward_model", "dataset_ratings"], "methods": methods, "seeds": list(seeds)}
    study = {**toy_study("reviews.csv"), **more}
    return Plan({"quickstart": Study.model_validate(study)}, {}, Path("scripts"), "results")


def _wildcards(method: str) -> SimpleNamespace:
    return SimpleNamespace(study="quickstart", dataset="toy_high", model="toy_llama", method=method, seed="0")


def test_margins_are_asked_for_by_those_who_read_them() -> None:
    plan = _plan(
        plain={"method": "dpo"},
        sorted={"method": "dpo_sorted"},
        rated={"method": "mixdpo", "params": {"scorer": "dataset_ratings"}},
    )
    found = {name: plan.margins_of_method(_wildcards(name)) for name in ("plain", "sorted", "rated")}
    cell = "results/quickstart/toy_high/toy_llama/shared/margins"
    assert found == {
        "plain": [],
        "sorted": f"{cell}/reward_model.parquet",
        "rated": f"{cell}/dataset_ratings.parquet",
    }


def test_parameters_of_a_variant_reach_the_script_whole() -> None:
    plan = _plan(
        released={"method": "beta_dpo_released", "params": {"alpha": 0.2}},
        all_hard={"method": "mixdpo", "params": {"tau": float("inf")}},
    )
    for name, entry in plan.studies["quickstart"].methods.items():
        told = json.loads(json.dumps(plan.method_params(_wildcards(name)), allow_nan=False))
        assert load_method(told["name"], told["params"]).params == load_method(entry.method, entry.params).params


def test_an_entry_may_have_fewer_seeds_than_the_study() -> None:
    plan = _plan((0, 1), dpo={"method": "dpo", "seeds": [1]}, ipo={"method": "ipo"})
    runs = {(run["method"], run["seed"]) for run in plan.runs("quickstart")}
    assert runs == {("sft_start", 0), ("sft_start", 1), ("dpo", 1), ("ipo", 0), ("ipo", 1)}
