"""spec.json: everything that made a run what it is, so that two runs can be told apart years later."""

import platform
from importlib import metadata
from typing import Any

from marginbench.identity import content_id, seed_for

PACKAGES = ("torch", "transformers", "trl", "peft", "accelerate", "tokenizers", "safetensors", "numpy", "scikit-learn")


def package_versions() -> dict[str, str]:
    """Installed versions of the packages that numbers depend on."""
    return {"python": platform.python_version(), **{name: metadata.version(name) for name in PACKAGES}}


def seeds_by_axis(dataset: str, model: str, seed: int) -> dict[str, int]:
    """The seeds behind a run's training seed. The method is no axis, so that methods can be paired."""
    return {
        "training": seed,
        "data_order": seed_for("data_order", dataset, seed),
        "initialisation": seed_for("initialisation", model, seed),
    }


def build_spec(
    *,
    wildcards: dict[str, str],
    method: dict[str, Any],
    training: dict[str, Any] | None,
    n_train_pairs: int,
    inputs: dict[str, str],
    template_hash: str,
    code: str,
    threads: int,
    processes: int = 1,
) -> dict[str, Any]:
    """The resolved specification of a run.

    Args:
        wildcards: study, dataset, model, method, seed.
        method: name and parameters, defaults filled in.
        training: optimiser settings; None for the SFT start, which is not trained further.
        n_train_pairs: preference pairs that a pass goes through, those kept by the method.
        inputs: name -> content hash of what the run read.
        template_hash: chat template and special tokens (models.template).
        code: hash of the code that trained.
        threads: compute threads; part of the identity, because float sums depend on them.
        processes: processes that trained together; named where there are several, because float sums depend on them.
    """
    seed = int(wildcards["seed"])
    spec = {
        "run": {**wildcards, "seed": seed},
        "method": method,
        "training": training,
        "effective_batch": training["batch_size"] if training else None,
        "n_train_pairs": n_train_pairs,
        "seeds": seeds_by_axis(wildcards["dataset"], wildcards["model"], seed),
        "inputs": inputs,
        "template_hash": template_hash,
        "code": code,
        "threads": threads,
        **({"processes": processes} if processes > 1 else {}),
        "packages": package_versions(),
    }
    return {**spec, "spec_hash": content_id(spec)}
