"""The ledger: every reply of every judge, in one SQLite file that concurrent jobs, methods and studies share.

Write-ahead log with `synchronous=NORMAL`: a committed reply has been handed to the operating system, so killing the
process loses nothing; a power cut may lose the last seconds, which are then asked again, and never damages the file
(docs/decisions/0090-judge-client-and-ledger.md). The file must lie on a local disk.
"""

import json
import sqlite3
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from marginbench.errors import UserError

BUSY_S = 60.0
"""How long a job waits for another one's commit, which takes a fraction of a millisecond."""

FORMAT = 1

_COLUMNS = ("judge", "judge_version", "endpoint", "reason", "price", "time")
"""Keys of a row that are columns too, for people who look into the file."""

_SCHEMA = f"""
CREATE TABLE IF NOT EXISTS judgments (
    id INTEGER PRIMARY KEY, key TEXT NOT NULL, payer TEXT NOT NULL, answered INTEGER NOT NULL, row TEXT NOT NULL,
    {", ".join(f"{name} AS (json_extract(row, '$.{name}'))" for name in _COLUMNS)}
);
CREATE UNIQUE INDEX IF NOT EXISTS one_verdict ON judgments (key) WHERE answered;
CREATE INDEX IF NOT EXISTS tries ON judgments (key);
CREATE TABLE IF NOT EXISTS spent (
    payer TEXT NOT NULL, judge TEXT NOT NULL, price REAL NOT NULL, PRIMARY KEY (payer, judge)
) WITHOUT ROWID;
"""
_INSERT = "INSERT INTO judgments (key, payer, answered, row) VALUES (?, ?, ?, ?)"
_SPEND = "INSERT INTO spent VALUES (?, ?, ?) ON CONFLICT DO UPDATE SET price = price + excluded.price"
OUTRUN = "another job had committed its verdict meanwhile"


def is_answered(row: dict[str, Any]) -> bool:
    """Whether a judgment holds a verdict of any kind."""
    return any(row.get(name) is not None for name in ("preference", "label", "rating"))


class Ledger:
    """Judgment rows by key. Only an answered row is ever given back; nulls are kept as history and asked again.

    Args:
        path: the SQLite file; made with its folder where it does not exist.
        payer: who pays for what is put in, for example a study; what `spent` and a budget are counted by.

    Every method raises UserError with one line for a file that is no ledger, is locked, or cannot be written.
    """

    def __init__(self, path: str | Path, payer: str = "") -> None:
        self.path, self.payer = Path(path), payer
        with self._plainly():
            self.path.parent.mkdir(parents=True, exist_ok=True)
            # Autocommit: every transaction below is an explicit one.
            self._db = sqlite3.connect(self.path, timeout=BUSY_S, isolation_level=None)
            if self._db.execute("PRAGMA journal_mode").fetchone()[0] != "wal":
                self._db.execute("PRAGMA journal_mode = WAL")
            self._db.execute("PRAGMA synchronous = NORMAL")
            found = self._db.execute("PRAGMA user_version").fetchone()[0]
            if found not in (0, FORMAT):
                raise UserError(f"ledger {self.path}: has format {found}, not {FORMAT}; update marginbench or move it")
            if found == 0:
                self._db.executescript(f"BEGIN IMMEDIATE; {_SCHEMA} PRAGMA user_version = {FORMAT}; COMMIT;")

    def get(self, keys: Iterable[str]) -> dict[str, dict[str, Any]]:
        """Answered rows, by key; a key without a verdict is left out."""
        found = {}
        with self._plainly():
            for key in keys:
                row = self._db.execute("SELECT row FROM judgments WHERE key = ? AND answered", (key,)).fetchone()
                if row is not None:
                    found[key] = json.loads(row[0])
        return found

    def put(self, row: dict[str, Any]) -> dict[str, Any]:
        """Commit a row; returns the row that stands for its key from now on.

        That is another one where another job's verdict was committed in the meantime: then this reply is kept as a try,
        because it was paid for, and theirs counts.
        """
        key, price = row["key"], row["price"]
        with self._plainly(), self._db:
            self._db.execute("BEGIN IMMEDIATE")
            standing = self.get([key]).get(key) if is_answered(row) else None
            kept = row if standing is None else {**row, "reason": OUTRUN}
            answered = is_answered(row) and standing is None
            text = json.dumps(kept, ensure_ascii=False, allow_nan=False)
            self._db.execute(_INSERT, (key, self.payer, int(answered), text))
            if price:
                self._db.execute(_SPEND, (self.payer, row["judge"], price))
        return row if standing is None else standing

    def tries(self, key: str) -> list[dict[str, Any]]:
        """Every reply to a call, oldest first: nulls with their reasons, and the one that answered."""
        with self._plainly():
            rows = self._db.execute("SELECT row FROM judgments WHERE key = ? ORDER BY id", (key,))
            return [json.loads(row) for (row,) in rows]

    def spent(self, judge: str | None = None, payer: str | None = None) -> float:
        """US dollars paid so far, nulls included: in all, for one judge's id, by one payer."""
        with self._plainly():
            return self._db.execute(
                "SELECT TOTAL(price) FROM spent WHERE judge = IFNULL(?, judge) AND payer = IFNULL(?, payer)",
                (judge, payer),
            ).fetchone()[0]

    def close(self) -> None:
        """Close the file; the last job to close it folds the write-ahead log into it."""
        self._db.close()

    def __enter__(self) -> "Ledger":
        return self

    def __exit__(self, *exception: object) -> None:
        self.close()

    @contextmanager
    def _plainly(self) -> Iterator[None]:
        try:
            yield
        except (sqlite3.Error, OSError) as error:
            raise UserError(
                f"ledger {self.path}: {error}; what was committed is kept, name a writable file on a local disk"
            ) from error
