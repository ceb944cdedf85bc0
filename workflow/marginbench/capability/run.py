"""Running capability tasks through lm-eval's Python API, and what is kept of its results.

Every result carries what must be equal before two of them may be compared: task version, hash of the documents and
prompts, shots, template, harness version. Nothing in it depends on time or place, so equal runs give equal files.
"""

import difflib
import math
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import lm_eval
import numpy as np
import pandas as pd
import torch
from datasets import Dataset
from lm_eval.api.task import ConfigurableTask
from lm_eval.evaluator import evaluate
from lm_eval.tasks import TaskManager

from marginbench.capability.packed import PackedLM
from marginbench.capability.shared import rows_for, rows_to_keep, save_rows
from marginbench.capability.tasks import (
    PERPLEXITY,
    PREFIX,
    Doc,
    headline_metric,
    known_tasks,
    packaged_docs,
    task_config,
)
from marginbench.data.messages import plain_text
from marginbench.errors import UserError, nearest
from marginbench.identity import content_id
from marginbench.job import Progress, quiet
from marginbench.models.loading import load_model, load_tokenizer
from marginbench.models.manifest import read_manifest
from marginbench.study import Capability

FEWSHOT_SEED = 1234
"""lm-eval's own default, so that its results can be compared with those of its command line."""

METRICS = ("acc_norm", "exact_match", "acc")
"""Headline metrics of lm-eval's own tasks, the first that a task reports; otherwise its first metric by name."""


def run_tasks(
    policy_manifest: str | Path,
    capability: Capability,
    texts: pd.DataFrame,
    format: str,
    progress: Progress = quiet,
    *,
    start_rows: str | Path | None = None,
    keep_rows: tuple[str | Path, int | None] | None = None,
) -> dict[str, dict[str, Any]]:
    """Results of every task of `capability` for one policy, by task id.

    `texts` are TEXTS rows of role `perplexity`; only `review_perplexity` reads them, and only it needs any. No chat
    template is applied, whatever `format` says; with `chat` the perplexity is that of the completion alone.
    A result holds value and se (acc_norm for PIQA and SIQA; bits per byte for the perplexity, over all bytes), n,
    metric, higher_is_better, version, task_hash (documents, prompts and targets), shots, template_hash, harness,
    metrics (all that the task reports) and samples: one {doc_id, value, weight} per document. The value is the weighted
    mean of the samples; se is over documents.
    `keep_rows` names a file for the hidden states under the last so many blocks, which the start's check writes;
    `start_rows` is that file when a policy trained from this start is checked (capability.shared).
    Raises UserError for an unknown task, missing data and missing texts, before the model is loaded.
    """
    manager = _manager(list(capability.tasks))
    tasks: dict[str, Any] = {name: _task(name, texts, format) for name in capability.tasks}
    if not tasks:
        return {}
    manifest = read_manifest(policy_manifest)
    model, trained = load_model(manifest), None
    if hasattr(model, "merge_and_unload"):
        trained = model.peft_config["default"].layers_to_transform
        model = model.merge_and_unload()  # the same function without the adapter's extra products
    shared = None
    if keep_rows is not None:
        shared = rows_to_keep(model, keep_rows[1])
    elif start_rows is not None and manifest.base is not None:
        shared = rows_for(model, trained, start_rows, manifest.base.weights_hash)
    model.to("cuda" if torch.cuda.is_available() else "cpu").eval()
    results = {}
    current = ""

    def report(done: int, total: int) -> None:
        progress(done, total, current)

    lm = PackedLM(
        pretrained=model,
        tokenizer=load_tokenizer(policy_manifest),
        batch_size=capability.batch_size,
        report=report,
        shared=shared,
    )
    for name, task in tasks.items():
        current = name
        settings = capability.tasks[name]
        loaded = manager.load([task])
        for each in loaded["tasks"].values():
            if each.get_config("num_fewshot") != 0:  # lm-eval's rule: a task that says 0 itself is never given examples
                each.set_config(key="num_fewshot", value=settings.shots)
            each.set_fewshot_seed(seed=FEWSHOT_SEED)
        # Not `simple_evaluate`: it asks pip for a list of all packages at every call, 1 to 3 s for nothing we keep.
        out = evaluate(lm=lm, task_dict=loaded, limit=settings.limit, bootstrap_iters=0, log_samples=True)
        results[name] = summarise(name, task if isinstance(task, str) else PREFIX + name, out)
    if keep_rows is not None:
        save_rows(shared, keep_rows[0], manifest.weights_hash)
    return results


def _manager(names: Sequence[str]) -> TaskManager:
    """A task manager; lm-eval's own tasks are indexed only when one of them is asked for (it takes seconds)."""
    foreign = [name for name in names if name not in known_tasks()]
    manager = TaskManager(include_defaults=bool(foreign))
    for name in foreign:
        if name not in manager.all_tasks:
            close = difflib.get_close_matches(name, [*known_tasks(), *manager.all_tasks], n=1, cutoff=0.6)
            raise UserError(f"capability task `{name}` is not known; {nearest(name, close or known_tasks())}")
    return manager


def _task(name: str, texts: pd.DataFrame, format: str) -> Any:
    if name == PERPLEXITY:
        if texts.empty:
            raise UserError(f"capability task `{name}`: the corpus keeps no texts for it; raise perplexity_texts")
        docs: list[Doc] = [{"text": _text(row, format)} for row in texts.to_dict("records")]
    elif name in known_tasks():
        docs = packaged_docs(name)
    else:
        return name
    return ConfigurableTask(config=task_config(name, docs, lambda rows: Dataset.from_list(list(rows))))


def _text(row: dict[str, Any], format: str) -> str:
    return str(row["completion"]) if format == "chat" else plain_text(list(row["prompt"])) + str(row["completion"])


def summarise(name: str, inner: str, out: dict[str, Any]) -> dict[str, Any]:
    """The part of lm-eval's output that is kept for task `name`, which lm-eval calls `inner`."""
    reported = {
        key: value
        for key, value in out["results"][inner].items()
        if "," in key and "_stderr," not in key and isinstance(value, int | float)
    }
    metric, key = _headline(name, reported)
    several = len(out["samples"]) > 1
    logged = [(sub, row) for sub, rows in sorted(out["samples"].items()) for row in sorted(rows, key=_document)]
    samples = [
        {"doc_id": f"{sub}/{row['doc_id']}" if several else row["doc_id"], **_sample(row[metric])}
        for sub, row in logged
        if metric in row and row["filter"] == key.split(",")[1]
    ]
    if not samples:
        raise UserError(f"capability task `{name}`: lm-eval returned no per-document value of {metric}")
    return {
        "value": float(reported[key]),
        "se": standard_error([row["value"] for row in samples], [row["weight"] for row in samples]),
        "n": len(samples),
        "metric": metric,
        "higher_is_better": bool(out["higher_is_better"][inner][metric]),
        "metrics": {key.removesuffix(",none"): float(value) for key, value in sorted(reported.items())},
        "version": out["versions"].get(inner),
        "task_hash": content_id(
            [[row[key] for key in ("doc_hash", "prompt_hash", "target_hash")] for _, row in logged]
        ),
        "shots": out["n-shot"].get(inner),
        "template_hash": None,
        "harness": f"lm-eval {lm_eval.__version__}",
        "samples": samples,
    }


def _document(row: dict[str, Any]) -> int:
    return int(row["doc_id"])


def _headline(name: str, reported: dict[str, Any]) -> tuple[str, str]:
    wanted = headline_metric(name)
    for metric in [wanted] if wanted else [*METRICS, *sorted(key.split(",")[0] for key in reported)]:
        for key in sorted(reported):
            if key.split(",")[0] == metric:
                return metric, key
    raise UserError(f"capability task `{name}`: lm-eval reported no number for it")


def _sample(value: Any) -> dict[str, float]:
    """Value and weight of one document: bits per byte and bytes for a perplexity, the metric and 1 otherwise."""
    if isinstance(value, tuple | list):
        log_likelihood, n_bytes = value
        return {"value": -float(log_likelihood) / (n_bytes * math.log(2)), "weight": float(n_bytes)}
    return {"value": float(value), "weight": 1.0}


def standard_error(values: Sequence[float], weights: Sequence[float]) -> float | None:
    """Standard error of the weighted mean over independent documents; None for fewer than two.

    With equal weights sd(ddof 1) / sqrt(n); else the linearised variance of a ratio, which weights by bytes need.
    """
    x, w = np.asarray(values, float), np.asarray(weights, float)
    n = len(x)
    if n < 2:
        return None
    mean = float((w * x).sum() / w.sum())
    return math.sqrt(n / (n - 1) * float((w**2 * (x - mean) ** 2).sum())) / float(w.sum())
