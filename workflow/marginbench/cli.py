"""`marginbench`: how the work is looked at. Snakemake is how it is run; `marginbench run` only wraps it.

JSON goes to stdout where another program may read it, messages to stderr; exit code 2 for a user's mistake.
"""

import argparse
import importlib
import json
import subprocess
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import NoReturn

from marginbench import __version__
from marginbench.errors import UserError, nearest

BENCHMARKS = ("alpaca_eval", "arena_hard", "mt_bench")
"""Benchmarks that `score` knows, each a file `benchmarks/score_<name>.py`."""

ROOT = Path(__file__).resolve().parents[2]


def main(argv: Sequence[str] | None = None) -> int:
    """Entry point; returns the exit code."""
    try:
        arguments = _parser().parse_args(argv)
        return arguments.run(arguments) or 0
    except UserError as error:
        print(f"marginbench: error: {error}", file=sys.stderr)
        return 2
    except BrokenPipeError:
        return 0


class _Parser(argparse.ArgumentParser):
    """Says what is wrong with a command line in one line, without the usage."""

    def error(self, message: str) -> NoReturn:
        raise UserError(f"{message}; see `{self.prog} --help`")


def _parser() -> argparse.ArgumentParser:
    parser = _Parser(prog="marginbench", description=__doc__.splitlines()[0])
    parser.add_argument("--version", action="version", version=f"marginbench {__version__}")
    commands = parser.add_subparsers(title="commands", required=True, metavar="COMMAND")

    run = commands.add_parser("run", help="run a study with Snakemake, then show its table")
    run.add_argument("study", help="study id, e.g. quickstart")
    run.add_argument("--cores", default="all", help="processor cores (default: all)")
    run.add_argument("options", nargs="*", help="further options for Snakemake, after --")
    run.set_defaults(run=_run)

    show = commands.add_parser("show", help="print a study's table")
    show.add_argument("folder", type=Path, help="results folder of a study, e.g. results/quickstart")
    show.set_defaults(run=_show)

    check = commands.add_parser("check", help="validate a study file without running it")
    check.add_argument("file", type=Path)
    check.set_defaults(run=_check)

    methods = commands.add_parser("methods", help="list the methods, or show one")
    methods.add_argument("action", nargs="?", choices=["show"], help="show NAME")
    methods.add_argument("name", nargs="?")
    methods.set_defaults(run=_methods)

    loss = commands.add_parser("loss", help="a method's loss on pairs given as numbers, as JSON")
    loss.add_argument("method", help="name of a method or variant, e.g. madpo")
    loss.add_argument("--pairs", type=Path, required=True, metavar="FILE", help="JSON file of batches of pairs")
    loss.add_argument(
        "--set", dest="settings", action="extend", nargs="+", default=[], metavar="KEY=VALUE", help="parameters"
    )
    loss.set_defaults(run=_loss)

    select = commands.add_parser("select", help="the prompts that a strategy takes from a scored pool, as JSON")
    select.add_argument("strategy", help="name of an acquisition strategy, e.g. apl")
    select.add_argument(
        "--pool", type=Path, required=True, metavar="FILE", help=".parquet or .json file, one row for each prompt"
    )
    select.add_argument("--n", type=int, required=True, help="how many prompts are taken")
    select.add_argument("--seed", type=int, default=0, help="for strategies that draw (default: 0)")
    select.add_argument(
        "--set", dest="settings", action="extend", nargs="+", default=[], metavar="KEY=VALUE", help="parameters"
    )
    select.set_defaults(run=_select)

    judge = commands.add_parser("judge", help="serve a local judge, or calibrate one on published models")
    judge.add_argument("action", choices=["serve", "calibrate"])
    judge.add_argument("options", nargs=argparse.REMAINDER, help="see `marginbench judge serve --help`")
    judge.set_defaults(run=_judge)

    cost = commands.add_parser("cost", help="calls, tokens and price of a study's judges, before anything is sent")
    cost.add_argument("study", help="study id, e.g. quickstart, or a study file")
    cost.add_argument("--json", action="store_true", help="one JSON document instead of a table")
    cost.set_defaults(run=_cost)

    score = commands.add_parser("score", help="score existing judgments of a benchmark, as JSON")
    kinds = score.add_subparsers(required=True, metavar="BENCHMARK")
    for benchmark in BENCHMARKS:
        parts = importlib.import_module(f"marginbench.benchmarks.score_{benchmark}")
        kind = kinds.add_parser(benchmark.replace("_", "-"), help=parts.__doc__.splitlines()[0])
        parts.add_arguments(kind)
        kind.set_defaults(run=_score, parts=parts)

    compare = commands.add_parser("compare", help="compare two finished evaluations, as JSON")
    compared = compare.add_subparsers(required=True, metavar="WHAT")
    capability = compared.add_parser("capability", help="a tuned model beside its base: two lm-eval output folders")
    capability.add_argument("base", metavar="BASE_DIR")
    capability.add_argument("tuned", metavar="TUNED_DIR")
    capability.add_argument("--margin", type=float, help="non-inferiority margin, in the metric's unit, e.g. 0.01")
    capability.set_defaults(run=_compare_capability)
    scores = compared.add_parser("scores", help="win rates in two AlpacaEval annotation files with the same baseline")
    scores.add_argument("files", nargs=2, type=Path, metavar="FILE", help="annotations.json, plain or .gz: A, then B")
    scores.add_argument("--confidence", type=float, default=0.95, help="of the interval (default: 0.95)")
    scores.set_defaults(run=_compare_scores)

    generate = commands.add_parser("generate", help="write what is generated from the code: schemas, ARCHITECTURE.md")
    generate.add_argument("--check", action="store_true", help="only say whether anything is stale")
    generate.set_defaults(run=_generate)
    return parser


def _run(arguments: argparse.Namespace) -> int:
    if not Path("Snakefile").is_file():
        raise UserError("there is no Snakefile here; run from the project's folder")
    if "--config" not in arguments.options:
        from marginbench.dag.checks import read_yaml
        from marginbench.dag.plan import make_plan

        studies = make_plan(read_yaml("config.yaml"), Path.cwd(), "results").studies
        if arguments.study not in studies:
            raise UserError(f"unknown study `{arguments.study}`; {nearest(arguments.study, studies)}")
    folder = Path("results") / arguments.study
    snakemake = [sys.executable, "-m", "snakemake", arguments.study, "--quiet", "all"]
    print(
        f"marginbench: running `{arguments.study}` (finished work is kept; logs in logs/{arguments.study})", flush=True
    )
    result = subprocess.run([*snakemake, "--cores", str(arguments.cores), *arguments.options], check=False)
    if result.returncode:
        # Quiet as it was, Snakemake may have kept the reason to itself where no job got to say it.
        plan = subprocess.run([*snakemake[:-2], "--dry-run"], capture_output=True, text=True, check=False)
        if any(Path(".snakemake/locks").glob("*")):
            raise UserError(
                "another Snakemake works in this folder, or one was killed; if none is running: snakemake --unlock"
            )
        if plan.returncode:
            print("\n".join(plan.stderr.splitlines()[-12:]), file=sys.stderr)
        raise UserError(f"`{arguments.study}` is not complete; what is finished is kept, run the same command again")
    report, metrics = folder / "report.html", folder / "metrics.csv"
    if not report.exists() or report.stat().st_mtime < metrics.stat().st_mtime:
        subprocess.run([*snakemake, "--report", str(report)], check=True)
    return _show(argparse.Namespace(folder=folder))


def _show(arguments: argparse.Namespace) -> int:
    from marginbench.reporting.terminal import show

    show(arguments.folder)
    return 0


def _check(arguments: argparse.Namespace) -> int:
    from marginbench.dag.checks import load_studies, read_yaml
    from marginbench.judging.spec import load_judges

    judges = load_judges(ROOT / "resources" / "judges.yaml")
    mine = Path(arguments.file).resolve()
    shipped = sorted((ROOT / "studies").glob("*.yaml"))  # a study may extend one that stands before it
    before = shipped[: shipped.index(mine)] if mine in shipped else shipped
    studies = load_studies(read_yaml(ROOT / "config.yaml"), [*before, arguments.file], judges)
    study = list(studies.values())[-1]
    runs = (
        len(study.datasets)
        * len(study.models)
        * sum(len(study.seeds_of(entry)) for entry in [*study.methods, *study.arms])
    )
    print(f"{arguments.file}: study `{study.study}` is valid: {runs} training runs", file=sys.stderr)
    return 0


def _cost(arguments: argparse.Namespace) -> int:
    from marginbench.dag.checks import load_studies, read_yaml
    from marginbench.judging.cost import study_estimates, table
    from marginbench.judging.spec import load_judges

    judges = load_judges(ROOT / "resources" / "judges.yaml")
    files: list[Path] = sorted((ROOT / "studies").glob("*.yaml"))
    given = Path(arguments.study)
    if given.suffix in (".yaml", ".yml"):
        files = [*(file for file in files if file.resolve() != given.resolve()), given]
    studies = load_studies(read_yaml(ROOT / "config.yaml"), files, judges)
    study = list(studies.values())[-1] if given in files else studies.get(arguments.study)
    if study is None:
        raise UserError(f"unknown study `{arguments.study}`; {nearest(arguments.study, studies)}")
    estimates = study_estimates(study, judges)
    if arguments.json:
        print(json.dumps({"study": study.study, "judges": [estimate._asdict() for estimate in estimates]}))
        return 0
    print(table(estimates))
    print(
        "An upper estimate: tokens are characters / 4, answers count as long as they may be; what the ledger already "
        "holds will be free.",
        file=sys.stderr,
    )
    return 0


def _methods(arguments: argparse.Namespace) -> int:
    from marginbench.methods.pages import method_list, method_page

    if arguments.action == "show" and not arguments.name:
        raise UserError("methods show: which one? e.g. `marginbench methods show dpo`")
    print(method_page(arguments.name) if arguments.action else method_list())
    return 0


def _loss(arguments: argparse.Namespace) -> int:
    from marginbench.discovery import parse_settings
    from marginbench.methods.evaluate import evaluate, read_batches
    from marginbench.methods.registry import load_method

    method = load_method(arguments.method, parse_settings(arguments.settings))
    print(json.dumps({"batches": evaluate(method, read_batches(arguments.pairs))}, allow_nan=False))
    return 0


def _select(arguments: argparse.Namespace) -> int:
    from marginbench.discovery import parse_settings
    from marginbench.identity import stream
    from marginbench.selection.one_shot import read_pool, select
    from marginbench.selection.registry import load_strategy

    strategy = load_strategy(arguments.strategy, parse_settings(arguments.settings))
    table = read_pool(arguments.pool)
    try:
        ids = select(strategy, table, arguments.n, stream("select", arguments.seed))
    except UserError as error:
        raise UserError(f"{arguments.pool}: {error}") from error
    print(json.dumps({"ids": ids}))
    return 0


def _judge(arguments: argparse.Namespace) -> int:
    if arguments.action == "calibrate":
        from marginbench.reporting.calibrate import main as calibrate

        return calibrate(arguments.options)
    from marginbench.judging.server import main as serve

    return serve(arguments.options)


def _score(arguments: argparse.Namespace) -> None:
    print(json.dumps(arguments.parts.score(arguments), indent=1, allow_nan=False))


def _compare_capability(arguments: argparse.Namespace) -> None:
    from marginbench.reporting.compare_capability import compare_capability

    if arguments.margin is not None and not arguments.margin > 0:
        raise UserError(f"--margin {arguments.margin}: must be above 0")
    print(json.dumps(compare_capability(arguments.base, arguments.tuned, arguments.margin), indent=1, allow_nan=False))


def _compare_scores(arguments: argparse.Namespace) -> None:
    from marginbench.reporting.paired_scores import compare_scores

    found = compare_scores(*arguments.files, arguments.confidence)
    if not found["same_judge"]:
        print("the judge is not known to be the same in both files: not comparable", file=sys.stderr)
    print(json.dumps(found, indent=1, allow_nan=False))


def _generate(arguments: argparse.Namespace) -> int:
    from marginbench.generated import stale_files, write_generated

    if not arguments.check:
        for path in write_generated(ROOT):
            print(f"wrote {path}", file=sys.stderr)
        return 0
    stale = stale_files(ROOT)
    if stale:
        raise UserError(f"stale: {', '.join(stale)}; run `make schemas`")
    return 0


if __name__ == "__main__":
    sys.exit(main())
