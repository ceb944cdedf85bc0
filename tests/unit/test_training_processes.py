"""Several processes train what one trains: the same pairs in every step, the same loss, statistics and weights."""

import subprocess
import sys
import time
from dataclasses import replace
from pathlib import Path

import numpy as np
import pandas as pd
import processes_worker as worker
import pytest
import torch
from marginbench.errors import UserError
from marginbench.identity import file_sha256
from marginbench.models.manifest import read_manifest
from marginbench.records import PAIR_TOKENS, REFERENCE, TRAIN_LOG, read_table, write_table
from marginbench.spec import build_spec
from marginbench.study import Optimisation
from marginbench.training.batches import in_training_order
from marginbench.training.launch import MEETING, PolicyRun, launch, start
from marginbench.training.optimisation import accumulation_steps, trainer_arguments
from safetensors.torch import load_file


@pytest.fixture(scope="module")
def two(toy_model: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Every case, trained by two processes: one start for all of them."""
    out = tmp_path_factory.mktemp("two")
    start([sys.executable, worker.__file__, str(toy_model), str(out)], 2)
    return out


def _weights(folder: Path) -> Path:
    return next((folder / "weights").glob("*.safetensors"))


def _assert_equal_runs(log: pd.DataFrame, alone: pd.DataFrame, weights: Path, weights_alone: Path) -> None:
    """Loss and batch statistics of every step to 1e-5 (relative, absolute where they are near 0), and the weights."""
    assert log[["step", "quantity"]].equals(alone[["step", "quantity"]])
    # At policy = reference an accuracy is made of rounding errors, and the filter's weights are exp(-(x / std)^2 / 2)
    # with a running std that starts at them.
    kept = (log["quantity"] != "reward_accuracy") | (log["step"] > 1)
    for quantity, values in log[kept].groupby("quantity")["value"]:
        small = {"weight": 1e-4, "loss": 0, "beta": 0}.get(quantity, 1e-5)
        expected = alone.loc[values.index, "value"]
        np.testing.assert_allclose(values, expected, rtol=1e-5, atol=small, err_msg=str(quantity))
    found, expected = load_file(weights), load_file(weights_alone)
    assert found.keys() == expected.keys()
    for name, tensor in expected.items():
        torch.testing.assert_close(found[name], tensor, rtol=1e-5, atol=1e-5)


@pytest.mark.slow
@pytest.mark.parametrize("name", worker.CASES)
def test_two_processes_train_what_one_trains(name: str, two: Path, toy_model: Path, tmp_path: Path) -> None:
    alone = worker.run(name, toy_model, tmp_path)
    logs = [pd.read_parquet(two / f"{name}-{rank}.parquet") for rank in (0, 1)]
    pd.testing.assert_frame_equal(logs[0], logs[1], check_exact=True)
    _assert_equal_runs(logs[0], alone, _weights(two / name), _weights(tmp_path / name))
    assert sorted(path.name for path in (two / name).iterdir()) == ["manifest.json", "weights"]
    facts = read_manifest(two / name / "manifest.json", verify=True).facts
    assert facts == read_manifest(tmp_path / name / "manifest.json").facts
    if name == "resumed":
        pd.testing.assert_frame_equal(logs[0], pd.read_parquet(two / "beta_dpo-0.parquet"), check_exact=True)
        assert file_sha256(_weights(two / name)) == file_sha256(_weights(two / "beta_dpo"))


@pytest.fixture
def policy_run(toy_model: Path, tmp_path: Path) -> PolicyRun:
    tokens = worker.pairs()
    write_table(tokens, tmp_path / "tokens.parquet", PAIR_TOKENS)
    write_table(worker.reference_of(toy_model, tokens), tmp_path / "reference.parquet", REFERENCE)
    opt = worker.settings({"micro": 4, "alone": 4})
    return PolicyRun(
        method={"name": "dpo", "params": {"beta": 0.2}},
        training=opt.model_dump(mode="json"),
        start=str(toy_model),
        tokens=str(tmp_path / "tokens.parquet"),
        reference=str(tmp_path / "reference.parquet"),
        margins=None,
        frozen=None,
        template="plain",
        dataset="pairs",
        model="toy",
        seed=1,
        out_dir=str(tmp_path / "one"),
        log=str(tmp_path / "one.parquet"),
    )


@pytest.mark.slow
def test_launch(policy_run: PolicyRun, tmp_path: Path) -> None:
    """What the rule's script calls: from files to files, with progress."""
    launch(policy_run, 1)
    shared = replace(policy_run, out_dir=str(tmp_path / "two"), log=str(tmp_path / "two.parquet"))
    steps = []
    launch(shared, 2, lambda done, total, note="": steps.append((done, total)))
    assert steps == [(step, 6) for step in range(1, 7)]
    logs = [read_table(tmp_path / f"{name}.parquet", TRAIN_LOG) for name in ("two", "one")]
    _assert_equal_runs(*logs, _weights(tmp_path / "two"), _weights(tmp_path / "one"))


def test_what_cannot_be_shared_is_said_before_anything_starts(policy_run: PolicyRun, tmp_path: Path) -> None:
    with pytest.raises(UserError, match=r"3 processes with micro_batch_size 4 .* batch_size 8; choose a number of pro"):
        launch(policy_run, 3)
    with pytest.raises(UserError, match=r"4 processes .* set micro_batch_size to a divisor of 2"):
        launch(policy_run, 4)
    opt = Optimisation(batch_size=16, micro_batch_size=2)
    assert [accumulation_steps(opt, count) for count in (1, 2, 4, 8)] == [8, 4, 2, 1]


def test_other_trainings_are_not_shared(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setenv("WORLD_SIZE", "2")
    opt = Optimisation(batch_size=8, micro_batch_size=4)
    with pytest.raises(UserError, match="started as 2 processes"):
        trainer_arguments(opt, n_examples=8, seed=0, output_dir=tmp_path)
    arguments = trainer_arguments(opt, n_examples=8, seed=0, output_dir=tmp_path, shared=True)
    assert arguments["gradient_accumulation_steps"] == 1


def test_gathered_values_go_back_into_training_order() -> None:
    batch = torch.arange(12)  # 3 processes, micro-batches of 2, 2 of them each
    dealt = batch.view(-1, 2)
    gathered = torch.cat([dealt[rank::3].reshape(-1) for rank in range(3)])
    assert gathered.tolist() != batch.tolist()
    assert in_training_order(gathered, 3, 2).tolist() == batch.tolist()


ROLE = f"""
import os, pathlib, time
rank, folder = int(os.environ["RANK"]), pathlib.Path(os.environ["{MEETING}"])
def tell(name, text): (folder / name).write_text(text)
"""


@pytest.mark.parametrize(
    ("code", "error", "message"),
    [
        ("tell('mistake', 'lower it'); os._exit(2)", UserError, "^lower it$"),
        ("time.sleep(60 * (1 - rank)); os._exit(3 * rank)", RuntimeError, r"failed, .* codes \[None, 3\]$"),
    ],
)
def test_one_that_fails_ends_all(code: str, error: type[Exception], message: str) -> None:
    before = time.monotonic()
    with pytest.raises(error, match=message):
        start([sys.executable, "-c", ROLE + code], 2)
    assert time.monotonic() - before < 30


def test_progress_is_told() -> None:
    steps = []
    code = """rank or tell("told", '[1, 2, "loss"]\\n[2, ')"""  # the second line is still being written
    start([sys.executable, "-c", ROLE + code], 2, lambda *values: steps.append(values))
    assert steps == [(1, 2, "loss")]


@pytest.mark.slow
def test_no_process_outlives_the_one_that_started_it() -> None:
    code = "import time; from marginbench.training.launch import meet; meet(); print('met', flush=True); time.sleep(90)"
    outer = f"import sys; from marginbench.training.launch import start; start([sys.executable, '-c', {code!r}], 2)"
    parent = subprocess.Popen([sys.executable, "-c", outer], stdout=subprocess.PIPE, text=True)
    assert [parent.stdout.readline() for _ in range(2)] == ["met\n"] * 2
    before = time.monotonic()
    parent.kill()
    assert parent.stdout.read() == ""  # until all who can write to it are gone
    parent.wait()
    assert time.monotonic() - before < 60


def test_processes_are_named_in_the_spec_where_there_are_several() -> None:
    given = {
        "wildcards": {"study": "s", "dataset": "d", "model": "m", "method": "dpo", "seed": "1"},
        "method": {},
        "training": {"batch_size": 8},
        "n_train_pairs": 8,
        "inputs": {},
        "template_hash": "",
        "code": "",
        "threads": 1,
    }
    one, two = build_spec(**given), build_spec(**given, processes=2)
    assert "processes" not in one
    assert two["processes"] == 2
    assert one["spec_hash"] != two["spec_hash"]
