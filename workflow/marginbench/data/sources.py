"""Raw rows from local files (JSONL, JSON, parquet, plain or .gz) and from the Hugging Face hub."""

import gzip
import io
import json
import zlib
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq

from marginbench.data.problems import Problems
from marginbench.errors import UserError
from marginbench.study import FileCorpus, HubCorpus

SUFFIXES = {".jsonl": "jsonl", ".ndjson": "jsonl", ".json": "json", ".parquet": "parquet"}
KNOWN = "known: " + ", ".join(SUFFIXES) + ", each also with .gz"

Rows = list[tuple[int, dict[str, Any]]]
"""Rows with their number in the source, counted from 0."""


def _one_line(error: BaseException, limit: int = 200) -> str:
    text = " ".join(str(error).split()) or type(error).__name__
    return text if len(text) <= limit else text[: limit - 3] + "..."


def _read_bytes(path: Path) -> tuple[bytes, str]:
    if path.is_dir():
        raise UserError(f"{path}: is a folder; `path` must name one file ({KNOWN})")
    if not path.exists():
        raise UserError(f"{path}: there is no such file; check `path` of the corpus")
    name = path.name.lower()
    zipped = name.endswith(".gz")
    kind = SUFFIXES.get(Path(name.removesuffix(".gz")).suffix)
    if kind is None:
        raise UserError(f"{path}: the ending of the name says no known format; {KNOWN}")
    try:
        raw = path.read_bytes()
        if zipped:
            raw = gzip.decompress(raw)
    except (EOFError, gzip.BadGzipFile, zlib.error) as error:
        raise UserError(f"{path}: the gzip file is damaged or cut short ({_one_line(error)}); get it again") from error
    except OSError as error:
        raise UserError(f"{path}: can't be read ({error.strerror})") from error
    if not raw.strip():
        raise UserError(f"{path}: the file is empty; a preference file needs at least one row")
    return raw, kind


def _parse(text: str) -> Any:
    """json.loads whose every failure (too deep, too many digits) is a ValueError."""
    try:
        return json.loads(text)
    except RecursionError as error:
        raise ValueError("nested too deeply") from error


def _jsonl(raw: bytes, problems: Problems) -> Iterator[tuple[int, Any]]:
    for number, line in enumerate(raw.removeprefix(b"\xef\xbb\xbf").split(b"\n")):
        if not line.strip():
            continue
        try:
            yield number, _parse(line.decode("utf-8"))
        except UnicodeDecodeError as error:
            problems.add("not_utf8", number, f"byte 0x{line[error.start]:02x}")
        except ValueError as error:
            problems.add("not_json", number, _one_line(error, 80))


def _json(raw: bytes, path: Path) -> Iterator[tuple[int, Any]]:
    try:
        rows = _parse(raw.decode("utf-8-sig"))
    except UnicodeDecodeError as error:
        line = raw.count(b"\n", 0, error.start) + 1
        raise UserError(f"{path}, line {line}: not UTF-8 (byte 0x{raw[error.start]:02x}); save it as UTF-8") from error
    except ValueError as error:
        hint = "; one object a line? then name it .jsonl" if "Extra data" in str(error) else ""
        raise UserError(f"{path}: not valid JSON ({_one_line(error)}){hint}") from error
    if not isinstance(rows, list):
        raise UserError(f"{path}: holds a {type(rows).__name__}, not a list of rows; write [row, row, ...]")
    yield from enumerate(rows)


def _parquet(raw: bytes, path: Path, problems: Problems) -> Iterator[tuple[int, Any]]:
    try:
        table = pq.read_table(io.BytesIO(raw))
    except (pa.ArrowException, OSError, ValueError) as error:
        raise UserError(f"{path}: not a readable parquet file ({_one_line(error)}); get it again") from error
    for number in range(table.num_rows):
        try:
            yield number, table.slice(number, 1).to_pylist()[0]
        except UnicodeDecodeError:
            problems.add("not_utf8", number, "a string of the parquet file")


def read_file(corpus: FileCorpus) -> tuple[Rows, Problems]:
    """Rows of a local file and the problems met on the way (lines that are not JSON, not UTF-8 or no objects).

    Raises UserError when the file as a whole can't be read: missing, a folder, empty, damaged, unknown ending.
    """
    path = Path(corpus.path)
    raw, kind = _read_bytes(path)
    problems = Problems("line" if kind == "jsonl" else "row")
    if kind == "jsonl":
        found = _jsonl(raw, problems)
    else:
        found = _json(raw, path) if kind == "json" else _parquet(raw, path, problems)
    rows: Rows = []
    for number, row in found:
        if isinstance(row, dict):
            rows.append((number, row))
        else:
            problems.add("wrong_type", number, f"the row is a {type(row).__name__}, not an object")
    return rows, problems


def read_hub(corpus: HubCorpus) -> tuple[Rows, Problems]:
    """Rows of one split of a hub dataset at its revision (or of a local folder that `datasets` can load).

    Raises UserError when the dataset, the revision or the split can't be had; offline that means: is not in the cache.
    """
    import datasets  # slow to import, and local corpora do without it

    try:
        data = datasets.load_dataset(corpus.id, name=corpus.config_name, revision=corpus.revision, split=corpus.split)
        rows = [(number, dict(row)) for number, row in enumerate(data)]
    except Exception as error:  # a boundary: the library and its transports raise dozens of types
        raise UserError(
            f"dataset {corpus.id} (revision {corpus.revision}, split {corpus.split}) can't be loaded: "
            f"{type(error).__name__}: {_one_line(error)}; check id, revision, config_name and split, or fetch it while "
            "online"
        ) from error
    return rows, Problems("row")
