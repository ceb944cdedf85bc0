"""Printed numbers: `resources/published/*.csv` read and checked, and set beside ours without hiding the judge.

resources/published/README.md explains the columns.
"""

import csv
from collections.abc import Mapping
from pathlib import Path
from typing import Literal

import pandas as pd
from pydantic import BaseModel, ConfigDict, Field, ValidationError, field_validator, model_validator

from marginbench.errors import UserError
from marginbench.reporting.rounding import Range, printed_range

NOT_NUMBERS = frozenset({"targets.csv", "disagreements.csv"})
"""Files of the folder that hold no printed numbers."""

KEY = ["target", "row", "dataset", "model", "setting", "metric", "judge", "rank"]
JUDGED = frozenset({"win_rate", "length_controlled_winrate", "adjusted_win_rate", "true_reward"})
"""Metrics, without their benchmark, that mean nothing without the judge (or scorer) that gave them."""


class PrintedNumber(BaseModel):
    """One printed number: where it stands, what it is, and how it came to us."""

    model_config = ConfigDict(extra="forbid", frozen=True, str_strip_whitespace=True)

    paper: str = Field(pattern=r"^\d{4}\.\d{5}$")
    version: str = Field(min_length=1)
    where: str = Field(min_length=1)
    target: str = Field(pattern=r"^(table|figure)_[a-z0-9_]+$")
    row: str = Field(min_length=1)
    method: str
    dataset: str
    model: str
    setting: str
    metric: str = Field(min_length=1)
    value: float = Field(allow_inf_nan=False)
    decimals: int = Field(ge=0, le=6)
    relation: Literal["=", "<", "~"]
    unit: str
    se: float | None = Field(ge=0)
    sd: float | None = Field(ge=0)
    ci_low: float | None
    ci_high: float | None
    ci_level: float | None = Field(gt=0, lt=100)
    n_seeds: int | None = Field(ge=1)
    judge: str
    decoding: str
    source: str = Field(min_length=1)
    verified: Literal["read", "draft", "digitised", "third party", "derived"]
    read_error: float | None = Field(gt=0)
    repeats: str
    rank: int = Field(ge=1)
    note: str

    @field_validator("se", "sd", "ci_low", "ci_high", "ci_level", "n_seeds", "read_error", mode="before")
    @classmethod
    def _empty_is_missing(cls, value: object) -> object:
        return None if value == "" else value

    @model_validator(mode="after")
    def _hangs_together(self) -> "PrintedNumber":
        if abs(round(self.value, self.decimals) - self.value) > 1e-9:
            raise ValueError(f"`value` {self.value} has more than the {self.decimals} digits that `decimals` says")
        if (self.ci_low is None) != (self.ci_high is None):
            raise ValueError("an interval needs both `ci_low` and `ci_high`")
        if self.ci_low is not None and not self.ci_low <= self.value <= self.ci_high:
            raise ValueError("`value` lies outside `ci_low` to `ci_high`")
        if self.metric.rpartition("/")[2] in JUDGED and not self.judge:
            raise ValueError(f"`{self.metric}` needs a `judge`")
        if (self.verified == "digitised") != (self.read_error is not None):
            raise ValueError("`read_error` belongs to digitised numbers, and to each of them")
        return self


COLUMNS = list(PrintedNumber.model_fields)


def _file(path: Path) -> list[dict[str, object]]:
    with path.open(encoding="utf-8", newline="") as lines:
        reader = csv.DictReader(lines, strict=True)
        if reader.fieldnames != COLUMNS:
            wrong = sorted(set(COLUMNS) ^ set(reader.fieldnames or [])) or ["their order"]
            raise UserError(f"{path}: not a table of printed numbers; columns differ in {', '.join(map(str, wrong))}")
        rows = []
        for row in reader:
            try:
                rows.append(PrintedNumber.model_validate(row).model_dump())
            except ValidationError as error:
                found = error.errors()[0]
                column = ".".join(map(str, found["loc"]))
                message = found["msg"].removeprefix("Value error, ")
                place = f"column `{column}`: " if column else ""
                raise UserError(f"{path}: line {reader.line_num}: {place}{message}") from error
        return rows


def read_published(folder: str | Path) -> pd.DataFrame:
    """All printed numbers of a folder, columns COLUMNS, in the order of files and lines.

    Raises UserError with file and line for a missing or unknown column, a value of the wrong type, a row without a
    source or its judge, a number printed twice, and a second opinion (`rank` 2) on a number that has no first.
    """
    paths = sorted(path for path in Path(folder).glob("*.csv") if path.name not in NOT_NUMBERS)
    if not paths:
        raise UserError(f"{folder}: no printed numbers here; they are read from resources/published")
    frame = pd.DataFrame([row for path in paths for row in _file(path)], columns=COLUMNS)
    numbers = ["se", "sd", "ci_low", "ci_high", "ci_level", "read_error"]
    frame[numbers] = frame[numbers].astype(float)
    frame["n_seeds"] = frame["n_seeds"].astype("Int64")
    twice = frame[frame.duplicated(KEY)]
    if len(twice):
        raise UserError(f"{folder}: printed twice: {_name(twice.iloc[0])}; give the other source the next `rank`")
    ranks = frame.groupby(KEY[:-1], sort=False)["rank"].agg(["max", "size"])
    gaps = ranks[ranks["max"] != ranks["size"]]
    if len(gaps):
        raise UserError(f"{folder}: `rank` has a gap at {', '.join(filter(None, gaps.index[0]))}; count from 1")
    return frame


def _name(row: pd.Series) -> str:
    return ", ".join(str(row[name]) for name in KEY if row[name] != "")


def range_of(row: pd.Series | Mapping) -> Range:
    """What a printed number can have been before it was rounded or read from a figure."""
    error = None if pd.isna(row["read_error"]) else float(row["read_error"])
    return printed_range(float(row["value"]), int(row["decimals"]), error)


TARGET_COLUMNS = ["target", "study", "paper", "shows", "cells", "printed"]


def read_targets(folder: str | Path) -> pd.DataFrame:
    """targets.csv: a row per table or figure rule, columns TARGET_COLUMNS; UserError on other columns or equal ids."""
    path = Path(folder) / "targets.csv"
    try:
        frame = pd.read_csv(path, dtype={"study": str, "paper": str}, keep_default_na=False)
    except FileNotFoundError as error:
        raise UserError(f"{path}: no such file; the targets of the studies are listed there") from error
    if list(frame.columns) != TARGET_COLUMNS:
        raise UserError(f"{path}: columns must be {', '.join(TARGET_COLUMNS)}")
    if frame["target"].duplicated().any():
        raise UserError(f"{path}: target `{frame['target'][frame['target'].duplicated()].iloc[0]}` is listed twice")
    return frame
