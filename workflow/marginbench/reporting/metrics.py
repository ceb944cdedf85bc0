"""The long table of a study: one row per run and metric, from the files that the runs left behind.

`metrics.csv` holds the same rows as `metrics.parquet`, floats with 10 significant digits and no times, so that two
runs of the same study on the same machine give the same bytes.
"""

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd

from marginbench.benchmarks.arena_hard import arena_metric
from marginbench.errors import UserError
from marginbench.files import atomic_path, read_json, write_text
from marginbench.identity import content_id
from marginbench.records import ANSWER_SCORES, METRICS, read_table, write_table
from marginbench.reporting.catalog import HEADLINE_BENCH

FLOAT_FORMAT = "%.10g"
ITEM_COLUMNS = ["dataset", "model", "method", "seed", "generation", "metric", "judge", "item", "value", "weight"]

ANSWER_METRICS = {
    "true_reward": "true_reward",
    "kl": "kl",
    "answer_tokens": "n_tokens",
    "answer_chars": "n_chars",
    "repeated_trigrams": "repeated_trigrams",
    "truncated": "truncated",
}
"""Metric id -> column of ANSWER_SCORES."""

OWN_ONLY = frozenset({"true_reward"})
"""Metrics that only answers to the study's own prompts can have: the ground truth knows no other texts."""


@dataclass(frozen=True)
class RunFiles:
    """Where one run's results lie. A run is one (dataset, model, method, seed)."""

    study: str
    dataset: str
    model: str
    method: str
    seed: int
    spec_hash: str
    answer_scores: dict[tuple[str, str], Path] = field(default_factory=dict)  # (generation, bench) -> parquet
    scores: dict[tuple[str, str, str], Path] = field(default_factory=dict)  # (generation, bench, judge) -> JSON
    annotations: dict[tuple[str, str, str], Path] = field(default_factory=dict)  # (generation, bench, judge) -> JSON
    capability: dict[str, Path] = field(default_factory=dict)  # task -> JSON

    @property
    def key(self) -> dict[str, Any]:
        """The columns that every row of this run shares."""
        return {"dataset": self.dataset, "model": self.model, "method": self.method, "seed": self.seed}


def run_files(record: Mapping[str, Any]) -> RunFiles:
    """A run as the workflow describes it (`Plan.runs`): paths by `generation/bench` and `generation/bench/judge`.

    `spec` carries the run's spec hash; `capability` is the folder of the task files, or None.
    """
    spec = Path(record["spec"])
    folder = Path(record["capability"]) if record.get("capability") else None
    tasks = sorted(folder.glob("*.json")) if folder else []
    if folder and not tasks:
        raise UserError(f"{folder}: holds no task results; delete the folder and run again")
    return RunFiles(
        **{name: record[name] for name in ("study", "dataset", "model", "method", "seed")},
        spec_hash=_required(read_json(spec), ("spec_hash",), spec)[0],
        answer_scores=_by_parts(record.get("answer_scores", {})),
        scores=_by_parts(record.get("scores", {})),
        annotations=_by_parts(record.get("annotations", {})),
        capability={path.stem: path for path in tasks},
    )


def _by_parts(paths: Mapping[str, str | Path]) -> dict[tuple, Path]:
    return {tuple(key.split("/")): Path(path) for key, path in paths.items()}


def _metric_id(bench: str, metric: str) -> str:
    return metric if bench == HEADLINE_BENCH else f"{bench}/{metric}"


def _required(document: dict, keys: tuple[str, ...], path: Path) -> list[Any]:
    missing = [key for key in keys if key not in document]
    if missing:
        raise UserError(f"{path}: key `{missing[0]}` is missing; delete the file and run again")
    return [document[key] for key in keys]


def _per_question(path: Path, bench: str) -> dict[str, pd.Series]:
    """Metric id -> value per question (mean of its answers; null answers left out), indexed by question_id."""
    answers = read_table(path, ANSWER_SCORES)
    if answers.empty:
        raise UserError(f"{path}: holds no answers; delete the file and run again")
    grouped = answers.groupby("question_id", sort=True)
    measured = {
        name: column for name, column in ANSWER_METRICS.items() if bench == HEADLINE_BENCH or name not in OWN_ONLY
    }
    return {metric: grouped[column].mean().dropna().astype(float) for metric, column in measured.items()}


def _mean_row(values: pd.Series) -> dict[str, Any]:
    n = len(values)
    if not n:
        return {"value": None, "se": None, "n": 0}
    se = float(values.std(ddof=1) / np.sqrt(n)) if n > 1 else None
    return {"value": float(values.mean()), "se": se, "n": n}


def _judge_rows(path: Path, bench: str) -> Iterable[dict[str, Any]]:
    score = read_json(path)
    if bench == "mt_bench":
        yield from _mt_bench_rows(score, path)
    elif bench == "arena_hard":
        yield from _arena_rows(score, path)
    else:
        yield from _pairwise_rows(score, path, bench)


def _null_row(metric: str, null: int, asked: int) -> dict[str, Any]:
    share = null / asked if asked else None
    se = None if share is None else float(np.sqrt(share * (1 - share) / asked))
    return {"metric": metric, "value": share, "se": se, "n": asked}


def _pairwise_rows(score: dict, path: Path, bench: str) -> Iterable[dict[str, Any]]:
    win_rate, se, total, null = _required(score, ("win_rate", "standard_error", "n_total", "n_null"), path)
    yield {"metric": _metric_id(bench, "win_rate"), "value": win_rate, "se": se, "n": int(total)}
    yield _null_row(_metric_id(bench, "judge_null"), int(null), int(total) + int(null))
    if score.get("length_controlled_winrate") is not None:
        # No SE: the package's lc_standard_error is that of the fitted values, not a sampling error.
        value = score["length_controlled_winrate"]
        yield {"metric": _metric_id(bench, "length_controlled_winrate"), "value": value, "se": None, "n": int(total)}


def _arena_rows(score: dict, path: Path) -> Iterable[dict[str, Any]]:
    """The SE is the one clustered by prompt; the official interval stands in the score's own file."""
    keys = ("score", "clustered_se", "n_prompts", "n_null", "n_asked", "baseline")
    value, se, prompts, null, games, baseline = _required(score, keys, path)
    yield {"metric": arena_metric(baseline), "value": value, "se": se, "n": int(prompts)}
    yield _null_row("arena_hard/judge_null", int(null), int(games))


def _mt_bench_rows(score: dict, path: Path) -> Iterable[dict[str, Any]]:
    keys = ("average", "clustered_se", "turn_1", "turn_2", "n_questions", "n", "n_dropped")
    value, se, first, second, questions, kept, dropped = _required(score, keys, path)
    yield {"metric": "mt_bench", "value": value, "se": se, "n": int(questions)}
    yield {"metric": "mt_bench/turn_1", "value": first, "se": None, "n": int(questions)}
    yield {"metric": "mt_bench/turn_2", "value": second, "se": None, "n": int(questions)}
    yield _null_row("mt_bench/judge_null", int(dropped), int(kept) + int(dropped))


def collect_metrics(runs: list[RunFiles]) -> pd.DataFrame:
    """The METRICS frame of all runs, sorted by key.

    Values are means over questions (answers to one question are averaged first, so that SE = sd / sqrt(n) is clustered
    by question); a metric that could not be measured stays as a row with a null value and n = 0.
    """
    rows: list[dict[str, Any]] = []
    for run in runs:
        common = {"study": run.study, **run.key, "generation": "", "judge": "", "spec_hash": run.spec_hash}
        for (generation, bench), path in run.answer_scores.items():
            for metric, values in _per_question(path, bench).items():
                row = {"generation": generation, "metric": _metric_id(bench, metric), **_mean_row(values)}
                rows.append({**common, **row})
        for (generation, bench, judge), path in run.scores.items():
            rows += [{**common, "generation": generation, "judge": judge, **row} for row in _judge_rows(path, bench)]
        for task, path in run.capability.items():
            value, se, n = _required(read_json(path), ("value", "se", "n"), path)
            rows.append({**common, "metric": task, "value": value, "se": se, "n": int(n)})
    if not rows:
        raise UserError("no run has left a result; nothing to put into metrics.parquet")
    frame = pd.DataFrame(rows, columns=list(METRICS.columns))
    frame[["value", "se"]] = frame[["value", "se"]].astype(float)
    return frame.sort_values(list(METRICS.key), kind="stable").reset_index(drop=True)


def _preferences(path: Path) -> pd.Series:
    """Per instruction, what AlpacaEval counts: 100 for a win, 0 for a loss, in between by the judge's log-probs.

    Annotations hold 1 (the start wins) to 2 (the run wins); 0 is the old spelling of a draw, null is no verdict.
    """
    rows = [row for row in read_json(path) if row["preference"] is not None]
    preference = pd.Series([float(row["preference"]) for row in rows], dtype=float)
    items = pd.Series([content_id(row["instruction"]) for row in rows], dtype=str)
    return (100.0 * (preference.where(preference != 0, 1.5) - 1.0)).groupby(items, sort=True).mean()


def collect_items(runs: list[RunFiles]) -> pd.DataFrame:
    """Values per question (answers, preferences) and per document (capability), for paired differences within a seed.

    Columns ITEM_COLUMNS; `item` is the question_id, the hash of the instruction, or the task's doc_id. `weight` is 1,
    or what the task's own mean weighs a document by (bytes, for bits per byte).
    """
    frames = []

    def add(run: RunFiles, generation: str, metric: str, judge: str, values: pd.Series, weights: Any = 1.0) -> None:
        labels = {**run.key, "generation": generation, "metric": metric, "judge": judge}
        columns = {"item": values.index.astype(str), "value": values.to_numpy(float), "weight": weights}
        frames.append(pd.DataFrame({**labels, **columns}))

    for run in runs:
        for (generation, bench), path in run.answer_scores.items():
            for metric, values in _per_question(path, bench).items():
                add(run, generation, _metric_id(bench, metric), "", values)
        for (generation, bench, judge), path in run.annotations.items():
            add(run, generation, _metric_id(bench, "win_rate"), judge, _preferences(path))
        for (generation, _, judge), path in run.scores.items():
            score = read_json(path)
            for metric, rows in (score.get("items") or {}).items():
                values = pd.Series({row["item"]: row["value"] for row in rows}, dtype=float)
                add(run, generation, metric, judge, values, [float(row["weight"]) for row in rows])
        for task, path in run.capability.items():
            samples = read_json(path).get("samples") or []
            values = pd.Series({str(sample["doc_id"]): sample["value"] for sample in samples}, dtype=float)
            add(run, "", task, "", values, [float(sample.get("weight", 1.0)) for sample in samples])
    frames = [frame for frame in frames if len(frame)]
    if not frames:
        return pd.DataFrame(columns=ITEM_COLUMNS)
    return (
        pd.concat(frames, ignore_index=True)[ITEM_COLUMNS]
        .sort_values(ITEM_COLUMNS[:-2], kind="stable")
        .reset_index(drop=True)
    )


def write_items(items: pd.DataFrame, path: str | Path) -> None:
    """Write the per-item values as parquet, atomically."""
    with atomic_path(path) as temporary:
        items.to_parquet(temporary, index=False, compression="zstd")


def read_items(path: str | Path) -> pd.DataFrame:
    """Read what `write_items` wrote; UserError on other columns."""
    items = pd.read_parquet(path)
    if list(items.columns) != ITEM_COLUMNS:
        raise UserError(f"{path}: not an items table of this version; delete it and run again")
    return items


def write_csv(frame: pd.DataFrame, path: str | Path) -> None:
    """A frame as UTF-8 CSV, floats as %.10g, missing values empty, one newline a row."""
    write_text(path, frame.to_csv(index=False, float_format=FLOAT_FORMAT, lineterminator="\n"))


def write_metrics(frame: pd.DataFrame, parquet: str | Path, csv: str | Path) -> None:
    """Write the long table twice, in the same order: checked parquet, and CSV for eyes and spreadsheets."""
    write_table(frame, parquet, METRICS)
    write_csv(frame, csv)
