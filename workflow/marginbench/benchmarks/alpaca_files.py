"""AlpacaEval's official files: annotations and model outputs, read with every row checked, and written.

A row that cannot be right stops the reading: a preference outside [1, 2] would be dropped by the package in silence,
and an instruction that occurs twice would be merged with itself.
"""

import gzip
import json
import math
import zlib
from collections import Counter
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from marginbench.errors import UserError
from marginbench.files import write_json

ANNOTATION_TEXTS = ("instruction", "output_1", "output_2", "generator_1", "generator_2")
OUTPUT_TEXTS = ("instruction", "output", "generator")


def read_annotations(path: str | Path) -> list[dict[str, Any]]:
    """Rows of an `annotations.json` (plain or .gz; further keys are kept), in the order of the file.

    Raises UserError for a file that is none, a row that `check_annotations` refuses, an instruction that occurs twice,
    and more than one baseline, method or annotator in a file.
    """
    rows = read_list(path)
    check_annotations(rows, str(path))
    _unique_instructions(rows, str(path))
    for key in ("generator_1", "generator_2", "annotator"):
        names = sorted({str(row[key]) for row in rows if row.get(key) is not None})
        if len(names) > 1:
            raise UserError(f"{path}: `{key}` has {len(names)} values, {names[0]} and {names[1]} among them; split it")
    return rows


def write_annotations(path: str | Path, rows: Sequence[dict[str, Any]]) -> None:
    """Write an official `annotations.json`; the same checks as when it is read, but instructions may repeat."""
    check_annotations(rows, str(path))
    write_json(path, list(rows))


def read_model_outputs(path: str | Path) -> list[dict[str, Any]]:
    """Rows of a `model_outputs.json` (plain or .gz): instruction, output, generator, and whatever else they carry."""
    rows = read_list(path)
    _check_texts(rows, OUTPUT_TEXTS, str(path))
    _unique_instructions(rows, str(path))
    return rows


def write_model_outputs(
    path: str | Path, answers: Sequence[dict[str, Any]], *, generator: str, dataset: str = "in_domain"
) -> None:
    """Write rows of an answers file (`prompt_text`, `text`) as an official `model_outputs.json`.

    Raises UserError when one question was answered more than once: upstream merges on the instruction.
    """
    rows = [
        {"instruction": row["prompt_text"], "output": row["text"], "generator": generator, "dataset": dataset}
        for row in answers
    ]
    _unique_instructions(rows, str(path))
    write_json(path, rows)


def read_list(path: str | Path) -> list[Any]:
    """The non-empty JSON list in a file, plain or gzip (told by its first bytes)."""
    try:
        raw = Path(path).read_bytes()
        if raw.startswith(b"\x1f\x8b"):
            raw = gzip.decompress(raw)
        value = json.loads(raw.decode("utf-8-sig"))
    except (EOFError, gzip.BadGzipFile, zlib.error) as error:
        raise UserError(f"{path}: the gzip file is damaged or cut short; get it again") from error
    except OSError as error:
        raise UserError(f"{path}: can't be read ({error.strerror or error})") from error
    except (ValueError, RecursionError) as error:
        raise UserError(f"{path}: not valid JSON ({' '.join(str(error).split())[:120]}); get it again") from error
    if not isinstance(value, list) or not value:
        raise UserError(f"{path}: a JSON list of rows is expected; is this an AlpacaEval file?")
    return value


def check_annotations(rows: Sequence[Any], where: str = "annotations") -> None:
    """UserError that names the first row without its texts, or whose preference is not null, 0 or within [1, 2]."""
    _check_texts(rows, (*ANNOTATION_TEXTS, "preference"), where)
    for number, row in enumerate(rows):
        value = row["preference"]
        if value is None:
            continue
        if isinstance(value, bool) or not isinstance(value, int | float):
            raise UserError(
                f"{where}: row {number} (from 0): preference is {value!r:.40}; a number from 1 to 2 or null"
            )
        if isinstance(value, float) and math.isnan(value):
            raise UserError(
                f"{where}: row {number} (from 0): preference is NaN; write null for a verdict that was not read"
            )
        if value != 0 and not 1 <= value <= 2:
            raise UserError(
                f"{where}: row {number} (from 0): preference {value:g} is outside 1 to 2 (0 is a draw in old files)"
            )


def _check_texts(rows: Sequence[Any], keys: Sequence[str], where: str) -> None:
    for number, row in enumerate(rows):
        if not isinstance(row, dict):
            raise UserError(
                f"{where}: row {number} (from 0): not an object of keys and values; is this an AlpacaEval file?"
            )
        for key in keys:
            if key not in row:
                raise UserError(
                    f"{where}: row {number} (from 0): the key `{key}` is missing; is this an AlpacaEval file?"
                )
            if key != "preference" and not isinstance(row[key], str):
                raise UserError(f"{where}: row {number} (from 0): `{key}` is {row[key]!r:.40}; it must be a text")


def _unique_instructions(rows: Sequence[dict[str, Any]], where: str) -> None:
    repeated = [text for text, count in Counter(row["instruction"] for row in rows).items() if count > 1]
    if repeated:
        raise UserError(
            f"{where}: {len(repeated)} instructions occur more than once, first {repeated[0]!r:.60}; keep one each"
        )
