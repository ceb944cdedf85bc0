"""table.csv (a row per cell, for machines), table.md and table.tex (panels and claims, for people and papers)."""

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import pandas as pd

from marginbench.errors import UserError
from marginbench.files import write_text
from marginbench.reporting.claims import claim_lines, claim_panels
from marginbench.reporting.comparison import CELL_COLUMNS
from marginbench.reporting.layout import Panel, method_label, panels
from marginbench.reporting.metrics import write_csv
from marginbench.reporting.notes import notes
from marginbench.reporting.shared import shared_lines

TEXT_COLUMNS = [name for name in CELL_COLUMNS if name.endswith("_over")]
TEXT_COLUMNS += ["study", "dataset", "model", "generation", "method", "metric", "judge"]

_TEX = {
    "\\": r"\textbackslash{}",
    "&": r"\&",
    "%": r"\%",
    "$": r"\$",
    "#": r"\#",
    "_": r"\_",
    "{": r"\{",
    "}": r"\}",
    "~": r"\textasciitilde{}",
    "^": r"\textasciicircum{}",
    "−": "$-$",
    "–": "--",
    "Δ": r"$\Delta$",
    "↑": r"$\uparrow$",
    "↓": r"$\downarrow$",
    "†": r"$\dagger$",
    "±": r"$\pm$",
    "<": r"$<$",
    ">": r"$>$",
}


def read_cells(path: str | Path) -> pd.DataFrame:
    """Read table.csv; UserError if it is not one."""
    frame = pd.read_csv(
        path,
        dtype=dict.fromkeys(TEXT_COLUMNS, str),
        keep_default_na=False,
        na_values={name: [""] for name in CELL_COLUMNS if name not in TEXT_COLUMNS},
    )
    if list(frame.columns) != CELL_COLUMNS:
        raise UserError(f"{path}: not a table.csv of this version; delete it and run again")
    return frame


def escape_tex(text: str) -> str:
    """Text with every character that LaTeX would take as a command, or not have in its fonts, replaced."""
    return "".join(_TEX.get(letter, letter) for letter in text)


def _markdown(text: str) -> str:
    return text.replace("|", "\\|")


def markdown_panel(panel: Panel, first: str = "method") -> list[str]:
    """Lines of a GitHub table; `first` is the head of the column that names the rows."""
    lines = [f"**{_markdown(panel.title)}**", ""]
    lines.append("| " + " | ".join([first, *map(_markdown, panel.heads)]) + " |")
    lines.append("|" + "|".join(["---"] + ["---:"] * len(panel.heads)) + "|")
    for method, row in panel.rows:
        lines.append("| " + " | ".join([_markdown(method_label(method)), *(cell.line for cell in row)]) + " |")
    return [*lines, ""]


def to_markdown(cells: pd.DataFrame, shared: dict[str, Any], claims: pd.DataFrame) -> str:
    """The panels as GitHub tables, what is claimed, remarks and shared stages below."""
    lines = [f"# {shared['title']}", ""]
    for panel in panels(cells):
        lines += markdown_panel(panel)
    lines.append("Value [interval]; Δ: difference to the SFT start, paired; ↑ ↓: which direction is better.")
    lines += ["", *(f"- {note}" for note in notes(cells, shared)), ""]
    for panel in claim_panels(claims):
        lines += markdown_panel(panel)
    claimed = claim_lines(claims)
    if claimed:
        lines += [*(f"- {line}" for line in claimed), ""]
    stages = shared_lines(shared)
    if stages:
        lines += ["Shared stages:", "", *(f"- {line}" for line in stages), ""]
    return "\n".join(lines)


def _tex_cell(value: str, interval: str) -> str:
    return escape_tex(value) + (rf" {{\scriptsize {escape_tex(interval)}}}" if interval else "")


def tex_panel(panel: Panel, first: str = "method") -> list[str]:
    """Lines of a booktabs table; `first` is the head of the column that names the rows."""
    lines = [rf"\textbf{{{escape_tex(panel.title)}}}\\[2pt]", rf"\begin{{tabular}}{{l{'r' * len(panel.heads)}}}"]
    lines += [r"\toprule", " & ".join([escape_tex(first), *map(escape_tex, panel.heads)]) + r" \\", r"\midrule"]
    for method, row in panel.rows:
        values = [_tex_cell(cell.value, cell.interval) for cell in row]
        lines.append(" & ".join([escape_tex(method_label(method)), *values]) + r" \\")
    return [*lines, r"\bottomrule", r"\end{tabular}\\[8pt]"]


def to_tex(cells: pd.DataFrame, shared: dict[str, Any], claims: pd.DataFrame) -> str:
    r"""The panels as booktabs tables in one `table*` float, remarks in the caption. Needs `\usepackage{booktabs}`."""
    lines = [r"% Needs \usepackage{booktabs}.", r"\begin{table*}", r"\centering", r"\footnotesize"]
    for panel in [*panels(cells), *claim_panels(claims)]:
        lines += tex_panel(panel)
    explained = "Value [interval]; $\\Delta$: difference to the SFT start, paired."
    remarks = [*notes(cells, shared), *claim_lines(claims)]
    caption = " ".join([escape_tex(shared["title"]) + ".", explained, *map(escape_tex, remarks)])
    lines += [rf"\caption{{{caption}}}", rf"\label{{tab:{shared['study']}}}", r"\end{table*}", ""]
    return "\n".join(lines)


def write_tables(
    cells: pd.DataFrame,
    shared: dict[str, Any],
    claims: pd.DataFrame,
    *,
    csv: str | Path,
    claims_csv: str | Path,
    md: str | Path,
    tex: str | Path,
) -> Sequence[str]:
    """Write the three forms of the table and claims.csv; returns the remarks under the table."""
    write_csv(cells, csv)
    write_csv(claims, claims_csv)
    write_text(md, to_markdown(cells, shared, claims))
    write_text(tex, to_tex(cells, shared, claims))
    return notes(cells, shared)
