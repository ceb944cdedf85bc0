"""Ours beside the printed number: difference, whether our interval covers it, and whether the judge is the same."""

from collections.abc import Mapping, Sequence

import pandas as pd

from marginbench.errors import UserError
from marginbench.reporting.published import range_of

NEEDED = ("method", "metric", "value", "ci_low", "ci_high", "judge")
AXES = ("dataset", "model", "setting", "method", "metric")

SAME, OTHER, UNKNOWN, NO_JUDGE = "yes", "no", "unknown", "no judge"
MARKS = {SAME: "", NO_JUDGE: "", OTHER: "other judge", UNKNOWN: "judge unknown"}
"""What stands beside every comparison, by whether the judge is the same."""

BESIDE_COLUMNS = [
    *AXES,
    "row",
    "ours",
    "ours_low",
    "ours_high",
    "judge",
    "printed",
    "printed_low",
    "printed_high",
    "printed_se",
    "printed_judge",
    "relation",
    "decimals",
    "unit",
    "difference",
    "covers",
    "same_judge",
    "mark",
    "verified",
    "source",
    "note",
]


def same_judge(ours: str, printed: str) -> str:
    """SAME or OTHER by id, NO_JUDGE where neither number has one, UNKNOWN where only one says who judged."""
    if not ours and not printed:
        return NO_JUDGE
    if not ours or not printed:
        return UNKNOWN
    return SAME if ours == printed else OTHER


def covers(low: float | None, high: float | None, printed: pd.Series) -> bool | None:
    """Whether our interval holds a number that is printed so; None where there is no interval."""
    if low is None or high is None or pd.isna(low) or pd.isna(high):
        return None
    if printed["relation"] == "<":
        return bool(low < printed["value"])
    where = range_of(printed)
    return bool(low <= where.high and where.low <= high)


def _checked(ours: pd.DataFrame, keys: Sequence[str]) -> None:
    missing = [name for name in NEEDED if name not in ours.columns]
    if missing:
        raise UserError(f"our numbers have no column `{missing[0]}`; they are compared by {', '.join(NEEDED)}")
    twice = ours[ours.duplicated([*keys, "judge"])]
    if len(twice):
        cell = ", ".join(str(twice.iloc[0][name]) for name in keys)
        raise UserError(f"our numbers hold the cell {cell} twice under one judge; keep the axes that tell them apart")


def _unique(rows: pd.DataFrame, key: tuple, keys: Sequence[str]) -> pd.DataFrame:
    if rows["judge"].duplicated().any():
        absent = [name for name in AXES if name not in keys and rows[name].nunique() > 1]
        told = " and ".join(f"`{name}`" for name in absent) or "one target at a time"
        raise UserError(f"several printed numbers for {', '.join(map(str, key))}; compare by {told}")
    return rows


def _line(ours: pd.Series | None, printed: pd.Series | None) -> dict[str, object]:
    line: dict[str, object] = dict.fromkeys(BESIDE_COLUMNS)
    for side in (printed, ours):
        line.update({name: side[name] for name in AXES if side is not None and name in side.index})
    if ours is not None:
        line.update(ours=ours["value"], ours_low=ours["ci_low"], ours_high=ours["ci_high"], judge=ours["judge"])
    if printed is not None:
        names = {"value": "printed", "ci_low": "printed_low", "ci_high": "printed_high", "se": "printed_se"}
        line.update({new: printed[old] for old, new in names.items()})
        copied = ("row", "relation", "decimals", "unit", "verified", "source", "note")
        line.update({"printed_judge": printed["judge"], **{name: printed[name] for name in copied}})
    if ours is not None and printed is not None:
        line["same_judge"] = same_judge(ours["judge"], printed["judge"])
        line["mark"] = MARKS[line["same_judge"]]
        if pd.notna(ours["value"]) and printed["relation"] != "<":
            line["difference"] = float(ours["value"]) - float(printed["value"])
        line["covers"] = covers(ours["ci_low"], ours["ci_high"], printed)
    return line


def beside(ours: pd.DataFrame, published: pd.DataFrame, stands_for: Mapping[str, str] | None = None) -> pd.DataFrame:
    """A row per cell of ours or of the printed table, columns BESIDE_COLUMNS, ours first in their order.

    `ours` has NEEDED, in the printed unit, and those of dataset, model and setting by which cells differ; `ci_low` and
    `ci_high` are the interval over seeds. A ground-truth scorer counts as a judge: its id stands in `judge`.
    `published` holds the rows of one target; only the first-ranked number of a cell is used. `stands_for` names the
    printed method behind an entry of ours that is called otherwise. Where a cell is printed under several judges, the
    one that is also ours is taken, or else each. `mark` is empty only where the judge is the same or none was needed.

    Raises UserError where a column is missing or a cell is not unique.
    """
    keys = [name for name in AXES if name in ours.columns]
    _checked(ours, keys)
    ours = ours.fillna({"judge": ""})
    printed = published[published["rank"] == 1]
    cells = dict(list(printed[printed["method"] != ""].groupby(keys, sort=False)))
    lines, used = [], set()
    for _, row in ours.iterrows():
        method = (stands_for or {}).get(row["method"], row["method"])
        key = tuple(method if name == "method" else row[name] for name in keys)
        if key not in cells:
            lines.append(_line(row, None))
            continue
        found = _unique(cells[key], key, keys)
        judged_alike = found[found["judge"] == row["judge"]]
        for place, other in (judged_alike if len(judged_alike) else found).iterrows():
            used.add(place)
            lines.append(_line(row, other))
    lines += [_line(None, row) for place, row in printed.iterrows() if place not in used]
    return pd.DataFrame(lines, columns=BESIDE_COLUMNS)


HOW = {
    "draft": "from a draft",
    "digitised": "read from a figure",
    "third party": "from a third party",
    "derived": "derived",
}
"""What a table says of a number that was not read as such in a primary source."""

SHOWN_COLUMNS = ["ours", "interval over seeds", "printed", "difference", "covered", "same judge", "note"]


def shown(frame: pd.DataFrame) -> pd.DataFrame:
    """What `beside` gives as text for a table: SHOWN_COLUMNS after row, axes; every comparison carries its mark."""
    rows = []
    for _, line in frame.iterrows():
        digits = 2 if pd.isna(line["decimals"]) else int(line["decimals"])
        mark = f" ({line['mark']})" if _text(line["mark"]) else ""
        low, high = _number(line["ours_low"], digits), _number(line["ours_high"], digits)
        relation = {"<": "< ", "~": "about "}.get(line["relation"], "")
        covered = "" if pd.isna(line["covers"]) else ("yes" if line["covers"] else "no") + mark
        difference = _number(line["difference"], digits, signed=True)
        rows.append(
            {
                **{name: _text(line[name]) for name in ("row", *AXES)},
                "ours": _number(line["ours"], digits),
                "interval over seeds": f"[{low}, {high}]" if low and high else "",
                "printed": relation + _number(line["printed"], digits) if pd.notna(line["printed"]) else "",
                "difference": difference + mark if difference else "",
                "covered": covered,
                "same judge": _text(line["same_judge"]),
                "note": "; ".join(filter(None, [HOW.get(line["verified"], ""), _text(line["note"])])),
            }
        )
    return pd.DataFrame(rows, columns=["row", *AXES, *SHOWN_COLUMNS])


def _text(value: object) -> str:
    return "" if pd.isna(value) else str(value)


def _number(value: float | None, digits: int, signed: bool = False) -> str:
    return "" if value is None or pd.isna(value) else f"{value:{'+' if signed else ''}.{digits}f}"
