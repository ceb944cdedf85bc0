"""Official prompts: extracted from upstream's files, demanded by hash, and what published judges were really shown."""

import gzip
import json
import os
import re
from pathlib import Path

import pytest
from marginbench.errors import UserError
from marginbench.judging import fetch
from marginbench.judging.prompts import fill
from marginbench.judging.spec import load_judges
from marginbench.judging.templates import FETCHED

ROOT = Path(__file__).parents[2]
PARITY = ROOT.parent / "shared" / "parity"
PUBLISHED = [
    (PARITY / "mt_bench/edge_duplicates_and_error/gpt-4_single.jsonl.gz", 320),
    (PARITY / "arena_hard/judge_text/gpt-4-1106-preview__mistral-7b__10q.jsonl.gz", 20),
]
PART = {
    "single-v1": "mt_bench_turn_1.json",
    "single-math-v1": "mt_bench_turn_1_reference.json",
    "single-v1-multi-turn": "mt_bench_turn_2.json",
    "single-math-v1-multi-turn": "mt_bench_turn_2_reference.json",
}

YAML = 'system_prompt: "Be\\n\\nfair."\nprompt_template: ["Q {question_1}\\nA {answer_1}\\nB {answer_2}"]\n'
JSONL = "".join(
    json.dumps({"name": name, "system_prompt": "s\n\n", "prompt_template": f"{name} {{ref_answer_1}} {{answer}}"})
    + "\n"
    for name in PART
)


def upstream(url):
    return YAML if url == fetch.ARENA_HARD else JSONL


def test_a_prompt_is_taken_from_upstreams_file():
    arena = json.loads(fetch.as_messages(YAML, fetch.OFFICIAL["arena_hard.json"]))
    assert arena == [
        {"role": "system", "content": "Be\n\nfair."},
        {"role": "user", "content": "Q {question}\nA {answer_a}\nB {answer_b}"},
    ]
    rating = json.loads(fetch.as_messages(JSONL, fetch.OFFICIAL["mt_bench_turn_1_reference.json"]))
    assert rating[1]["content"] == "single-math-v1 {reference} {answer}"
    assert rating[0]["content"] == "s\n\n"  # as upstream sends it


@pytest.mark.parametrize("text", ["", "[]", "a: 1", '{"name": "other", "prompt_template": "x"}'])
def test_a_file_without_the_prompt(text):
    for official in fetch.OFFICIAL.values():
        with pytest.raises(UserError, match="holds no prompt"):
            fetch.as_messages(text, official)


def test_another_text_is_refused_and_nothing_is_written(tmp_path):
    with pytest.raises(UserError, match=r"has sha256 [0-9a-f]{64}, not 81f6f18a"):
        fetch.fetch(tmp_path, upstream)
    assert not list(tmp_path.iterdir())


def test_an_address_that_does_not_answer():
    with pytest.raises(UserError, match=r"127.0.0.1:9/x: cannot be fetched .*_own_prompt"):
        fetch.download("http://127.0.0.1:9/x")


def test_the_judges_demand_the_fetched_hashes():
    judges = load_judges(ROOT / "resources" / "judges.yaml").values()
    arena = {judge.prompt_sha256 for judge in judges if "fetched:arena_hard.json" in judge.templates.values()}
    assert arena == {fetch.OFFICIAL["arena_hard.json"].sha256}


@pytest.mark.parametrize(("path", "count"), PUBLISHED, ids=["mt_bench", "arena_hard"])
def test_published_judges_were_shown_these_prompts(path, count):
    folder = Path(os.environ.get("MARGINBENCH_PROMPTS") or FETCHED)
    if not path.is_file() or not (folder / "arena_hard.json").is_file():
        pytest.skip("needs ../shared/parity, and the official prompts (`python -m marginbench.judging.fetch`)")
    shown = []
    with gzip.open(path, "rt", encoding="utf-8") as lines:
        for row in map(json.loads, lines):
            if "games" in row:
                shown += [("arena_hard.json", game["user_prompt"]) for game in row["games"]]
            else:
                shown.append((PART[row["judge"][1]], row["user_prompt"]))
    assert len(shown) == count
    for name, text in shown:
        template = (folder / name).read_text(encoding="utf-8")
        found = re.fullmatch(_pattern(json.loads(template)[1]["content"]), text, re.DOTALL)
        assert found, text[:200]
        assert fill(template, found.groupdict(), "plain")[1]["content"] == text


def _pattern(template):
    """A template as a regular expression; a field that stands in it twice must be the same text twice."""
    seen = set()

    def group(found):
        name = found[1]
        again = name in seen
        seen.add(name)
        return f"(?P={name})" if again else f"(?P<{name}>.*?)"

    return re.sub(r"\\\{(\w+)\\\}", group, re.escape(template))
