"""Trainings of a toy that a test compares between one process and several; `launch.start` runs this file as it is.

Arguments: manifest of the toy model, folder for what comes out.
"""

import sys
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import torch
from marginbench.methods.registry import load_method
from marginbench.models.loading import load_model
from marginbench.models.manifest import read_manifest
from marginbench.study import Full, Lora, Optimisation
from marginbench.training.launch import meet
from marginbench.training.optimisation import process_index, processes
from marginbench.training.preference import train_policy
from marginbench.training.reference import compute_reference
from transformers import TrainerCallback

LORA = Lora(rank=4, alpha=8)
CASES: dict[str, dict[str, Any]] = {
    "dpo": {"method": "dpo", "micro": 2},
    "full": {"method": "dpo", "micro": 4, "tuning": Full()},
    "frozen": {"method": "ipo", "micro": 2, "tuning": Lora(rank=4, alpha=8, last_layers=1)},
    "mixdpo": {"method": "mixdpo", "params": {"percentile": 0.5}, "micro": 2},
    "beta_dpo": {"method": "beta_dpo", "micro": 2},
    "beta_dpo_micro": {"method": "beta_dpo_released", "micro": 2, "alone": 2},  # statistics of micro-batches
    "kto": {"method": "kto", "micro": 4},
    "resumed": {"method": "beta_dpo", "micro": 2},
}
"""`micro`: pairs of a forward pass in several processes; `alone`: the same in one process (the whole batch)."""


def pairs() -> pd.DataFrame:
    """PAIR_TOKENS of 26 made-up pairs."""
    draw = np.random.default_rng(2)

    def ids(low: int, high: int) -> list[int]:
        return draw.integers(5, 200, draw.integers(low, high)).tolist()

    rows = [(f"pair{i:02d}", "train", ids(3, 9), ids(2, 20), ids(2, 20)) for i in range(26)]
    return pd.DataFrame(rows, columns=["pair_id", "split", "prompt_ids", "chosen_ids", "rejected_ids"])


def reference_of(toy: Path, tokens: pd.DataFrame) -> pd.DataFrame:
    """REFERENCE of the pairs."""
    manifest = read_manifest(toy)
    return compute_reference(
        load_model(manifest),
        tokens,
        max_length=32,
        precision="fp32",
        batch_size=7,
        model_hash=manifest.weights_hash,
        template_hash="plain",
        pad_id=0,
    )


def settings(case: dict[str, Any]) -> Optimisation:
    """Optimiser settings of a case: 6 steps of 8 pairs."""
    micro = case["micro"] if processes() > 1 else case.get("alone", 8)
    return Optimisation(
        epochs=2,
        batch_size=8,
        micro_batch_size=micro,
        learning_rate=1e-3,
        warmup_fraction=0.0,
        max_length=32,
        tuning=case.get("tuning", LORA),
    )


class _Killed(Exception):
    pass


class _KillAfter(TrainerCallback):
    def on_step_begin(self, args: Any, state: Any, control: Any, **kwargs: Any) -> None:
        if state.global_step == 5:
            raise _Killed


def run(name: str, toy: Path, out: Path) -> pd.DataFrame:
    """Train one case; returns its log."""
    case, tokens = CASES[name], pairs()
    margins = np.random.default_rng(3).normal(0, 1, len(tokens))
    given = {
        "method": load_method(case["method"], case.get("params")),
        "start_manifest": toy,
        "tokens": tokens,
        "reference": reference_of(toy, tokens),
        "margins": pd.DataFrame({"pair_id": tokens["pair_id"], "margin": margins}),
        "opt": settings(case),
        "dataset_id": "pairs",
        "model_id": "toy",
        "seed": 1,
        "out_dir": out / name,
        "template_hash": "plain",
    }
    if name != "resumed":
        return train_policy(**given)
    try:
        train_policy(**given, checkpoint_steps=2, callbacks=(_KillAfter(),))
    except _Killed:
        steps: list[int] = []
        log = train_policy(**given, checkpoint_steps=2, progress=lambda done, total, note="": steps.append(done))
        assert steps == [5, 6], steps
    return log


if __name__ == "__main__":
    meet()
    toy, out = Path(sys.argv[1]), Path(sys.argv[2])
    for name in CASES:
        run(name, toy, out).to_parquet(out / f"{name}-{process_index()}.parquet")
    torch.distributed.destroy_process_group()
