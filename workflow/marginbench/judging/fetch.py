"""`python -m marginbench.judging.fetch`: bring the official prompts that no installed package holds.

Each comes from one file at a pinned commit and is written as a JSON list of messages to resources/fetched_prompts. What
counts is the hash of that list, which is demanded here and again by every judge that names it; the judge's text is thus
the official one, wherever the file came from. Placeholders get this project's names.
"""

import argparse
import hashlib
import json
import sys
import urllib.request
from collections.abc import Callable
from pathlib import Path
from typing import NamedTuple

import yaml

from marginbench.errors import UserError
from marginbench.files import write_text
from marginbench.judging.templates import fetched_folder

ARENA_HARD = (
    "https://raw.githubusercontent.com/lmarena/arena-hard-auto/7f1b7f5dd6ce53e1f8530220ceb452b7019a8056/"
    "config/judge_config.yaml"
)
MT_BENCH = (
    "https://raw.githubusercontent.com/lm-sys/FastChat/0e6e7fdc78bf64aceea1508694ce4e6472810b8b/"
    "fastchat/llm_judge/data/judge_prompts.jsonl"
)


class Official(NamedTuple):
    """One official prompt: its file, its name there (None where the file holds one), our names, and its hash."""

    url: str
    name: str | None
    placeholders: dict[str, str]
    sha256: str


OFFICIAL = {
    "arena_hard.json": Official(
        ARENA_HARD,
        None,
        {"question_1": "question", "answer_1": "answer_a", "answer_2": "answer_b"},
        "81f6f18a78f1cd846d33b6309d6fe4c62b0840d9872541435c5d39a7720bb46d",
    ),
    "mt_bench_turn_1.json": Official(
        MT_BENCH, "single-v1", {}, "2fb95e70f08d876b4052124745c9a3c61c71496a34954bc405bc4360ca5756ec"
    ),
    "mt_bench_turn_1_reference.json": Official(
        MT_BENCH,
        "single-math-v1",
        {"ref_answer_1": "reference"},
        "55a34d2ba5cf80ad6723c252d9521513bd4a0c7391b4ba145d33a278173ba605",
    ),
    "mt_bench_turn_2.json": Official(
        MT_BENCH, "single-v1-multi-turn", {}, "fc10454867a03d66017322138ef6b462eb62c91af548e9c1ae02604ef8fd94ab"
    ),
    "mt_bench_turn_2_reference.json": Official(
        MT_BENCH,
        "single-math-v1-multi-turn",
        {"ref_answer_1": "reference_1", "ref_answer_2": "reference_2"},
        "fb8665e1b8465afd0b06e19d8cf69ddda889a949cf38ef6789575f829820709b",
    ),
}
"""File name -> where it comes from. v0.1's prompt is also v2.0's, but for creative writing."""


def as_messages(text: str, official: Official) -> str:
    """The prompt in an upstream file, as the JSON text that is stored. UserError when the file does not hold it."""
    try:
        if official.name is None:
            entry = yaml.safe_load(text)
        else:
            entry = {row["name"]: row for row in map(json.loads, text.splitlines())}[official.name]
        template = entry["prompt_template"]
        user = template if isinstance(template, str) else template[0]
        messages = [{"role": "system", "content": entry["system_prompt"]}, {"role": "user", "content": user}]
    except (TypeError, KeyError, IndexError, ValueError, yaml.YAMLError) as error:
        raise UserError(f"{official.url}: holds no prompt {official.name or ''}") from error
    for theirs, ours in official.placeholders.items():
        messages[1]["content"] = messages[1]["content"].replace("{" + theirs + "}", "{" + ours + "}")
    return json.dumps(messages, ensure_ascii=False, indent=1) + "\n"


def download(url: str) -> str:
    """The text at an address. UserError in one line when it can't be had."""
    try:
        with urllib.request.urlopen(url, timeout=60) as reply:
            return str(reply.read().decode("utf-8"))
    except (OSError, ValueError) as error:
        raise UserError(
            f"{url}: cannot be fetched ({error}); judges whose id ends in _own_prompt need no fetching"
        ) from error


def fetch(folder: Path, get: Callable[[str], str] = download) -> list[Path]:
    """Write every official prompt into `folder`. UserError when a text is not the one that is demanded."""
    texts = {url: get(url) for url in dict.fromkeys(official.url for official in OFFICIAL.values())}
    ready = {}
    for name, official in OFFICIAL.items():
        text = as_messages(texts[official.url], official)
        found = hashlib.sha256(text.encode()).hexdigest()
        if found != official.sha256:
            raise UserError(
                f"{official.url}: the prompt for {name} has sha256 {found}, not {official.sha256}; not written"
            )
        ready[folder / name] = text
    for path, text in ready.items():
        write_text(path, text)
    return list(ready)


def main() -> int:
    """Fetch all; exit code 2 with one line when it fails."""
    argparse.ArgumentParser(description=__doc__.splitlines()[0]).parse_args()
    try:
        for path in fetch(fetched_folder()):
            print(f"wrote {path}", file=sys.stderr)
    except UserError as error:
        print(f"error: {error}", file=sys.stderr)
        return 2
    return 0


if __name__ == "__main__":
    sys.exit(main())
