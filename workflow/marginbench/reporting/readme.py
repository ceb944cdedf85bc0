"""The parts of results/README.md that are made from code: columns of every table, metrics of the catalog."""

import re
from collections.abc import Mapping

import pyarrow as pa

from marginbench.errors import UserError
from marginbench.records import ALL_TABLES, Table
from marginbench.reporting.catalog import CATALOG, Metric
from marginbench.reporting.claims import COLUMN_DOCS
from marginbench.reporting.comparison import CELL_COLUMNS, GROUP
from marginbench.reporting.online import COLUMN_DOCS as VERDICT_DOCS
from marginbench.reporting.online import MATRIX_DOCS

DIRECTIONS = {"higher": "higher is better", "lower": "lower is better", "neither": "neither way"}


def _type(kind: pa.DataType) -> str:
    if pa.types.is_list(kind):
        inner = "messages" if pa.types.is_struct(kind.value_type) else str(kind.value_type)
        return f"list of {inner}"
    return {"double": "float", "int64": "integer", "bool": "true/false"}.get(str(kind), str(kind))


def _columns(table: Table) -> list[str]:
    lines = [f"### `{table.name}`", "", f"One row is {table.row}; key: {', '.join(f'`{k}`' for k in table.key)}.", ""]
    lines += ["| column | type | what it holds |", "|---|---|---|"]
    for name, column in table.columns.items():
        doc = column.doc.replace("|", "\\|") + (" (may be missing)" if column.nullable else "")
        lines.append(f"| `{name}` | {_type(column.type)} | {doc} |")
    return [*lines, ""]


def columns_section() -> str:
    """Columns of every parquet table that passes between rules."""
    return "\n".join(line for table in ALL_TABLES for line in _columns(table))


def _metric(metric: Metric) -> str:
    unit = {"%": "per cent" if metric.scale == 1 else "share, 0 to 1", "": "–"}.get(metric.unit, metric.unit)
    return f"| `{metric.id}` | {metric.label} | {unit} | {DIRECTIONS[metric.better]} | {metric.meaning} |"


def metrics_section() -> str:
    """Every metric of the catalog: how it is called in tables, its unit as stored, its direction, what it is."""
    lines = ["| metric | in tables | unit as stored | direction | meaning |", "|---|---|---|---|---|"]
    return "\n".join([*lines, *map(_metric, CATALOG), ""])


def cells_section() -> str:
    """Columns of table.csv."""
    meaning = {
        "mean": "mean over seeds (within one seed: the run's value)",
        "vs_start": "difference to the SFT start, paired by seed, within one seed by item; of a win rate: minus 50",
        "vs_dpo": "difference to the entry `dpo`, paired in the same way",
    }
    parts = {"": "", "_low": ": lower end of its interval", "_high": ": upper end", "_over": ""}
    lines = ["| column | what it holds |", "|---|---|"]
    for name in CELL_COLUMNS:
        if name in GROUP:
            doc = "as in `metrics`"
        elif name == "seeds":
            doc = "training seeds with a value"
        elif name == "items":
            doc = "fewest items (questions, documents) behind one seed's value"
        else:
            stem = next(stem for stem in meaning if name.startswith(stem))
            part = name.removeprefix(stem)
            doc = f"`{stem}`{parts[part]}" if part else meaning[stem]
            doc = (
                f"units of that interval: `seeds`, `items`, or `none` where there is none ({stem})"
                if (part == "_over")
                else doc
            )
        lines.append(f"| `{name}` | {doc} |")
    return "\n".join([*lines, ""])


def claims_section() -> str:
    """Columns of claims.csv."""
    return _docs(COLUMN_DOCS)


def verdicts_section() -> str:
    """Columns of online_verdicts.csv."""
    return _docs(VERDICT_DOCS)


def matrix_section() -> str:
    """Columns of online_matrix.csv."""
    return _docs(MATRIX_DOCS)


def _docs(docs: Mapping[str, str]) -> str:
    lines = ["| column | what it holds |", "|---|---|", *(f"| `{name}` | {doc} |" for name, doc in docs.items())]
    return "\n".join([*lines, ""])


SECTIONS = {
    "columns": columns_section,
    "metrics": metrics_section,
    "cells": cells_section,
    "claims": claims_section,
    "verdicts": verdicts_section,
    "matrix": matrix_section,
}


def refresh(text: str) -> str:
    """results/README.md with its generated sections (between `<!-- NAME -->` and `<!-- end NAME -->`) made anew.

    Raises UserError when a section's marks are missing.
    """
    for name, make in SECTIONS.items():
        pattern = re.compile(rf"(<!-- {name} -->\n).*?(<!-- end {name} -->)", re.DOTALL)
        if not pattern.search(text):
            raise UserError(f"results/README.md: the marks `<!-- {name} -->` and `<!-- end {name} -->` are missing")
        body = make()
        text = pattern.sub(lambda found, body=body: f"{found[1]}\n{body}\n{found[2]}", text)
    return text
