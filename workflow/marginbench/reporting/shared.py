"""shared.json: what stands under the table because all methods share it. Title, seeds, reports of the shared stages."""

import math
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

from marginbench.files import read_json
from marginbench.records import MARGINS, read_table
from marginbench.reporting.catalog import BENCH_LABELS, HEADLINE_BENCH
from marginbench.statistics.intervals import wilson_interval

CHANCE = 0.5

INDIFFERENT = {"held_out_loss": -math.log(2)}
"""Margin of a pair that a scorer does not tell apart, where that is not 0."""


def indifferent(scorer: str) -> float:
    """The margin below which a scorer contradicts the label."""
    return INDIFFERENT.get(scorer, 0.0)


def _cell_name(path: Path, up: int) -> str:
    """`dataset/model`, with the seed where a shared stage was redrawn for every seed."""
    dataset, model, shared = path.parents[up].parts[-3:]
    return "/".join([dataset, model] + ([shared] if shared != "shared" else []))


def _scorer(path: Path, confidence: float) -> dict[str, Any]:
    margins = read_table(path, MARGINS)["margin"]
    agrees = wilson_interval(int((margins > indifferent(path.stem)).sum()), len(margins), confidence)
    return {
        "pairs": len(margins),
        "mean": float(margins.mean()),
        "sd": float(margins.std(ddof=1)) if len(margins) > 1 else None,
        "agrees": {"value": agrees.mean, "low": agrees.low, "high": agrees.high},
    }


def collect_shared(
    study: str,
    settings: Mapping[str, Any],
    *,
    pairs: Iterable[str | Path] = (),
    reward_models: Iterable[str | Path] = (),
    margins: Iterable[str | Path] = (),
    classifiers: Iterable[str | Path] = (),
    scores: Iterable[str | Path] = (),
) -> dict[str, Any]:
    """Everything for shared.json. `settings` holds title, seeds, reseed, confidence and methods of the study.

    Reports are kept whole, by `dataset/model` (pairs, reward models, margins by scorer) or by corpus (classifiers).
    `scores` are the judges' result files, read for what they could not compute and why.
    """
    confidence = settings["confidence"]
    return {
        "study": study,
        **{key: settings[key] for key in ("title", "seeds", "reseed", "confidence", "methods")},
        "pairs": {_cell_name(Path(path), 0): read_json(path) for path in pairs},
        "reward_models": {_cell_name(Path(path), 1): read_json(path) for path in reward_models},
        "margins": {
            f"{_cell_name(Path(path), 1)}/{Path(path).stem}": _scorer(Path(path), confidence) for path in margins
        },
        "classifiers": {Path(path).parents[1].name: read_json(path) for path in classifiers},
        "not_computed": _not_computed(scores),
    }


def _not_computed(scores: Iterable[str | Path]) -> list[dict[str, str]]:
    reasons = {}
    for path in scores:
        score = read_json(path)
        if score.get("length_controlled_winrate") is None and score.get("lc_reason"):
            bench = Path(path).parent.name
            of = "" if bench == HEADLINE_BENCH else f" of {BENCH_LABELS.get(bench, bench)}"
            reasons[f"length-controlled win rate{of}", str(score["lc_reason"])] = None
    return [{"what": what, "why": why} for what, why in sorted(reasons)]


def _percent(value: float) -> str:
    return f"{100 * value:.1f} %"


def _span(value: float, low: float, high: float) -> str:
    return f"{_percent(value)} [{100 * low:.1f}, {100 * high:.1f}]"


def shared_lines(shared: Mapping[str, Any]) -> list[str]:
    """The shared stages in sentences for people: do the labels hold, is the reward model better than chance?"""
    lines = []
    for corpus, report in sorted(shared.get("classifiers", {}).items()):
        full = report["full_review"]
        lines.append(
            f"{corpus}: ground truth {_percent(full['ground_truth_accuracy'])} and judge "
            f"{_percent(full['judge_accuracy'])} right on {report['held_out']} reviews that neither has seen; "
            f"they agree on {_percent(full['agreement'])}."
        )
    for cell, report in sorted(shared.get("pairs", {}).items()):
        agreement = report.get("label_agreement")
        labels = "" if agreement is None else f"; the label agrees with the score on {_percent(agreement)}"
        lines.append(f"{cell}: {report['pairs']} pairs{labels}.")
    for cell, report in sorted(shared.get("reward_models", {}).items()):
        lines.append(f"{cell}: reward model, pairs of prompts kept out: {_accuracy(report)}.")
    return lines


def _accuracy(report: Mapping[str, Any]) -> str:
    found = [_against_chance(report["holdout"], "labels")]
    if report.get("holdout_true_order"):
        found.append(_against_chance(report["holdout_true_order"], "pairs by the ground truth's order"))
    return ", ".join(found)


def _against_chance(part: Mapping[str, Any], of: str) -> str:
    doubt = "" if part["ci"][0] > CHANCE else " (not clearly above chance)"
    return f"{_span(part['accuracy'], *part['ci'])} right on {part['n']} {of}{doubt}"
