"""Preference datasets from files and from the hub: read, checked row by row, with a report of every problem."""

from collections import defaultdict
from pathlib import Path
from typing import Any

import pandas as pd

from marginbench.data.layouts import layout_columns, parse_row, wanted_columns
from marginbench.data.problems import Problems, RowProblem
from marginbench.data.sources import Rows, read_file, read_hub
from marginbench.errors import UserError
from marginbench.identity import content_id
from marginbench.records import id_of_pair
from marginbench.study import FileCorpus, HubCorpus

COLUMNS = (
    "pair_id", "prompt_id", "prompt", "chosen", "rejected", "score_chosen", "score_rejected", "source_row",
)  # fmt: skip


def source_name(corpus: FileCorpus | HubCorpus) -> str:
    """What tables call the source: a file's name without its folder, or `id@revision:split`."""
    if isinstance(corpus, FileCorpus):
        return Path(corpus.path).name
    return f"{corpus.id}@{corpus.revision}:{corpus.split}"


def _check_columns(rows: Rows, wanted: list[str], layout: str, where: str) -> None:
    """A column that no row has is a mistake of the study, whatever it says about bad rows."""
    known: dict[str, None] = {}
    for _, row in rows:
        known.update(dict.fromkeys(map(str, row)))
    missing = [name for name in wanted if name not in known]
    if rows and missing:
        raise UserError(
            f"{where}: no preference data in layout `{layout}`: no row has the column "
            + " or ".join(f"`{name}`" for name in missing)
            + f"; the columns are {', '.join(list(known)[:12])}; set `columns` and `layout` of the corpus"
        )


def _mark_repeats(pairs: list[dict[str, Any]], problems: Problems) -> list[dict[str, Any]]:
    """Drop later copies of a pair, and every copy of a pair that also occurs with the opposite preference."""
    orders: dict[tuple, set[bool]] = defaultdict(set)
    keys = []
    for pair in pairs:
        swapped = pair["chosen"] > pair["rejected"]
        answers = sorted((pair["chosen"], pair["rejected"]))
        keys.append((pair["prompt_id"], *answers))
        orders[keys[-1]].add(swapped)
    kept, seen = [], set()
    for pair, key in zip(pairs, keys, strict=True):
        if len(orders[key]) == 2:
            problems.add("contradictory_pair", pair["source_row"])
        elif key in seen:
            problems.add("duplicate_pair", pair["source_row"])
        else:
            seen.add(key)
            kept.append(pair)
    return kept


def read_preferences(corpus: FileCorpus | HubCorpus) -> tuple[pd.DataFrame, dict[str, Any]]:
    """Pairs with columns pair_id, prompt_id, prompt (messages), chosen, rejected, ratings (or null), source_row.

    Also a report: rows read, pairs usable, and every kind of problem with its count and first places. Bad rows are
    dropped or refused as the corpus says. Raises UserError when the source can't be read, when a column is in no row,
    when rows are bad and `on_bad_rows` is `refuse`, and when no usable pair is left.
    """
    where = corpus.path if isinstance(corpus, FileCorpus) else f"dataset {source_name(corpus)}"
    rows, problems = read_file(corpus) if isinstance(corpus, FileCorpus) else read_hub(corpus)
    columns = layout_columns(corpus.columns, corpus.layout)
    if (columns.score_chosen is None) != (columns.score_rejected is None):
        raise UserError(f"{where}: name both `columns.score_chosen` and `columns.score_rejected`, or neither")
    _check_columns(rows, wanted_columns(columns), corpus.layout, where)
    unreadable = sum(len(places) for places in problems.places.values())
    pairs = []
    for number, row in rows:
        try:
            pair = parse_row(row, columns, corpus.layout, corpus.format)
        except RowProblem as problem:
            problems.add(problem.kind, number, problem.detail)
            continue
        pairs.append(
            {
                "pair_id": id_of_pair(pair.prompt, pair.chosen, pair.rejected),
                "prompt_id": content_id("prompt", pair.prompt),
                "prompt": pair.prompt,
                "chosen": pair.chosen,
                "rejected": pair.rejected,
                "score_chosen": pair.score_chosen,
                "score_rejected": pair.score_rejected,
                "source_row": number,
            }
        )
    pairs = _mark_repeats(pairs, problems)
    for pair in pairs:
        if pair["score_chosen"] is not None and pair["score_chosen"] <= pair["score_rejected"]:
            tie = pair["score_chosen"] == pair["score_rejected"]
            problems.add("rating_tie" if tie else "rating_contradicts_label", pair["source_row"])
    if corpus.on_bad_rows == "refuse" and problems.dropping():
        raise UserError(
            f"{where}: bad rows and `on_bad_rows: refuse`: {problems.sentence()}; mend them or set on_bad_rows: drop"
        )
    if not pairs:
        found = problems.sentence() or "it has no rows"
        raise UserError(f"{where}: no usable preference pair: {found}; check `layout`, `columns` and the file")
    report = {
        "source": source_name(corpus),
        "rows": len(rows) + unreadable,
        "usable": len(pairs),
        "prompts": len({pair["prompt_id"] for pair in pairs}),
        "on_bad_rows": corpus.on_bad_rows,
        "problems": problems.report(),
    }
    frame = pd.DataFrame(pairs, columns=list(COLUMNS))
    return frame.astype({"score_chosen": "float64", "score_rejected": "float64"}), report
