"""The preference trainer: the optimiser batch is the unit, a killed run resumes exactly, TRL has not moved under us."""

import hashlib
import importlib.metadata
import inspect
import math
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest
import torch
from marginbench.errors import UserError
from marginbench.identity import file_sha256
from marginbench.methods.registry import load_method
from marginbench.models.loading import load_model
from marginbench.models.manifest import read_manifest
from marginbench.records import TRAIN_LOG, check_table
from marginbench.study import Full, Lora, Optimisation
from marginbench.training.preference import train_policy
from marginbench.training.reference import compute_reference
from transformers import Trainer, TrainerCallback
from trl import DPOTrainer
from trl.trainer.dpo_trainer import DataCollatorForPreference
from trl.trainer.utils import add_fused_lm_head

# A method of every need: batch statistics, a state, margins, a planned column, a draw-free filter, its own order.
NEEDY = '''"""DPO whose beta follows the batch's mean margin against a running mean; only to exercise the trainer."""

import numpy as np
from pydantic import Field

from marginbench.methods.base import MethodParams, Needs, PairLoss, Plan, log_ratio_margin


class Params(MethodParams):
    beta: float = Field(0.1, gt=0, description="Base beta.")
    ordered: bool = Field(False, description="Train in descending order of the margin.")


def needs(params):
    return Needs(reference=True, margins=True, whole_batch=True, state=True, draws=True, order=params.ordered)


def plan(margins, params):
    order = np.argsort(-margins, kind="stable") if params.ordered else None
    return Plan(columns={"weight": 1 / (1 + np.exp(-margins))}, order=order)


def initial_state(params):
    return {"mean": 0.0, "batches": 0.0}


def loss(batch, params, state):
    from torch.nn.functional import logsigmoid

    margin = log_ratio_margin(batch)
    mean = 0.9 * state["mean"] + 0.1 * margin.detach().mean().item()
    beta = params.beta * (1 + (margin.mean() - mean).tanh())
    kept = sorted(range(len(batch.pair_ids)), key=lambda i: batch.pair_ids[i])[1:]
    return PairLoss(
        -batch.columns["weight"] * logsigmoid(beta * margin),
        logs={"beta": beta.detach(), "margin": batch.margin, "ema": margin.new_tensor(mean)},
        state={"mean": mean, "batches": state["batches"] + 1},
        kept=kept,
    )


EXAMPLE = ()
'''

LORA = Lora(rank=4, alpha=8)


@pytest.fixture(scope="module")
def setting(toy_model: Path, tmp_path_factory: pytest.TempPathFactory) -> dict[str, Any]:
    draw = np.random.default_rng(2)

    def ids(low: int, high: int) -> list[int]:
        return draw.integers(5, 200, draw.integers(low, high)).tolist()

    rows = [(f"pair{i:02d}", "train", ids(3, 9), ids(2, 20), ids(2, 20)) for i in range(26)]
    tokens = pd.DataFrame(rows, columns=["pair_id", "split", "prompt_ids", "chosen_ids", "rejected_ids"])
    manifest = read_manifest(toy_model)
    reference = compute_reference(
        load_model(manifest),
        tokens,
        max_length=32,
        precision="fp32",
        batch_size=7,
        model_hash=manifest.weights_hash,
        template_hash="plain",
        pad_id=0,
    )
    margins = pd.DataFrame({"pair_id": tokens["pair_id"], "margin": draw.normal(0, 1, len(tokens))})
    folder = tmp_path_factory.mktemp("methods")
    (folder / "needy.py").write_text(NEEDY)
    return {
        "start_manifest": toy_model,
        "tokens": tokens,
        "reference": reference,
        "margins": margins.sample(frac=1, random_state=0),
        "template_hash": "plain",
        "dataset_id": "pairs",
        "model_id": "toy",
        "seed": 1,
        "folder": folder,
    }


def _train(setting: dict[str, Any], out_dir: Path, name: str = "dpo", params: dict | None = None, **changes: Any):
    """Train on the toy; keys of Optimisation are taken out of `changes`."""
    base = {
        "epochs": 2,
        "batch_size": 8,
        "micro_batch_size": 8,
        "learning_rate": 1e-3,
        "max_length": 32,
        "tuning": LORA,
    }
    opt = {key: changes.pop(key) for key in list(changes) if key in Optimisation.model_fields}
    given = {**setting, **changes}
    method = load_method(name, params, given.pop("folder"))
    return train_policy(method=method, opt=Optimisation(**{**base, **opt}), out_dir=out_dir, **given)


def _weights(out_dir: Path) -> str:
    return file_sha256(next((out_dir / "weights").glob("*.safetensors")))


def _series(log: pd.DataFrame, quantity: str) -> list[float]:
    return log[log["quantity"] == quantity].sort_values("step")["value"].tolist()


class _Gradients(TrainerCallback):
    """Keeps the gradient of every optimiser step."""

    def __init__(self) -> None:
        self.steps: list[torch.Tensor] = []

    def on_pre_optimizer_step(self, args: Any, state: Any, control: Any, model: Any = None, **kwargs: Any) -> None:
        self.steps.append(torch.cat([p.grad.flatten().clone() for p in model.parameters() if p.grad is not None]))


class _Killed(Exception):
    pass


class _KillAfter(TrainerCallback):
    def __init__(self, step: int) -> None:
        self.step = step

    def on_step_begin(self, args: Any, state: Any, control: Any, **kwargs: Any) -> None:
        if state.global_step == self.step:
            raise _Killed


def test_log_and_files(setting: dict[str, Any], tmp_path: Path) -> None:
    calls = []
    progress = lambda done, total, note="": calls.append((done, total))  # noqa: E731
    log = _train(setting, tmp_path / "run", progress=progress)
    check_table(log, TRAIN_LOG, "log")
    assert calls == [(step, 6) for step in range(1, 7)]  # 26 pairs, 3 full batches, 2 epochs
    assert log["step"].unique().tolist() == [1, 2, 3, 4, 5, 6]
    wanted = {"loss", "learning_rate", "reward_margin", "reward_accuracy", "logp_chosen", "logp_rejected", "grad_norm"}
    assert set(log["quantity"]) == wanted
    assert _series(log, "loss")[0] == pytest.approx(math.log(2), abs=1e-5)
    assert _series(log, "loss")[-1] < math.log(2)
    assert max(_series(log, "learning_rate")) == 1e-3
    assert sorted(path.name for path in (tmp_path / "run").iterdir()) == ["manifest.json", "weights"]
    manifest = read_manifest(tmp_path / "run" / "manifest.json", verify=True)
    assert manifest.kind == "adapter"
    assert manifest.base.weights_hash == read_manifest(setting["start_manifest"]).weights_hash
    assert manifest.facts == {
        "method": "dpo",
        "params": load_method("dpo").params.model_dump(mode="json"),
        "steps": 6,
        "plan": {"pairs": 26, "columns": {}},
    }
    load_model(manifest)


def test_full_fine_tuning_saves_a_model(setting: dict[str, Any], tmp_path: Path) -> None:
    log = _train(setting, tmp_path / "run", tuning=Full(), epochs=1)
    assert _series(log, "loss")[0] == pytest.approx(math.log(2), abs=1e-5)
    manifest = read_manifest(tmp_path / "run" / "manifest.json", verify=True)
    assert manifest.kind == "model"
    before, after = load_model(setting["start_manifest"]), load_model(manifest)
    changed = [not torch.equal(a, b) for a, b in zip(before.parameters(), after.parameters(), strict=True)]
    assert all(changed)


def test_methods_see_the_same_order_and_start(setting: dict[str, Any], tmp_path: Path) -> None:
    logs = {name: _train(setting, tmp_path / name, name) for name in ("dpo", "ipo")}
    other = _train(setting, tmp_path / "seed", seed=2)
    first = {name: _series(log, "logp_chosen")[0] for name, log in logs.items()}
    assert first["dpo"] == first["ipo"]
    assert _series(other, "logp_chosen")[0] != first["dpo"]
    assert _weights(tmp_path / "dpo") != _weights(tmp_path / "ipo")


def test_adapter_dropout_is_at_work(setting: dict[str, Any], tmp_path: Path) -> None:
    """TRL turns all dropout off; the adapter's is turned on again."""
    first = {}
    for dropout in (0.0, 0.5):
        log = _train(setting, tmp_path / str(dropout), tuning=Lora(rank=4, alpha=8, dropout=dropout), epochs=1)
        first[dropout] = _series(log, "grad_norm")
    assert first[0.0] != first[0.5]


@pytest.mark.parametrize("tuning", [LORA, Full()], ids=["lora", "full"])
def test_bf16_and_gradient_checkpointing(setting: dict[str, Any], tmp_path: Path, tuning: Any) -> None:
    plain = _train(setting, tmp_path / "plain", tuning=tuning, epochs=1)
    saving = _train(setting, tmp_path / "saving", tuning=tuning, epochs=1, gradient_checkpointing=True)
    np.testing.assert_allclose(_series(saving, "loss"), _series(plain, "loss"), rtol=1e-5)
    manifest = read_manifest(setting["start_manifest"])
    reference = compute_reference(
        load_model(manifest),
        setting["tokens"],
        max_length=32,
        precision="bf16",
        batch_size=7,
        model_hash=manifest.weights_hash,
        template_hash="plain",
        pad_id=0,
    )
    half = _train(setting, tmp_path / "bf16", tuning=tuning, epochs=1, precision="bf16", reference=reference)
    losses = _series(half, "loss")
    assert losses != _series(plain, "loss")
    np.testing.assert_allclose(losses, _series(plain, "loss"), atol=0.05)


def test_zero_epochs_save_the_start(setting: dict[str, Any], tmp_path: Path) -> None:
    assert len(_train(setting, tmp_path / "run", epochs=0)) == 0
    ids = torch.tensor([[5, 6, 7, 8]])
    start, policy = load_model(setting["start_manifest"]), load_model(tmp_path / "run" / "manifest.json")
    assert torch.equal(start(ids).logits, policy(ids).logits)


@pytest.mark.slow
@pytest.mark.parametrize("tuning", [LORA, Full()], ids=["lora", "full"])
@pytest.mark.parametrize("name", ["dpo", "ipo", "needy", "beta_dpo", "mixdpo", "kto"])
def test_the_optimiser_batch_is_the_unit(setting: dict[str, Any], tmp_path: Path, name: str, tuning: Any) -> None:
    """Gradient, loss and batch statistics of every step, for micro-batches 1 x 16, 4 x 4 and 16 x 1."""
    runs = []
    for micro in (16, 4, 1):
        keep = _Gradients()
        log = _train(
            setting,
            tmp_path / str(micro),
            name,
            tuning=tuning,
            callbacks=(keep,),
            **{"batch_size": 16, "micro_batch_size": micro, "epochs": 3, "max_grad_norm": 1e9, "warmup_fraction": 0.0},
        )
        runs.append((log, keep.steps))
    whole, gradients = runs[0]
    assert len(gradients) == 3
    statistics = ("loss", "logp_chosen", "beta", "ema_mean", "ema_std", "kl_chosen", "frac_sft")
    for log, found in runs[1:]:
        for gradient, expected in zip(found, gradients, strict=True):
            assert ((gradient - expected).abs().max() / expected.abs().max()).item() < 1e-5
        for quantity in statistics:
            values, expected = _series(log, quantity), _series(whole, quantity)
            np.testing.assert_allclose(values, expected, rtol=1e-5, atol=0 if quantity in ("loss", "beta") else 1e-5)
        margins = [_series(one, "reward_margin") for one in (log, whole)]
        np.testing.assert_allclose(*margins, rtol=1e-4, atol=1e-5)


def test_a_planned_order_is_followed(setting: dict[str, Any], tmp_path: Path) -> None:
    log = _train(setting, tmp_path / "run", "needy", {"ordered": True}, epochs=1)
    ranked = np.sort(setting["margins"]["margin"])[::-1].astype(np.float32)
    expected = ranked[:24].reshape(3, 8).mean(axis=1)
    np.testing.assert_allclose(_series(log, "margin"), expected, rtol=1e-5)


def test_controls_by_margin_reach_the_trainer(setting: dict[str, Any], tmp_path: Path) -> None:
    """Filter, order, routing, permutation and the hard pairs' own schedule, seen in the log and the manifest."""
    margins = setting["margins"].set_index("pair_id").loc[setting["tokens"]["pair_id"], "margin"].to_numpy()

    def facts(name: str) -> dict[str, Any]:
        return read_manifest(tmp_path / name / "manifest.json").facts["plan"]

    _train(setting, tmp_path / "easy", "dpo_easy_only", {"keep_percentile": 0.5}, epochs=1)
    assert facts("easy")["pairs"] == int((margins >= np.sort(margins)[::-1][13]).sum())
    log = _train(setting, tmp_path / "mix", "mixdpo", {"percentile": 0.5, "sft_schedule": "own"}, epochs=1)
    hard = np.sort(margins)[::-1] < np.sort(margins)[::-1][13]
    np.testing.assert_allclose(_series(log, "frac_sft"), hard[:24].reshape(3, 8).mean(axis=1))
    np.testing.assert_allclose(
        np.add(_series(log, "loss_pref"), _series(log, "loss_sft")), _series(log, "loss"), rtol=1e-5
    )
    assert len(_series(log, "learning_rate")) == 3
    weights = {}
    for name in ("madpo", "madpo_shuffled_margins", "madpo_unit_weight", "dpo"):
        weights[name] = _series(_train(setting, tmp_path / name, name, epochs=1), "loss")
    assert weights["madpo_unit_weight"] == weights["dpo"]
    assert _weights(tmp_path / "madpo_unit_weight") == _weights(tmp_path / "dpo")
    assert len({tuple(values) for values in weights.values()}) == 3
    histogram, shuffled = (facts(name)["columns"]["weight"] for name in ("madpo", "madpo_shuffled_margins"))
    assert histogram["counts"] == shuffled["counts"]
    assert sum(histogram["counts"]) == 26


@pytest.mark.slow
@pytest.mark.parametrize(
    ("name", "tuning", "micro", "dropout"),
    [("dpo", "lora", 8, 0.0), ("dpo", "lora", 4, 0.3), ("dpo", "full", 4, 0.0), ("beta_dpo", "lora", 4, 0.0)],
)
def test_a_killed_run_resumes_exactly(
    setting: dict[str, Any], tmp_path: Path, name: str, tuning: str, micro: int, dropout: float
) -> None:
    changes = {
        "tuning": Full() if tuning == "full" else Lora(rank=4, alpha=8, dropout=dropout),
        "micro_batch_size": micro,
        "checkpoint_steps": 2,
    }
    whole = _train(setting, tmp_path / "whole", name, **changes)
    with pytest.raises(_Killed):
        _train(setting, tmp_path / "killed", name, callbacks=(_KillAfter(5),), **changes)
    assert not (tmp_path / "killed" / "manifest.json").exists()
    steps = []
    progress = lambda done, total, note="": steps.append(done)  # noqa: E731
    resumed = _train(setting, tmp_path / "killed", name, progress=progress, **changes)
    assert steps == [5, 6]
    assert _weights(tmp_path / "killed") == _weights(tmp_path / "whole")
    pd.testing.assert_frame_equal(resumed, whole, check_exact=True)
    assert not (tmp_path / "killed" / "checkpoint").exists()


@pytest.mark.slow
def test_a_broken_or_foreign_checkpoint_is_not_taken_up(setting: dict[str, Any], tmp_path: Path) -> None:
    whole = _train(setting, tmp_path / "whole", checkpoint_steps=2)
    with pytest.raises(_Killed):
        _train(setting, tmp_path / "run", checkpoint_steps=2, callbacks=(_KillAfter(5),))
    newest = tmp_path / "run" / "checkpoint" / "checkpoint-4"
    (newest / "method_state.json").unlink()  # as if it had been killed while it was written
    steps = []
    progress = lambda done, total, note="": steps.append(done)  # noqa: E731
    with pytest.raises(_Killed):
        _train(setting, tmp_path / "run", checkpoint_steps=2, callbacks=(_KillAfter(5),), progress=progress)
    assert steps == [3, 4, 5]
    other = _train(setting, tmp_path / "run", params={"beta": 0.2}, checkpoint_steps=2)
    assert len(_series(other, "loss")) == 6
    again = _train(setting, tmp_path / "run", checkpoint_steps=2)
    pd.testing.assert_frame_equal(again, whole, check_exact=True)


def test_what_must_stop_a_run(setting: dict[str, Any], tmp_path: Path) -> None:
    out = tmp_path / "run"
    with pytest.raises(UserError, match="1 of 26 pairs are missing, the first is pair03"):
        _train(setting, out, reference=setting["reference"].drop(index=3))
    with pytest.raises(UserError, match="made with another max_length than"):
        _train(setting, out, max_length=40)
    with pytest.raises(UserError, match="made with another precision than"):
        _train(setting, out, precision="bf16")
    with pytest.raises(UserError, match="made with another template than"):
        _train(setting, out, template_hash="chat")
    with pytest.raises(UserError, match="`needy` needs margins and got none"):
        _train(setting, out, "needy", margins=None)
    with pytest.raises(UserError, match="margins: 1 of 26 pairs have none"):
        _train(setting, out, "needy", margins=setting["margins"].iloc[1:])
    with pytest.raises(UserError, match="batch_size 32 is more than the 26 examples"):
        _train(setting, out, batch_size=32, micro_batch_size=4)
    with pytest.raises(UserError, match="needs the whole batch"):
        _train(setting, out, "needy", micro_batch_size=2, tuning=Lora(rank=4, alpha=8, dropout=0.1))
    with pytest.raises(UserError, match=r"the loss is (nan|inf) at step \d"):
        _train(setting, out, "ipo", {"reduction": "sum", "beta": 1e-30}, max_grad_norm=1e30)
    assert not (out / "manifest.json").exists()


TRL_VERSION = "1.16.0"
SOURCES = {
    DPOTrainer.__init__: "632f447c71dcb043",
    DPOTrainer._prepare_dataset: "35e349e8e8266df4",
    DPOTrainer._precompute_ref_logps: "f2c098c7da6ca701",
    DPOTrainer._compute_loss: "5e58a1699e0d76cd",
    DPOTrainer.compute_loss: "c453890e84beb4cb",
    DPOTrainer.training_step: "bba41f264647016a",
    DPOTrainer.log: "e80e122cfe5fd8ad",
    DPOTrainer._save_checkpoint: "b6ee0a370c266b6f",
    DataCollatorForPreference.torch_call: "0b8bb4c294bf8420",
    add_fused_lm_head: "422d009f04b66659",
    Trainer.get_batch_samples: "0b3727386f73f670",
    Trainer.training_step: "e9760c8ee10308d5",
    Trainer._run_epoch: "31aff00f34c302a2",
    Trainer._save_checkpoint: "a9111e30faa99339",
}


def test_the_internals_we_lean_on_have_not_moved() -> None:
    found = importlib.metadata.version("trl")
    assert found == TRL_VERSION, f"trl is {found}, training/trainer.py was written against {TRL_VERSION}"
    for member, expected in SOURCES.items():
        digest = hashlib.sha256(inspect.getsource(member).encode()).hexdigest()[:16]
        assert digest == expected, (
            f"{member.__module__}.{member.__qualname__} has changed; read it, adapt training/trainer.py, "
            "run tests/parity/test_trl_golden.py, then write the new hash here"
        )
