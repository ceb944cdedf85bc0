"""`marginbench compare capability`: a tuned model beside its base, on any pair of lm-eval outputs."""

import math
from typing import Any

from marginbench.capability.results import Results, TaskMetric, read_results
from marginbench.errors import UserError
from marginbench.statistics.claims import holm
from marginbench.statistics.paired_items import mcnemar_exact, non_inferior, paired_se

MEAN_TOLERANCE = 1e-6
"""How far the mean of the samples may lie from the task's value; beyond it the metric is no mean over documents."""


def compare_capability(base_folder: str, tuned_folder: str, margin: float | None = None) -> list[dict[str, Any]]:
    """A row per (task, metric, filter) that both runs report, in the order of the base run's file.

    `diff` is tuned - base, in lm-eval's own unit. Where the metric is a mean over documents and both runs kept their
    samples, `diff_se` is that of the paired differences; `lost` and `gained` count documents (values of 0 and 1 only),
    `mcnemar_p` is exact, `holm_p` corrects it over all rows that have one. A value that cannot be had is null. With
    `margin`, `non_inferior` is pass, fail or inconclusive (one-sided 5 %). Groups are compared on the documents of
    their tasks, where their value is the mean of those.

    Raises UserError with one line when the two runs were not made with the same tasks, versions, shots, prompts,
    documents or templates.
    """
    base, tuned = read_results(base_folder), read_results(tuned_folder)
    _refuse_different(base, tuned)
    rows = [_row(base, tuned, key, margin) for key in base.metrics]
    tested = [row for row in rows if row["mcnemar_p"] is not None]
    for row, p in zip(tested, holm([row["mcnemar_p"] for row in tested]), strict=True):
        row["holm_p"] = p
    return rows


def _refuse_different(base: Results, tuned: Results) -> None:
    for name in sorted({*base.settings, *tuned.settings}):
        one, other = base.settings.get(name, {}), tuned.settings.get(name, {})
        for task in sorted({*one, *other}):
            if one.get(task) != other.get(task):
                of = f" of {task}" if task else ""
                ours, theirs = _short(one.get(task)), _short(other.get(task))
                raise UserError(
                    f"not comparable: {name}{of} is {ours} in {base.path} and {theirs} in {tuned.path}; "
                    "run both in the same way"
                )
    for one, other in ((base, tuned), (tuned, base)):
        missing = [key for key in one.metrics if key not in other.metrics]
        if missing:
            task, metric, filter_key = missing[0]
            raise UserError(
                f"not comparable: {other.path} lacks {task} `{metric},{filter_key}`, which {one.path} has; "
                "run both with the same tasks"
            )


def _short(value: Any) -> str:
    text = repr(value)
    return text if len(text) <= 60 else f"{text[:57]}..."


def _row(base: Results, tuned: Results, key: tuple[str, str, str], margin: float | None) -> dict[str, Any]:
    one, other = base.metrics[key], tuned.metrics[key]
    row: dict[str, Any] = {
        **dict(zip(("task", "metric", "filter"), key, strict=True)),
        "base": one.value,
        "tuned": other.value,
        "base_stderr": one.stderr,
        "tuned_stderr": other.stderr,
        "n": None,
        "diff": other.value - one.value,
        **dict.fromkeys(("diff_se", "lost", "gained", "mcnemar_p", "holm_p")),
    }
    pairs = _pairs(base, tuned, one, other)
    if pairs is not None:
        row["n"] = len(pairs)
        row["diff_se"] = paired_se([b - a for a, b in pairs])
        if all(value in (0.0, 1.0) for pair in pairs for value in pair):
            row["lost"] = sum(a > b for a, b in pairs)
            row["gained"] = sum(b > a for a, b in pairs)
            row["mcnemar_p"] = mcnemar_exact(row["lost"], row["gained"])
    if margin is not None:
        row["non_inferior"] = non_inferior(row["diff"], row["diff_se"], row["n"] or 0, margin)
    return row


def _tasks_below(results: Results, task: str) -> list[str]:
    children = results.groups.get(task)
    if not children:
        return [task]
    return [leaf for child in children if child != task for leaf in _tasks_below(results, child)]


def _pairs(base: Results, tuned: Results, one: TaskMetric, other: TaskMetric) -> list[tuple[float, float]] | None:
    """Per document the two values, or None where the metric is no mean over documents that both runs kept."""
    pairs: list[tuple[float, float]] = []
    for task in _tasks_below(base, one.task):
        if task not in base.samples or task not in tuned.samples:
            return None
        ours = _values(base, task, one)
        theirs = _values(tuned, task, other)
        if ours is None or theirs is None:
            return None
        if ours.keys() != theirs.keys():
            odd = sorted(ours.keys() ^ theirs.keys(), key=str)[0]
            raise UserError(f"not comparable: document {odd} of {task} is in one of the two runs only")
        for document, (value, hashes) in ours.items():
            if theirs[document][1] != hashes:
                raise UserError(f"not comparable: document {document} of {task} is not the same text in both runs")
            pairs.append((value, theirs[document][0]))
    for side, metric in ((0, one), (1, other)):
        mean = math.fsum(pair[side] for pair in pairs) / len(pairs)
        if not math.isclose(mean, metric.value, rel_tol=MEAN_TOLERANCE, abs_tol=MEAN_TOLERANCE):
            return None
    return pairs


def _values(results: Results, task: str, metric: TaskMetric) -> dict[Any, tuple[float, tuple[Any, ...]]] | None:
    """doc_id -> (value, hashes of document, prompt and target) under the metric's filter; None if it has no numbers."""
    found: dict[Any, tuple[float, tuple[Any, ...]]] = {}
    for sample in results.samples[task]:
        if sample.get("filter", metric.filter) != metric.filter:
            continue
        value = sample.get(metric.metric)
        if not isinstance(value, bool | int | float) or not math.isfinite(value):
            return None
        if sample["doc_id"] in found:
            raise UserError(
                f"{results.path.parent}: document {sample['doc_id']} of {task} occurs more than once under filter "
                f"`{metric.filter}`; keep the samples of one run"
            )
        hashes = tuple(sample.get(name) for name in ("doc_hash", "prompt_hash", "target_hash"))
        found[sample["doc_id"]] = (float(value), hashes)
    return found or None
