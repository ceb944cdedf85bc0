"""`marginbench score arena-hard`: scores of existing Arena-Hard judgments, as JSON."""

import argparse
import sys
from pathlib import Path
from typing import Any

from marginbench.errors import UserError


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """What the command takes."""
    parser.add_argument(
        "files", nargs="+", metavar="FILE", help="judgments or battles, .jsonl or .jsonl.gz, or folders"
    )
    parser.add_argument("--version", required=True, choices=["v0.1", "v2.0"], help="whose rules are followed")
    parser.add_argument("--baseline", metavar="ID", help="the baseline model (default: the category's official one)")
    parser.add_argument("--answers", type=Path, metavar="DIR", help="folder of answer files, for style control")
    parser.add_argument("--style", metavar="GROUPS", help="control for length, markdown or length,markdown")
    parser.add_argument("--category", metavar="C", help="e.g. creative_writing (default of several: hard_prompt)")
    parser.add_argument("--pool-judges", action="store_true", help="take verdicts of several judges together")


def score(arguments: argparse.Namespace) -> dict[str, Any]:
    """The JSON document that is printed. Raises UserError with one line for a file that cannot be scored."""
    from marginbench.benchmarks.arena_formats import read_answers, read_games
    from marginbench.benchmarks.arena_hard import answering_models, choose, score_games

    groups = [] if arguments.style is None else [name.strip() for name in arguments.style.split(",")]
    if groups and arguments.answers is None:
        raise UserError("--style needs the answers; name their folder: --answers DIR")
    everything = read_games(arguments.files, arguments.baseline)
    games = choose(everything, arguments.baseline, arguments.category, arguments.pool_judges)
    others = sorted({game.category for game in everything} - {games[0].category})
    if others:
        print(f"marginbench: scored {games[0].category}; not scored: {', '.join(others)}", file=sys.stderr)
    answers = read_answers(arguments.answers, answering_models(games)) if groups else None
    return score_games(games, arguments.version, groups, answers)
