"""lm-eval's own output files (results_*.json, samples_*.jsonl, plain or .gz), read for a comparison of two runs.

Format: lm-eval 0.4.x, `EvaluationTracker`. Keys of a task's results are `metric,filter` and `metric_stderr,filter`;
`alias`, `name`, `sample_len` and `sample_count` stand beside them and are no metrics; a stderr may be the text "N/A".
"""

import json
import math
import re
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from marginbench.data.given_files import read_records, read_text_file
from marginbench.errors import UserError

STAMP = re.compile(r"_\d{4}-\d\d-\d\dT[\d\-.:]+$")
"""The date that lm-eval puts behind a file's name."""


@dataclass(frozen=True)
class TaskMetric:
    """One number of a task: its value and lm-eval's standard error (None where it gives none)."""

    task: str
    metric: str
    filter: str
    value: float
    stderr: float | None


@dataclass(frozen=True)
class Results:
    """One lm-eval run: its numbers by (task, metric, filter), what it was run with, and its samples by task."""

    path: Path
    metrics: dict[tuple[str, str, str], TaskMetric]
    settings: dict[str, dict[str, Any]]
    """Name of a setting (version, shots, task hash, chat template, ...) -> task -> value; "" for the whole run."""
    groups: dict[str, list[str]]
    """Group -> the tasks right below it."""
    samples: dict[str, list[dict[str, Any]]] = field(default_factory=dict)


def read_results(folder: str | Path) -> Results:
    """The one run whose output lies in a folder (or a folder below it).

    Raises UserError with one line when there is none or more than one, or a file is not what lm-eval writes.
    """
    folder = Path(folder)
    if not folder.is_dir():
        raise UserError(f"{folder}: is not a folder; give the output folder of an lm-eval run")
    found = sorted(p for p in folder.rglob("*") if re.fullmatch(r"results.*\.json(\.gz)?", p.name) and p.is_file())
    if len(found) != 1:
        what = (
            "no results_*.json" if not found else f"{len(found)} results files ({found[0].name}, {found[1].name}, ...)"
        )
        raise UserError(f"{folder}: holds {what}; give a folder with the output of one lm-eval run")
    path = found[0]
    try:
        document = json.loads(read_text_file(path))
    except (ValueError, RecursionError) as error:
        raise UserError(f"{path}: is not valid JSON ({' '.join(str(error).split())})") from error
    if not isinstance(document, dict) or not isinstance(document.get("results"), dict) or not document["results"]:
        raise UserError(f"{path}: has no `results`; is this an lm-eval results file?")
    metrics: dict[tuple[str, str, str], TaskMetric] = {}
    for task, values in {**_mapping(document.get("groups")), **document["results"]}.items():
        for found_metric in _metrics_of(task, values, path):
            metrics[(found_metric.task, found_metric.metric, found_metric.filter)] = found_metric
    samples: dict[str, list[dict[str, Any]]] = {}
    for file in sorted(path.parent.iterdir()):
        name = re.fullmatch(r"samples_(.+)\.jsonl(\.gz)?", file.name)
        if name:
            task = STAMP.sub("", name[1])
            if task in samples:
                raise UserError(f"{path.parent}: task {task} has more than one samples file; keep those of one run")
            samples[task] = [_sample(row, f"{file}: line {number}") for number, row in read_records(file)]
    groups = {
        group: [str(task) for task in tasks]
        for group, tasks in _mapping(document.get("group_subtasks")).items()
        if isinstance(tasks, list) and tasks
    }
    return Results(path, metrics, _settings(document), groups, samples)


def _mapping(value: Any) -> dict[str, Any]:
    return dict(value) if isinstance(value, Mapping) else {}


def _metrics_of(task: str, values: Any, path: Path) -> list[TaskMetric]:
    if not isinstance(values, dict):
        raise UserError(f"{path}: results of task {task} are not an object")
    found = []
    for key, value in values.items():
        metric, comma, filter_key = key.partition(",")
        if not comma or metric.endswith("_stderr"):
            continue
        if isinstance(value, bool) or not isinstance(value, int | float) or not math.isfinite(value):
            raise UserError(f"{path}: {task} `{key}` is {value!r}, not a number; run the task again")
        error = values.get(f"{metric}_stderr,{filter_key}")
        known = isinstance(error, int | float) and not isinstance(error, bool) and math.isfinite(error)
        found.append(TaskMetric(task, metric, filter_key, float(value), float(error) if known else None))
    return found


def _sample(row: dict[str, Any], at: str) -> dict[str, Any]:
    if "doc_id" not in row:
        raise UserError(f"{at}: `doc_id` is missing; is this an lm-eval samples file?")
    return row


def _settings(document: dict[str, Any]) -> dict[str, dict[str, Any]]:
    """All that must be equal for two runs to be comparable."""
    configs = _mapping(document.get("configs"))
    whole = {
        "lm_eval version": document.get("lm_eval_version"),
        "chat template": document.get("chat_template_sha") or document.get("chat_template"),
        "system instruction": document.get("system_instruction_sha") or document.get("system_instruction"),
        "few-shot as multi-turn": document.get("fewshot_as_multiturn"),
    }
    per_task = {
        "task version": _mapping(document.get("versions")),
        "number of shots": _mapping(document.get("n-shot")),
        "task hash": _mapping(document.get("task_hashes")),
        "prompt": {task: _mapping(config).get("doc_to_text") for task, config in configs.items()},
        "number of documents": {
            task: _mapping(counts).get("effective") for task, counts in _mapping(document.get("n-samples")).items()
        },
    }
    return {**{name: {"": value} for name, value in whole.items()}, **per_task}
