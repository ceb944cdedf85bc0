"""Calls to a judge and entries of judges for tests that need a server with bad manners."""

import hashlib

from marginbench.judging.spec import JudgeSpec
from marginbench.judging.templates import template_path
from openai_server import MODEL


def remote(url, **changes):
    """An entry of a judge that is already there, at `url`."""
    prompt = template_path("pairwise_sentiment.txt")
    return JudgeSpec.model_validate(
        {
            "id": "remote",
            "kind": "openai",
            "model": MODEL,
            "model_date": "2026-11-01",
            "base_url": url,
            "prompt": prompt.name,
            "prompt_sha256": hashlib.sha256(prompt.read_bytes()).hexdigest(),
            "price": {"input_per_million": 1000.0, "output_per_million": 0.0, "date": "2026-11-01"},
            "concurrency": 4,
            "timeout_s": 60.0,
            **changes,
        }
    )


def call(i, **changes):
    """Call number i, answers shown in the order baseline, method."""
    return {
        "question_id": f"q{i}",
        "turn": 1,
        "order": "baseline_first",
        "question": f"question {i}",
        "answers": [f"answer {i} of b", f"answer {i} of a"],
        "answer_ids": [f"b{i}", f"a{i}"],
        "messages": [{"role": "user", "content": f"call {i}"}],
        **changes,
    }


def number(request):
    """Which call a request belongs to."""
    return int(request["messages"][0]["content"].split()[1])
