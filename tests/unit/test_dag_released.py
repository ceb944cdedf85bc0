"""The released grids of online DPO: how many runs they make, and that each has the released sizes by arithmetic."""

from pathlib import Path
from types import SimpleNamespace

import pytest
from marginbench.dag.checks import read_yaml
from marginbench.dag.plan import Plan, make_plan
from marginbench.online.evaluation import due
from marginbench.online.schedule import schedule
from marginbench.selection.registry import load_strategy

ROOT = Path(__file__).resolve().parents[2]
GRIDS = {"apl_harmless": (54, 3), "apl_helpful": (36, 2), "apl_ultrafeedback": (36, 2)}


@pytest.fixture(scope="module")
def plan() -> Plan:
    return make_plan(read_yaml(ROOT / "config.yaml"), ROOT, "results")


@pytest.mark.parametrize("name", GRIDS)
def test_runs_of_the_released_grids(plan: Plan, name: str) -> None:
    study, (runs, labellers) = plan.studies[name], GRIDS[name]
    found = [(run["model"], run["method"], run["seed"]) for run in plan.runs(name) if run["method"] in study.arms]
    assert len(set(found)) == len(found) == runs == 3 * labellers * 2 * 3
    assert len(plan.online_metrics(SimpleNamespace(study=name))) == runs
    assert {seed for *_, seed in found} == {42, 43, 44}
    assert len({model.id for model in study.models.values()}) == len(study.models) == 3
    arms = {(arm.strategy, arm.labeller) for arm in study.arms.values()}
    assert arms == {(strategy, labeller) for strategy in ("apl", "random") for labeller in study.labellers}
    assert {frozenset(pair) for pair in study.equivalence.pairs} == {
        frozenset((f"apl_{labeller}", f"random_{labeller}")) for labeller in study.labellers
    }


@pytest.mark.parametrize("name", GRIDS)
def test_every_run_is_judged_by_the_reward_models_of_all(plan: Plan, name: str) -> None:
    study = plan.studies[name]
    dataset, model = next(iter(study.datasets)), next(iter(study.models))
    for arm, settings in study.arms.items():
        wildcards = SimpleNamespace(study=name, dataset=dataset, model=model, method=arm, seed="42")
        told = plan.arm_params(wildcards)
        assert {told["labeller"], *told["others"]} == set(study.labellers) == set(told["reward_models"])
        assert told["reward_models"][settings.labeller]["id"] == study.labellers[settings.labeller].id
        assert len(plan.labeller_weights(wildcards)) == 1
        assert len(plan.other_labellers_weights(wildcards)) == len(told["others"])


@pytest.mark.parametrize("name", GRIDS)
def test_sizes_of_a_run_come_out_of_the_study(plan: Plan, name: str) -> None:
    """Issue C, condition 5, and vector V6."""
    study = plan.studies[name]
    for arm, settings in study.arms.items():
        online, training = study.arm_online(arm), study.arm_training(arm)
        sizes = schedule(online.steps, online.updates_per_query, online.query, training.batch_size, "continual")
        assert (sizes.rounds, sizes.labelled_pairs, sizes.pair_updates) == (157, 2512, 10_000)
        strategy = load_strategy(settings.strategy, settings.params)
        completions = strategy.completions(online.query)
        assert completions == {"apl": 1536, "random": 32}[settings.strategy]
        evaluations = sum(due(done, online.evaluate_every, sizes.rounds) for done in range(sizes.rounds + 1))
        assert evaluations * study.benchmarks.in_domain.prompts == 5500
        assert (online.decoding.temperature, online.decoding.top_k, online.decoding.max_new_tokens) == (0.9, 50, 64)
