"""`marginbench judge calibrate`: stored outputs of published models judged again; do they rank as published?"""

import argparse
import csv
import json
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from marginbench.benchmarks.alpaca_eval import annotations, pair_items, score
from marginbench.benchmarks.alpaca_files import read_model_outputs
from marginbench.errors import UserError
from marginbench.identity import content_id
from marginbench.judging.asking import ask
from marginbench.judging.client import pair_calls
from marginbench.judging.server import JUDGES
from marginbench.judging.spec import JudgeSpec, judge_by_id, load_judges
from marginbench.statistics.calibration import calibration


def _answers(path: str | Path, only: set[str] | None = None) -> tuple[str, list[dict[str, Any]]]:
    """The generator of a `model_outputs.json` and its answers; with `only`, those to these instructions."""
    rows = read_model_outputs(path)
    names = {row["generator"] for row in rows}
    if len(names) != 1:
        raise UserError(f"{path}: outputs of {len(names)} generators; give one file for each model")
    answers = [
        {
            "question_id": content_id("alpaca_eval", row["instruction"]),
            "prompt_text": row["instruction"],
            "answer_id": content_id("output", row["generator"], row["instruction"], row["output"]),
            "text": row["output"],
        }
        for row in rows
        if only is None or row["instruction"] in only
    ]
    return str(names.pop()), answers


def _published(path: str | Path) -> dict[str, float]:
    """Scores by model, from a CSV whose columns `model` and `score` are read."""
    try:
        with open(path, newline="", encoding="utf-8") as handle:
            return {row["model"]: float(row["score"]) for row in csv.DictReader(handle)}
    except FileNotFoundError as error:
        raise UserError(f"{path}: no such file; give a CSV with the columns model,score") from error
    except (KeyError, TypeError, ValueError) as error:
        raise UserError(f"{path}: {type(error).__name__} {error}; give a CSV with the columns model,score") from error


def calibrate(
    spec: JudgeSpec,
    outputs: Sequence[str | Path],
    reference: str | Path,
    published: str | Path,
    *,
    ledger: str | Path,
    prompts: int | None = None,
    weights: Sequence[str] = (),
    budget: float | None = None,
) -> dict[str, Any]:
    """Every model judged beside the reference, and the rank correlation of the win rates with the published scores.

    Args:
        outputs: an official `model_outputs.json` for each model; `reference` likewise, for the baseline.
        published: CSV model,score.
        ledger: verdicts that it holds are not asked for again.
        prompts: first N instructions of the reference only.
        weights: what a local judge serves.

    Returns what `calibration` does, with `judge` and the win rate of every model. Raises UserError as judging does, and
    for a pairwise verdict that the judge does not give.
    """
    if spec.verdict not in ("logprobs", "ranking"):
        raise UserError(f"judge `{spec.id}` gives verdicts of kind {spec.verdict}; calibration compares two answers")
    known = _published(published)
    baseline, theirs = _answers(reference)
    theirs = theirs[:prompts]
    wanted = {row["prompt_text"] for row in theirs}
    answered: dict[str, list[dict[str, Any]]] = {}
    for path in outputs:  # all is looked at before anything is paid for
        model, answers = _answers(path, wanted)
        if model in answered:
            raise UserError(f"{path}: {model} is there twice; give one file for each model")
        if model not in known:
            raise UserError(f"{published}: no published score of {model}; leave its outputs out, or add the score")
        answered[model] = answers
    rates: dict[str, float] = {}
    for model, answers in answered.items():
        items = pair_items(answers, theirs)
        rows = ask(
            spec,
            pair_calls(spec, items),
            weights=weights,
            ledger=ledger,
            payer="calibrate",
            batches=Path(ledger).parent / "batches" / spec.id,
            log=Path(ledger).parent / f"{spec.id}.server.log",
            budget=budget,
        )
        rates[model] = score(annotations(rows, items, baseline_name=baseline, method_name=model))["win_rate"]
        print(f"{model}: win rate {rates[model]:.1f} %, published {known[model]:g}", file=sys.stderr)
    return {"judge": spec.id, **calibration(rates, known), "win_rates": rates}


def main(argv: list[str] | None = None) -> int:
    """`marginbench judge calibrate`: do models rank under this judge as their published scores say?"""
    parser = argparse.ArgumentParser(prog="marginbench judge calibrate", description=main.__doc__)
    parser.add_argument("judge", help="id in the judges file")
    parser.add_argument("outputs", nargs="+", metavar="MODEL_OUTPUTS", help="model_outputs.json of each model")
    parser.add_argument("--reference", required=True, help="model_outputs.json of the baseline")
    parser.add_argument("--published", required=True, help="CSV with the columns model,score")
    parser.add_argument("--judges", default=str(JUDGES), help="judges file (default: resources/judges.yaml)")
    parser.add_argument("--ledger", default="results/judgments.sqlite", help="where verdicts are kept")
    parser.add_argument("--prompts", type=int, help="first N instructions of the reference only")
    parser.add_argument("--weights", action="append", default=[], help="what a local judge serves")
    parser.add_argument("--budget", type=float, help="US dollars that calibrations may cost in all")
    given = parser.parse_args(argv)
    try:
        spec = judge_by_id(load_judges(given.judges), given.judge)
        if spec.kind == "local_server" and not given.weights:
            raise UserError(f"judge `{spec.id}` is a local server; say what it serves: --weights FILE")
        found = calibrate(
            spec,
            given.outputs,
            given.reference,
            given.published,
            ledger=given.ledger,
            prompts=given.prompts,
            weights=given.weights,
            budget=given.budget,
        )
    except UserError as error:
        print(f"marginbench judge calibrate: error: {error}", file=sys.stderr)
        return 2
    print(json.dumps(found, indent=1, allow_nan=False))
    return 0
