"""`marginbench score mt-bench`: mean ratings of existing MT-Bench judgments, as JSON."""

import argparse
import sys
from typing import Any


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """What the command takes."""
    parser.add_argument(
        "files", nargs="+", metavar="JUDGMENTS", help="single-answer judgments (JSONL) of one judge, plain or .gz"
    )
    parser.add_argument(
        "--duplicates",
        choices=("refuse", "first", "last", "keep"),
        default="refuse",
        help="judgments of the same question, model and turn (default: refuse)",
    )


def score(arguments: argparse.Namespace) -> dict[str, Any]:
    """The JSON document that is printed. Raises UserError with one line for a file that cannot be scored."""
    from marginbench.benchmarks.mt_bench_files import read_judgments
    from marginbench.benchmarks.mt_bench_scores import scores

    judgments = [found for file in arguments.files for found in read_judgments(file)]
    models = scores(judgments, arguments.duplicates)
    for model, scored in models.items():
        if scored["n_dropped"]:
            print(f"{model}: judgments without a rating, left out: {scored['n_dropped']}", file=sys.stderr)
    passed_over = len(judgments) - sum(scored["n"] + scored["n_dropped"] for scored in models.values())
    if passed_over:
        print(f"duplicates passed over (--duplicates {arguments.duplicates}): {passed_over}", file=sys.stderr)
    return {"models": models}
