"""Single files that a study names, local or on the hub at a pinned revision: brought, checked by hash, read."""

import gzip
import json
import zlib
from pathlib import Path
from typing import Any

from marginbench.errors import UserError
from marginbench.identity import file_sha256
from marginbench.study import GivenFile, HubFile


def given_path(given: GivenFile) -> Path:
    """Where a named file lies; a hub file is brought into the hub's own cache unless it is there already.

    Raises UserError with one line when there is no such file, or it is not the one whose hash the study states.
    """
    if not isinstance(given, HubFile):
        path = Path(given.path).expanduser()
        if not path.is_file():
            raise UserError(f"{given.path}: there is no such file; give a path relative to the working directory")
        return path
    from huggingface_hub import hf_hub_download

    where = f"{given.file} of the {given.kind} {given.id} at revision {given.revision}"
    try:
        path = Path(hf_hub_download(given.id, given.file, revision=given.revision, repo_type=given.kind))
    except Exception as error:  # the hub client raises a dozen kinds; all of them mean: not here
        reason = str(error).strip().splitlines()[0] if str(error).strip() else ""
        raise UserError(
            f"{where} is neither in the local cache nor could it be fetched ({type(error).__name__}: {reason}); "
            "check id, revision and file, or fetch it once with the network on"
        ) from error
    if given.sha256 is not None and file_sha256(path) != given.sha256:
        raise UserError(f"{where} has sha256 {file_sha256(path)}, the study says {given.sha256}; one of them is wrong")
    return path


def read_text_file(path: Path) -> str:
    """A UTF-8 text file, plain or .gz; UserError with one line when it cannot be read as one."""
    try:
        raw = path.read_bytes()
        return (gzip.decompress(raw) if path.name.endswith(".gz") else raw).decode("utf-8")
    except (EOFError, gzip.BadGzipFile, zlib.error) as error:
        raise UserError(f"{path}: the gzip file is damaged or cut short; get it again") from error
    except UnicodeDecodeError as error:
        raise UserError(f"{path}: is not UTF-8 text ({error.reason} at byte {error.start})") from error
    except OSError as error:
        raise UserError(f"{path}: can't be read ({error.strerror})") from error


def read_records(path: Path) -> list[tuple[int, dict[str, Any]]]:
    """JSON objects of a file with the line (or place in the list) of each, from 1: a JSON list, or a JSON per line."""
    text = read_text_file(path)
    if text.lstrip().startswith("["):
        try:
            found = list(enumerate(json.loads(text), start=1))
        except (ValueError, RecursionError) as error:
            raise UserError(f"{path}: is not valid JSON ({' '.join(str(error).split())})") from error
    else:
        found = []
        for number, line in enumerate(text.splitlines(), start=1):
            if line.strip():
                try:
                    found.append((number, json.loads(line)))
                except (ValueError, RecursionError) as error:
                    reason = " ".join(str(error).split())
                    raise UserError(f"{path}: line {number} is not valid JSON ({reason})") from error
    if not found:
        raise UserError(f"{path}: holds no rows")
    for number, row in found:
        if not isinstance(row, dict):
            raise UserError(f"{path}: row {number} is not a JSON object")
    return found
