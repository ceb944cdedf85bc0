"""Where the prompt templates of a judge are: with the library, in an installed package, or among the fetched ones."""

import hashlib
import importlib.util
import os
from collections.abc import Mapping
from pathlib import Path

from marginbench.errors import UserError
from marginbench.identity import PACKAGE_ROOT

PROMPTS = Path(__file__).resolve().parent / "prompts"
"""Folder of the prompt templates that come with the library."""

FETCHED = PACKAGE_ROOT.parents[1] / "resources" / "fetched_prompts"
"""Folder of official prompts that `judging/fetch.py` brought; MARGINBENCH_PROMPTS names another."""


def fetched_folder() -> Path:
    """The folder that fetched prompts are written to and read from."""
    return Path(os.environ.get("MARGINBENCH_PROMPTS") or FETCHED)


def template_path(source: str) -> Path:
    """The file behind `NAME` (with the library), a path, `package:PACKAGE/FILE` or `fetched:FILE`.

    Raises UserError when the package is not installed. The file itself need not exist.
    """
    if source.startswith("fetched:"):
        return fetched_folder() / source.removeprefix("fetched:")
    if not source.startswith("package:"):
        return PROMPTS / source
    package, _, file = source.removeprefix("package:").partition("/")
    found = importlib.util.find_spec(package)  # finds it without importing it
    if found is None or not found.submodule_search_locations:
        raise UserError(f"the prompt `{source}` comes with the package {package}; install it")
    return Path(found.submodule_search_locations[0], file)


def read_templates(sources: Mapping[str, str], sha256: str) -> dict[str, str]:
    """Part -> text. UserError when a file is missing or they are not those of which `sha256` is stated."""
    paths = {part: template_path(source) for part, source in sources.items()}
    for part, path in paths.items():
        if not path.is_file():
            fetch = sources[part].startswith("fetched:")
            mend = "run `python -m marginbench.judging.fetch`" if fetch else "mend `prompt`"
            raise UserError(f"prompt template {path} does not exist; {mend}")
    texts = {part: path.read_bytes() for part, path in paths.items()}
    found = prompts_sha256(texts)
    if found != sha256:
        names = ", ".join(path.name for path in paths.values())
        raise UserError(
            f"template {names} has sha256 {found}, the entry says {sha256}; a changed prompt is another judge: give it "
            "a new id and this hash"
        )
    return {part: text.decode("utf-8") for part, text in texts.items()}


def prompts_sha256(texts: Mapping[str, bytes]) -> str:
    """What an entry states as `prompt_sha256`: of the one template, or of the lines `part sha256` of several."""
    hashes = {part: hashlib.sha256(text).hexdigest() for part, text in texts.items()}
    if list(hashes) == ["prompt"]:
        return hashes["prompt"]
    return hashlib.sha256("".join(f"{part} {hashes[part]}\n" for part in sorted(hashes)).encode()).hexdigest()
