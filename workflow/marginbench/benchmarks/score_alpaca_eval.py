"""`marginbench score alpaca-eval`: win rates of existing AlpacaEval annotations, as JSON."""

import argparse
from typing import Any

from marginbench.errors import UserError


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """What the command takes."""
    parser.add_argument("files", nargs="+", metavar="FILE", help="judgments, plain or .gz")


def score(arguments: argparse.Namespace) -> dict[str, Any]:
    """The JSON document that is printed. Raises UserError with one line for a file that cannot be scored."""
    raise UserError("this benchmark cannot be scored yet")
