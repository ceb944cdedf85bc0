"""The closing screen: the comparison in at most 100 columns, what its intervals mean, and where the files lie.

Reads table.csv, claims.csv and shared.json only; neither torch nor matplotlib is imported.
"""

import textwrap
from pathlib import Path

from rich.box import SIMPLE_HEAD
from rich.console import Console
from rich.table import Table
from rich.text import Text

from marginbench.errors import UserError
from marginbench.files import read_json
from marginbench.reporting.claims import claim_lines, claim_panels, read_claims
from marginbench.reporting.layout import Panel, method_label, panels
from marginbench.reporting.notes import notes
from marginbench.reporting.shared import shared_lines
from marginbench.reporting.table import read_cells

WIDTH = 100
GAP = 3
"""Blank characters between columns."""
FILES = (
    ("table", ("table.md", "table.csv", "table.tex")),
    ("claims", ("claims.csv",)),
    ("figures", ("figures/reward_kl.png", "figures/learning_curves.png")),
    ("metrics", ("metrics.csv", "wide.csv", "metrics.parquet")),
    ("report", ("report.html",)),
)


def _column_width(panel: Panel, column: int) -> int:
    texts = [text for _, row in panel.rows for text in (row[column].value, row[column].interval)]
    return max(len(text) for text in [*texts, *_words(panel.heads[column])])


def _words(head: str) -> list[str]:
    """Pieces that a head may be broken into: a unit and an arrow stay together, `(%) ↑`."""
    pieces: list[str] = []
    for word in head.split():
        if pieces and (word in "↑↓" or pieces[-1] == "Δ"):
            pieces[-1] += f" {word}"
        else:
            pieces.append(word)
    return pieces


def _wrapped(head: str, width: int) -> str:
    lines: list[str] = []
    for piece in _words(head):
        if lines and len(lines[-1]) + 1 + len(piece) <= width:
            lines[-1] += f" {piece}"
        else:
            lines.append(piece)
    return "\n".join(lines)


def _names_width(panel: Panel) -> int:
    return max(len(text) for text in ("method", *(method_label(method) for method, _ in panel.rows)))


def split_columns(panel: Panel, width: int) -> list[list[int]]:
    """Columns of a panel in groups, each of which fits `width` characters beside the methods' names."""
    groups: list[list[int]] = [[]]
    used = _names_width(panel)
    for column in range(len(panel.heads)):
        need = _column_width(panel, column) + GAP
        if groups[-1] and used + need > width:
            groups.append([])
            used = _names_width(panel)
        groups[-1].append(column)
        used += need
    return groups


def _table(panel: Panel, columns: list[int]) -> Table:
    # The box draws one character between columns, the padding adds the rest of GAP.
    table = Table(box=SIMPLE_HEAD, padding=(0, GAP - 1, 0, 0), pad_edge=False, show_edge=False)
    table.add_column("method", no_wrap=True, min_width=_names_width(panel))
    for column in columns:
        width = _column_width(panel, column)
        table.add_column(_wrapped(panel.heads[column], width), justify="right", width=width, no_wrap=True)
    for method, row in panel.rows:
        cells = []
        for column in columns:
            text = Text(row[column].value)
            if row[column].interval:
                text.append("\n" + row[column].interval, style="dim")
            cells.append(text)
        table.add_row(method_label(method), *cells)
    return table


def show(study_dir: str | Path, console: Console | None = None) -> None:
    """Print the table of a study, the remarks under it and the paths of its files."""
    folder = Path(study_dir)
    for name in ("table.csv", "claims.csv", "shared.json"):
        if not (folder / name).is_file():
            raise UserError(f"{folder / name}: not there yet; run `snakemake {folder.name}` first")
    console = console or Console(width=WIDTH, highlight=False)
    cells, shared = read_cells(folder / "table.csv"), read_json(folder / "shared.json")
    claims = read_claims(folder / "claims.csv")
    console.print(Text(shared["title"], style="bold"))
    console.print()
    for panel in [*panels(cells), *claim_panels(claims)]:
        console.print(Text(panel.title, style="bold"))
        for columns in split_columns(panel, min(WIDTH, console.width)):
            console.print(_table(panel, columns))
            console.print()
    console.print("[interval] below each value. Δ: difference to the SFT start, paired.", markup=False)
    for line in [*notes(cells, shared), *claim_lines(claims), *shared_lines(shared)]:
        wrapped = textwrap.fill(line, min(WIDTH, console.width), initial_indent="- ", subsequent_indent="  ")
        console.print(Text(wrapped), soft_wrap=True)
    console.print()
    for label, names in FILES:
        present = [str(folder / name) for name in names if (folder / name).is_file()]
        if present:
            console.print(Text(f"{label:>8}  " + "  ".join(present)), soft_wrap=True)
