"""`marginbench score alpaca-eval`: win rates of existing AlpacaEval annotations, as JSON."""

import argparse
import sys
from pathlib import Path
from typing import Any

from marginbench.errors import UserError


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """What the command takes."""
    parser.add_argument("annotations", type=Path, metavar="ANNOTATIONS", help="annotations.json, plain or .gz")
    parser.add_argument("--gamed", type=Path, metavar="FILE", help="df_gamed.csv, which length control needs")
    parser.add_argument(
        "--difficulty", type=Path, metavar="FILE", help="CSV index,instruction_difficulty in place of those in --gamed"
    )
    parser.add_argument(
        "--join",
        choices=["instruction", "position"],
        default="instruction",
        help="how rows meet their difficulty; position only reproduces published rows (default: instruction)",
    )
    parser.add_argument("--bootstrap", type=int, default=0, metavar="N", help="draws for an interval of LC, e.g. 1000")
    parser.add_argument("--seed", type=int, default=0, help="of the bootstrap (default: 0)")


def score(arguments: argparse.Namespace) -> dict[str, Any]:
    """The JSON document that is printed. Raises UserError with one line for a file that cannot be scored."""
    from marginbench.benchmarks.alpaca_eval import score as score_rows
    from marginbench.benchmarks.alpaca_files import read_annotations

    if arguments.bootstrap < 0:
        raise UserError(f"--bootstrap {arguments.bootstrap}: a number of draws is expected, e.g. 1000")
    rows = read_annotations(arguments.annotations)
    found = score_rows(
        rows,
        arguments.gamed,
        arguments.difficulty,
        join=arguments.join,
        bootstrap=arguments.bootstrap,
        seed=arguments.seed,
    )
    if found["lc_reason"] is not None:
        print(f"no length-controlled win rate: {found['lc_reason']}", file=sys.stderr)
    elif found["n_missing"]:
        print(f"{found['n_missing']} of AlpacaEval 2's instructions are missing", file=sys.stderr)
    return {"model": rows[0]["generator_2"], "baseline": rows[0]["generator_1"], **found}
