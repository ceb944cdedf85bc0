"""The online comparison as text and LaTeX: a row per arm and seed, verdicts at equal budgets, labeller x judge."""

from collections.abc import Sequence
from pathlib import Path

import pandas as pd

from marginbench.files import write_text
from marginbench.reporting.catalog import Metric, describe, order_of
from marginbench.reporting.layout import BLANK, Cell, Panel
from marginbench.reporting.metrics import write_csv
from marginbench.reporting.online import BUDGETS, CELL, last_round
from marginbench.reporting.table import escape_tex, markdown_panel, tex_panel
from marginbench.statistics.equivalence import POWER
from marginbench.statistics.intervals import MIN_SEEDS, seeds_interval

MARK = "†"
SPENT = {"round": "rounds", "labels": "labels", "completions": "completions"}
SPENT |= {"generated_tokens": "tokens", "seconds": "seconds"}


def _name(metric: str, judge: str, flatters: bool) -> str:
    """A metric in words with the judge behind it, marked where the judge labelled the training pairs."""
    return ", ".join([describe(metric).head, *([judge] if judge else [])]) + MARK * bool(flatters)


def _title(key: Sequence[str]) -> str:
    _, dataset, model, labeller = key
    return f"{dataset}, {model}, labelled by {labeller}"


def _mean(metric: Metric, values: pd.Series, confidence: float) -> Cell:
    interval = seeds_interval(values.tolist(), confidence)
    if interval.low is None:
        return Cell(metric.show(interval.mean))
    low, high = max(interval.low, metric.bounds[0]), min(interval.high, metric.bounds[1])
    return Cell(metric.show(interval.mean), f"[{metric.show(low)}, {metric.show(high)}]")


def runs_panel(rows: pd.DataFrame, title: str, confidence: float, arms: Sequence[str] = ()) -> Panel:
    """Every run of one (dataset, model, labeller) at its last round: metrics, then what it had spent; means per arm."""
    flatters = set(rows.loc[rows["judge_is_labeller"], "judge"])
    measured = sorted(set(zip(rows["metric"], rows["judge"], strict=True)), key=lambda c: (*order_of(c[0]), c[1]))
    heads = []
    for metric, judge in measured:
        entry = describe(metric)
        heads.append(f"{_name(metric, judge, judge in flatters)} {entry.arrow}".strip())
    lines = []
    found = sorted(set(rows["arm"]))
    for arm in [*(name for name in arms if name in found), *(name for name in found if name not in arms)]:
        own = rows[rows["arm"] == arm]
        for seed, run in own.groupby("seed", sort=True):
            values = run.set_index(["metric", "judge"])["value"]
            cells = [Cell(describe(column[0]).show(values.get(column))) for column in measured]
            spent = [Cell(f"{run[name].iloc[0]:,.0f}") for name in SPENT]
            lines.append((f"{arm}, seed {seed}", (*cells, *spent)))
        cells = []
        for metric, judge in measured:
            values = own.loc[(own["metric"] == metric) & (own["judge"] == judge), "value"].dropna()
            cells.append(_mean(describe(metric), values, confidence) if len(values) else BLANK)
        spent = [Cell(f"{own.drop_duplicates('seed')[name].mean():,.0f}") for name in SPENT]
        lines.append((f"{arm}, mean of {own['seed'].nunique()}", (*cells, *spent)))
    return Panel(title, (*heads, *SPENT.values()), tuple(lines))


def _probability(p: float) -> str:
    return "–" if pd.isna(p) else "< 0.001" if p < 0.001 else f"{p:.3f}"


def _interval(metric: Metric, value: float, low: float, high: float) -> Cell:
    if pd.isna(low):
        return Cell(metric.show(value, signed=True))
    return Cell(metric.show(value, signed=True), f"[{metric.show(low, True)}, {metric.show(high, True)}]")


def verdict_panel(rows: pd.DataFrame, title: str) -> Panel:
    """Verdicts of one comparison in one (dataset, model, labeller): a line per metric, judge and budget held equal."""
    first = rows.iloc[0]
    level = f"{100 * (1 - 2 * first['alpha']):g} %"
    heads = (first["ours"], first["theirs"], f"Δ [{level}]", "margin", "p (TOST)", "p (no Δ)", "verdict", "could show")
    lines = []
    for row in rows.itertuples(index=False):
        metric, (words, form) = describe(row.metric), BUDGETS[row.budget]
        name = f"{_name(row.metric, row.judge, row.judge_is_labeller)}, equal {words}"
        if not pd.isna(row.at):
            name += f" ({form.format(row.at)})"
        cells = (
            Cell(metric.show(row.ours_mean)),
            Cell(metric.show(row.theirs_mean)),
            _interval(metric, row.difference, row.low, row.high),
            Cell(f"±{metric.show(row.margin)}"),
            Cell(_probability(row.p_tost)),
            Cell(_probability(row.p_difference)),
            Cell(row.verdict),
            BLANK if pd.isna(row.smallest_margin) else Cell(f"±{metric.show(row.smallest_margin)}"),
        )
        lines.append((name, cells))
    return Panel(title, heads, tuple(lines))


def matrix_panel(rows: pd.DataFrame, title: str) -> Panel | None:
    """Leads of one (dataset, model), a row per labeller and comparison, a column per judge; None for one labeller.

    `rows` are of `matrix_online`.
    """
    if rows["labeller"].nunique() < 2:
        return None
    metric, judges = describe("win_rate"), tuple(sorted(set(rows["judge"])))
    lines = []
    for (labeller, ours, theirs), own in rows.groupby(["labeller", "ours", "theirs"], sort=False):
        cells = []
        for judge in judges:
            row = own[own["judge"] == judge].iloc[0]
            shown = _interval(metric, row["difference"], row["low"], row["high"])
            cells.append(Cell(shown.value + MARK * bool(row["judge_is_labeller"]), shown.interval))
        lines.append((f"{labeller}: {ours} − {theirs}", tuple(cells)))
    return Panel(title, judges, tuple(lines))


def verdict_notes(verdicts: pd.DataFrame) -> list[str]:
    """What must be known before believing a verdict, most general first."""
    if verdicts.empty:
        return []
    alpha = float(verdicts["alpha"].iloc[0])
    notes = [
        f"Verdicts: equivalent where the {100 * (1 - 2 * alpha):g} % interval lies within the margin that was stated "
        f"beforehand; different where a two-sided test at {100 * alpha:g} % finds a difference; both where it is real "
        "and smaller than the margin; undecided where neither. Paired by seed, each row for itself, on these prompts.",
        f"Could show: smallest margin that these seeds would meet with {100 * POWER:g} % power if the arms were equal.",
        "At an equal budget both arms are read at the most that every run had spent, on the line between evaluations.",
    ]
    for (ours, theirs), rows in verdicts.groupby(["ours", "theirs"], sort=False):
        for arm, column in ((ours, "ours_from_start"), (theirs, "theirs_from_start")):
            early = [BUDGETS[name][0] for name in BUDGETS if rows.loc[rows["budget"] == name, column].any()]
            if early:
                what = " and ".join([", ".join(early[:-1]), early[-1]] if early[:-1] else early)
                notes.append(
                    f"{ours} against {theirs} at equal {what}: {arm} is read between start and first evaluation."
                )
    untested = verdicts[verdicts["reason"] != ""]
    for reason, rows in untested.groupby("reason", sort=False):
        names = []
        measured = ["metric", "judge", "labeller", "judge_is_labeller"]
        for (metric, judge, labeller, flatters), own in rows.groupby(measured, sort=False):
            equal = [BUDGETS[name][0] for name in BUDGETS if (own["budget"] == name).any()]
            at = f" at equal {', '.join(equal)}" if len(equal) < len(BUDGETS) else ""
            names.append(f"{_name(metric, judge, flatters)}, labelled by {labeller}{at}")
        notes.append(f"Not tested: {'; '.join(names)} ({reason}).")
    return notes


def online_panels(
    frame: pd.DataFrame, verdicts: pd.DataFrame, matrix: pd.DataFrame, confidence: float, arms: Sequence[str] = ()
) -> list[tuple[str, Panel]]:
    """Runs, verdicts and the labeller x judge matrix, each with the head of the column that names its rows.

    Args:
        frame: ONLINE_METRICS frame.
        verdicts: the frame of `compare_online`. matrix: that of `matrix_online`.
        confidence: level of the intervals of means.
        arms: order of the arms.
    """
    found = []
    for key, rows in last_round(frame).groupby(CELL, sort=True):
        found.append(("arm", runs_panel(rows, _title(key), confidence, arms)))
    for key, rows in verdicts.groupby([*CELL, "ours", "theirs"], sort=False):
        found.append(("at equal budget", verdict_panel(rows, f"{_title(key[:4])}: {key[4]} − {key[5]}")))
    for (_, dataset, model), rows in matrix.groupby(CELL[:3], sort=True):
        panel = matrix_panel(rows, f"{dataset}, {model}: lead in win rate (points), labeller by judge")
        found += [("labelled by", panel)] if panel else []
    return found


def online_notes(frame: pd.DataFrame, verdicts: pd.DataFrame, confidence: float) -> list[str]:
    """What must be known before believing the tables."""
    matrix = " and matrix" if frame["labeller"].nunique() > 1 else ""
    level = f"{100 * confidence:g} % t-intervals over {MIN_SEEDS} seeds or more"
    notes = [f"Runs at their last round; means{matrix} with {level}. Spent in the loop: evaluation is not counted."]
    if frame["judge_is_labeller"].any():
        notes.append(
            f"{MARK} This judge also labelled the training pairs, or scores with the weights that did: the arms were "
            "trained to please it."
        )
    return [*notes, *verdict_notes(verdicts)]


def online_markdown(
    frame: pd.DataFrame, verdicts: pd.DataFrame, matrix: pd.DataFrame, confidence: float, arms: Sequence[str] = ()
) -> str:
    """The panels as GitHub tables, remarks below; arguments as in `online_panels`."""
    found = online_panels(frame, verdicts, matrix, confidence, arms)
    lines = [line for first, panel in found for line in markdown_panel(panel, first)]
    lines += [f"- {note}" for note in online_notes(frame, verdicts, confidence)]
    return "\n".join([*lines, ""])


def online_tex(
    frame: pd.DataFrame, verdicts: pd.DataFrame, matrix: pd.DataFrame, confidence: float, arms: Sequence[str] = ()
) -> str:
    r"""The panels as booktabs tables in one `table*` float, remarks in the caption. Needs `\usepackage{booktabs}`."""
    lines = [r"% Needs \usepackage{booktabs}.", r"\begin{table*}", r"\centering", r"\footnotesize"]
    for first, panel in online_panels(frame, verdicts, matrix, confidence, arms):
        lines += tex_panel(panel, first)
    remarks = " ".join(map(escape_tex, online_notes(frame, verdicts, confidence)))
    lines += [rf"\caption{{{remarks}}}", rf"\label{{tab:{frame['study'].iloc[0]}:online}}", r"\end{table*}", ""]
    return "\n".join(lines)


def write_online(
    frame: pd.DataFrame,
    verdicts: pd.DataFrame,
    matrix: pd.DataFrame,
    *,
    confidence: float,
    md: str | Path,
    tex: str | Path,
    csv: str | Path,
    matrix_csv: str | Path,
    arms: Sequence[str] = (),
) -> None:
    """Write the comparison for people (Markdown) and papers (TeX), its verdicts and its matrix for machines (CSV)."""
    write_text(md, online_markdown(frame, verdicts, matrix, confidence, arms))
    write_text(tex, online_tex(frame, verdicts, matrix, confidence, arms))
    write_csv(verdicts, csv)
    write_csv(matrix, matrix_csv)
