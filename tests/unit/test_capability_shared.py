"""Hidden states of the start serve the capability checks of policies: the same numbers, or they are not used."""

import pandas as pd
import pytest
import torch
from marginbench.study import Capability, Lora

pytestmark = pytest.mark.slow

TEXTS = pd.DataFrame(
    {
        "prompt": [[{"role": "text", "content": f"Film {i}"}] for i in range(6)],
        "completion": [" was " + "very " * i + "good." for i in range(6)],
    }
)
TASK = Capability.model_validate({"batch_size": 2, "tasks": {"review_perplexity": {}}})


def policy_of(start, folder, last_layers):
    from marginbench.models.loading import load_model
    from marginbench.models.lora import add_adapter, save_adapter
    from marginbench.models.manifest import write_manifest

    model = add_adapter(load_model(start), Lora(rank=4, alpha=8, last_layers=last_layers), seed=0)
    generator = torch.Generator().manual_seed(0)
    with torch.no_grad():
        for name, parameter in model.named_parameters():
            if "lora_B" in name:
                parameter.normal_(std=0.05, generator=generator)
    save_adapter(model, folder / "weights")
    return write_manifest(folder / "manifest.json", folder / "weights", "adapter", base=start).path


@pytest.fixture(scope="module")
def start(toy_model, tmp_path_factory):
    """The toy start, the rows that its check kept, and its results."""
    from marginbench.capability.run import run_tasks

    rows = tmp_path_factory.mktemp("rows") / "rows.safetensors"
    kept = run_tasks(toy_model, TASK, TEXTS, "plain", keep_rows=(rows, 1))
    assert kept == run_tasks(toy_model, TASK, TEXTS, "plain")
    return toy_model, rows


@pytest.fixture
def handed_out(monkeypatch):
    """How often a row was run from kept states."""
    from marginbench.training.frozen import FrozenBlocks

    calls = []
    honest = FrozenBlocks.set_aside
    monkeypatch.setattr(FrozenBlocks, "set_aside", lambda self: (calls.append(self.below), honest(self)))
    return calls


def test_a_policys_numbers_are_the_same_from_the_starts_rows(start, tmp_path, handed_out):
    from marginbench.capability.run import run_tasks

    model, rows = start
    policy = policy_of(model, tmp_path, last_layers=1)
    plain = run_tasks(policy, TASK, TEXTS, "plain")["review_perplexity"]
    assert handed_out == []
    shared = run_tasks(policy, TASK, TEXTS, "plain", start_rows=rows)["review_perplexity"]
    assert len(handed_out) >= 3
    assert shared["value"] == pytest.approx(plain["value"], rel=1e-6)
    assert [row["value"] for row in shared["samples"]] == pytest.approx(
        [r["value"] for r in plain["samples"]], rel=1e-5
    )
    assert shared["value"] != run_tasks(model, TASK, TEXTS, "plain")["review_perplexity"]["value"]


def test_rows_under_blocks_that_were_trained_are_not_used(start, tmp_path, handed_out):
    from marginbench.capability.run import run_tasks

    model, rows = start
    policy = policy_of(model, tmp_path, last_layers=None)
    run_tasks(policy, TASK, TEXTS, "plain", start_rows=rows)
    assert handed_out == []


@pytest.mark.parametrize("defect", ["weights", "states"])
def test_rows_of_another_start_are_not_used(start, tmp_path, handed_out, defect):
    from marginbench.capability.run import run_tasks
    from safetensors import safe_open
    from safetensors.torch import save_file

    model, rows = start
    with safe_open(rows, "pt") as file:
        facts = file.metadata()
        states = {key: file.get_tensor(key) for key in file.keys()}  # noqa: SIM118 - not a mapping
    if defect == "weights":
        facts["model"] = "0" * 16
    else:
        states = {key: value + 0.5 for key, value in states.items()}
    save_file(states, tmp_path / "other.safetensors", metadata=facts)
    policy = policy_of(model, tmp_path, last_layers=1)
    found = run_tasks(policy, TASK, TEXTS, "plain", start_rows=tmp_path / "other.safetensors")
    assert len(handed_out) <= 1, "at most the trial that found them out"
    assert found == run_tasks(policy, TASK, TEXTS, "plain")
