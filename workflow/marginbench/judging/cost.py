"""What judging will cost, before anything is sent: calls, tokens and price.

Tokens of a text are its characters / 4, rounded up. That is no tokenizer's count, but needs no download; on two
published AlpacaEval runs (claude-2.1, gpt35_turbo_instruct) it lies 19 and 18 % above the tokens that GPT-4 billed.
Replies count as long as the entry says they usually are (`typical_tokens`), and at most as long as they may be
(`max_tokens`). Where the texts do not exist yet, answers count as long as they may be.
"""

from collections.abc import Container, Iterator, Mapping
from typing import Any, NamedTuple

from marginbench.judging.calls import Call
from marginbench.judging.prompts import Messages
from marginbench.judging.spec import JudgeSpec
from marginbench.study import START, ReviewsCorpus, Study

CHARACTERS = 4
"""Characters of a token."""

VERDICTS = {"arena_hard": ("arena_v01", "arena_v20"), "mt_bench": ("rating",)}
"""Benchmark -> verdicts that its judges give; any other benchmark compares pairs."""

PAIRWISE = ("logprobs", "ranking")


class Lengths(NamedTuple):
    """A benchmark's prompts, and mean tokens (characters / 4) of what its own files bring into a call."""

    prompts: int
    question: int
    baseline: int


OFFICIAL = {
    "alpaca_eval": Lengths(805, 41, 512),
    "arena_hard v0.1": Lengths(500, 102, 464),
    "arena_hard v2.0": Lengths(750, 260, 1024),
    "mt_bench": Lengths(80, 75, 0),
}
"""Measured on the official questions and on the baselines' stored answers (gpt4_1106_preview; gpt-4-0314; o3-mini and,
for creative writing, gemini-2.0-flash). MT-Bench: the longer turn's question; references are left out (190 a turn in 30
of 80)."""


class Estimate(NamedTuple):
    """What one judge will be asked for one benchmark. Prices in US dollars."""

    judge: str
    benchmark: str
    calls: int
    known: int
    tokens_in: int
    tokens_out: int
    price: float
    price_at_most: float


def tokens(text: str) -> int:
    """Tokens of a text by the rule of this module."""
    return -(-len(text) // CHARACTERS)


def reply_tokens(spec: JudgeSpec) -> int:
    """Usual length of a reply."""
    return min(spec.typical_tokens or spec.decoding.max_tokens, spec.decoding.max_tokens)


def predict(spec: JudgeSpec, call: Call) -> float:
    """US dollars that a call will usually cost."""
    return spec.price.of(_shown(call["messages"]), reply_tokens(spec))


def estimate(
    spec: JudgeSpec, calls: Mapping[str, Messages], known: Container[str] = (), benchmark: str = ""
) -> Estimate:
    """Cost of calls whose texts exist, by key. Keys in `known` (what the ledger holds) are free."""
    new = [messages for key, messages in calls.items() if key not in known]
    return _estimate(spec, benchmark, len(calls), len(calls) - len(new), sum(map(_shown, new)))


def study_estimates(study: Study, judges: Mapping[str, JudgeSpec]) -> list[Estimate]:
    """What a study asks of each judge, from the study alone; an upper estimate, as no answer exists yet.

    The answers of every method under every seed and generation are judged. Evaluations inside online runs and the
    labelling of their pairs are not counted.
    """
    found = []
    for name, benchmark in _benchmarks(study).items():
        own = getattr(benchmark, "judges", None) or study.judges
        for spec in (judges[judge] for judge in own):
            if spec.verdict in VERDICTS.get(name, PAIRWISE):
                calls, tokens_in = _asked(study, name, benchmark, spec)
                found.append(_estimate(spec, name, calls, 0, tokens_in))
    return found


def table(estimates: list[Estimate]) -> str:
    """The estimates for people, with their sum."""
    head = ("judge", "benchmark", "calls", "known", "tokens in", "tokens out", "price", "at most")
    rows = [
        (e.judge, e.benchmark, *(f"{n:,}" for n in e[2:6]), f"${e.price:,.2f}", f"${e.price_at_most:,.2f}")
        for e in estimates
    ]
    total = [sum(e[i] for e in estimates) for i in range(2, 8)]
    rows.append(("total", "", *(f"{n:,}" for n in total[:4]), *(f"${n:,.2f}" for n in total[4:])))
    widths = [max(len(row[i]) for row in (head, *rows)) for i in range(len(head))]
    lines = [
        "  ".join(
            cell.ljust(w) if i < 2 else cell.rjust(w) for i, (cell, w) in enumerate(zip(row, widths, strict=True))
        )
        for row in (head, *rows)
    ]
    return "\n".join(line.rstrip() for line in lines)


def _estimate(spec: JudgeSpec, benchmark: str, calls: int, known: int, tokens_in: int) -> Estimate:
    new = calls - known
    out, longest = new * reply_tokens(spec), new * spec.decoding.max_tokens
    price, at_most = spec.price.of(tokens_in, out), spec.price.of(tokens_in, longest)
    return Estimate(spec.id, benchmark, calls, known, tokens_in, out, price, at_most)


def _shown(messages: Messages) -> int:
    return sum(tokens(message["content"]) for message in messages)


def _benchmarks(study: Study) -> Mapping[str, Any]:
    return getattr(study.benchmarks, "named", study.benchmarks)


def _asked(study: Study, name: str, benchmark: Any, spec: JudgeSpec) -> tuple[int, int]:
    """Calls and prompt tokens of one judge on one benchmark, over the whole study."""
    calls = tokens_in = 0
    for dataset in study.datasets:
        prompts, question, baseline = _lengths(study, name, benchmark, dataset)
        # Beside the start, the start itself is not judged: equal answers are never sent.
        entries = [START, *study.methods, *study.arms] if baseline is not None or spec.verdict == "rating" else None
        for decoding in study.generations.values():
            answer = decoding.max_new_tokens
            samples = decoding.samples_per_prompt if name == "in_domain" else 1
            runs = sum(len(study.seeds_of(entry)) for entry in entries or [*study.methods, *study.arms])
            asked = list(_calls(spec, question, answer, answer if baseline is None else baseline))
            times = runs * samples * prompts * len(study.models)
            calls += times * len(asked)
            tokens_in += times * sum(asked)
    return calls, tokens_in


def _lengths(study: Study, name: str, benchmark: Any, dataset: str) -> tuple[int, int, int | None]:
    """Prompts, tokens of a question, and tokens of a baseline's answer (None: the SFT start answers)."""
    own = name == "in_domain" or (name == "arena_hard" and benchmark.questions is None)
    if not own:
        official = OFFICIAL[f"arena_hard {benchmark.version}" if name == "arena_hard" else name]
        return benchmark.prompts or official.prompts, official.question, official.baseline
    corpus = study.corpus_of(dataset)
    prompts = benchmark.prompts or _benchmarks(study)["in_domain"].prompts
    if isinstance(corpus, ReviewsCorpus):
        return min(prompts, corpus.eval_prompts), 2 * corpus.prompt_words, None  # a word has two tokens at most, mostly
    return min(prompts, corpus.eval_prompts), study.training.max_length, None


def _calls(spec: JudgeSpec, question: int, answer: int, baseline: int) -> Iterator[int]:
    """Prompt tokens of every call about one prompt."""
    if spec.verdict == "rating":
        yield tokens(spec.template("turn_1")) + question + answer
        yield tokens(spec.template("turn_2")) + 2 * (question + answer)
        return
    for _ in range(2 if spec.order == "both" or spec.verdict.startswith("arena") else 1):
        yield tokens(spec.template()) + question + answer + baseline
