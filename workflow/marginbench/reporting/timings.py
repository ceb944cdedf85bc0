"""What each job took, from the `benchmark:` files of Snakemake. Kept apart from metrics.csv: times never repeat."""

import json
from collections.abc import Iterable
from pathlib import Path

import pandas as pd

from marginbench.errors import UserError

COLUMNS = {
    "s": "seconds",
    "cpu_time": "cpu_seconds",
    "max_rss": "peak_rss_mb",
    "mean_load": "mean_load",
    "io_in": "read_mb",
    "io_out": "written_mb",
}
"""Snakemake's column -> ours. Memory and transfer are in MiB, as psutil and Snakemake give them."""


def _read(path: Path) -> pd.DataFrame:
    if path.suffix == ".jsonl":
        return pd.DataFrame(
            [json.loads(line) for line in path.read_text(encoding="utf-8").splitlines() if line.strip()]
        )
    return pd.read_csv(path, sep="\t", na_values=["-", "NA"])


def collect_timings(paths: Iterable[str | Path], root: str | Path | None = None) -> pd.DataFrame:
    """One row per benchmark file: `job` (the path below `root`, without suffix) and the columns of COLUMNS.

    Repeats of a job are averaged; a value that Snakemake could not measure (a job under about a second) stays null.
    """
    rows = []
    for path in sorted(map(Path, paths)):
        try:
            frame = _read(path)
        except (ValueError, OSError) as error:
            raise UserError(f"{path}: not a Snakemake benchmark file ({error}); delete it") from error
        if "s" not in frame.columns or frame.empty:
            raise UserError(f"{path}: not a Snakemake benchmark file (no column `s`); delete it")
        job = path.relative_to(root) if root is not None and path.is_relative_to(root) else path
        row: dict[str, object] = {"job": job.with_suffix("").as_posix()}
        for theirs, ours in COLUMNS.items():
            values = (
                pd.to_numeric(frame[theirs], errors="coerce") if theirs in frame.columns else pd.Series(dtype=float)
            )
            row[ours] = float(values.mean()) if values.notna().any() else None
        rows.append(row)
    return pd.DataFrame(rows, columns=["job", *COLUMNS.values()])
