"""A toy online run: a tiny model, prompts of a few words, and a labeller that counts letters."""

from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
from marginbench.data.messages import plain_prompt
from marginbench.methods.registry import load_method
from marginbench.online.labellers import Scored
from marginbench.online.run import train_online
from marginbench.selection.registry import load_strategy
from marginbench.study import Decoding, Lora, Online, Optimisation

OPT = Optimisation(
    batch_size=4, micro_batch_size=4, learning_rate=1e-2, max_length=32, schedule="linear", tuning=Lora(rank=2, alpha=4)
)
SETTINGS = Online(
    steps=6,
    query=4,
    updates_per_query=2,
    pool=8,
    decoding=Decoding(temperature=0.9, max_new_tokens=6, batch_size=64),
    evaluate_every=2,
    evaluation=Decoding(temperature=1.0, max_new_tokens=6, batch_size=64),
)
PARAMS = {
    "random": {},
    "k_centre": {"pool_factor": 2},
    "apl": {"pool_factor": 2},
    "random_same_pool": {"pool_factor": 2},
}
PARAMS["apl_original"] = {"pool_factor": 2, "samples": 3, "acquisition": "entropy_certainty"}
PARAMS |= {name: {"pool_factor": 2} for name in ("entropy", "margin", "uncertainty", "k_means_pp")}


def texts(n: int, role: str = "prompt") -> pd.DataFrame:
    """TEXTS rows of `n` prompts."""
    return pd.DataFrame(
        {
            "text_id": [f"{role}{i:02d}" for i in range(n)],
            "role": role,
            "prompt": [plain_prompt(f"{role} {i} is a movie") for i in range(n)],
            "completion": "",
            "label": 0,
            "source_row": range(n),
        }
    )


class Counting:
    """A score by letters, which remembers every answer that it was asked about."""

    def __init__(self) -> None:
        self.asked: list[str] = []

    def __call__(self, pairs: Any) -> np.ndarray:
        self.asked += [answer.text for _, answer in pairs]
        return np.array([sum(map(ord, answer.text)) % 97 / 10 for _, answer in pairs])


def labeller(id: str = "letters") -> Scored:
    """A labeller whose `score` counts."""
    return Scored(id, f"version of {id}", "", Counting())


def length_judge() -> Scored:
    """Another judge: the shorter answer wins."""
    return Scored("shorter", "1", "", lambda pairs: np.array([-float(len(answer.text)) for _, answer in pairs]))


def toy_run(start: Path, out_dir: Path, arm: str = "random", **changes: Any) -> pd.DataFrame:
    """A run of 3 rounds on the toy; changes are keyword arguments of `train_online`."""
    given = {
        "strategy": load_strategy(arm, PARAMS[arm]),
        "method": load_method("dpo"),
        "start_manifest": start,
        "prompts": texts(24),
        "evaluation_prompts": texts(6, "eval"),
        "format": "plain",
        "labeller": labeller(),
        "judges": [length_judge()],
        "settings": SETTINGS,
        "opt": OPT,
        "study_id": "toy",
        "dataset_id": "letters",
        "model_id": "toy",
        "arm": arm,
        "seed": 1,
        "out_dir": out_dir,
    }
    return train_online(**{**given, **changes})
