"""What each metric is, in one place: label, unit, direction, digits, meaning. Table heads, axes, results/README.md."""

from dataclasses import dataclass, replace
from typing import Literal

Direction = Literal["higher", "lower", "neither"]


@dataclass(frozen=True)
class Metric:
    """A metric as people read it. `scale` turns the stored value into the shown one (100 for per cent).

    `share`: a mean of 0/1 items (Wilson interval within one seed); `capability`: an lm-eval task; `against_start`: in
    per cent, measured against the SFT start, so that 50 is no change.
    """

    id: str
    label: str
    unit: str
    better: Direction
    digits: int
    meaning: str
    scale: float = 1.0
    share: bool = False
    capability: bool = False
    against_start: bool = False

    @property
    def bounds(self) -> tuple[float, float]:
        """Values that the metric can take, as stored; intervals are cut there."""
        return (0.0, 100.0 / self.scale) if self.unit == "%" else (float("-inf"), float("inf"))

    @property
    def head(self) -> str:
        """Label with its unit, as in `KL (nats)`."""
        return f"{self.label} ({self.unit})" if self.unit else self.label

    @property
    def arrow(self) -> str:
        """Which way is better: ↑, ↓ or nothing."""
        return {"higher": "↑", "lower": "↓", "neither": ""}[self.better]

    def show(self, value: float | None, signed: bool = False) -> str:
        """A stored value with this metric's digits; `–` for a missing one, never `-0.00`."""
        if value is None or value != value:
            return "–"
        text = f"{value * self.scale:{'+' if signed else ''}.{self.digits}f}"
        if float(text) == 0:
            text = text.replace("-", "+" if signed else "")
        return text.replace("-", "−")


def _task(id: str, label: str, meaning: str, **changes) -> Metric:
    settings = {"unit": "%", "better": "higher", "digits": 1, "scale": 100.0, "share": True, "capability": True}
    return Metric(id=id, label=label, meaning=meaning, **{**settings, **changes})


CATALOG = (
    Metric(
        "true_reward",
        "true reward",
        "",
        "higher",
        2,
        "Mean ground-truth reward of prompt + answer, by the scorer that labelled the training pairs (-3 to 3 in "
        "controlled sentiment).",
    ),
    Metric(
        "win_rate",
        "win rate",
        "%",
        "higher",
        1,
        "Judge's win rate against the SFT start's answer to the same question, in per cent; 50 is no change. "
        "AlpacaEval's definition: mean preference, ties count half, null verdicts are left out.",
        against_start=True,
    ),
    Metric(
        "length_controlled_winrate",
        "LC win rate",
        "%",
        "higher",
        1,
        "AlpacaEval 2's length-controlled win rate against the SFT start, in per cent; no row where it is undefined.",
        against_start=True,
    ),
    Metric(
        "arena_score",
        "arena score",
        "%",
        "higher",
        1,
        "Arena-Hard's protocol against the SFT start's answers, in per cent; 50 is no change. Two games for each "
        "prompt; a clear verdict counts three times. The standard error is clustered by prompt.",
        against_start=True,
    ),
    Metric(
        "arena_hard",
        "Arena-Hard",
        "%",
        "higher",
        1,
        "Arena-Hard score against the benchmark's own baseline, in per cent; 50 is as good as that. The standard "
        "error is clustered by prompt; the official interval stands in the score's file.",
    ),
    Metric(
        "mt_bench",
        "MT-Bench",
        "",
        "higher",
        2,
        "Mean rating (1 to 10) over all valid judgments of both turns; the standard error is clustered by question.",
    ),
    Metric("mt_bench/turn_1", "MT-Bench, turn 1", "", "higher", 2, "Mean rating of the first answers."),
    Metric("mt_bench/turn_2", "MT-Bench, turn 2", "", "higher", 2, "Mean rating of the second answers."),
    Metric(
        "kl",
        "KL",
        "nats",
        "neither",
        2,
        "Mean over sampled answers of log policy - log reference of the whole answer: Monte-Carlo estimate of the "
        "sequence KL from the SFT start. Null when sampling was greedy or cut (top_k, top_p).",
    ),
    Metric(
        "repeated_trigrams",
        "repeated 3-grams",
        "%",
        "lower",
        1,
        "Share of an answer's word trigrams that occurred before in it; answers under three words have none.",
        scale=100.0,
    ),
    Metric(
        "answer_tokens", "length", "tokens", "neither", 0, "Generated tokens per answer, the end token not counted."
    ),
    Metric("answer_chars", "length", "characters", "neither", 0, "Characters per answer."),
    Metric(
        "truncated",
        "truncated",
        "%",
        "neither",
        0,
        "Share of answers that met the token limit. 100 % where the study continues texts up to a fixed length.",
        scale=100.0,
        share=True,
    ),
    Metric(
        "eos_rate",
        "ended",
        "%",
        "neither",
        0,
        "Share of answers that ended by themselves, not at the token limit (online paths).",
        scale=100.0,
        share=True,
    ),
    Metric(
        "judge_null",
        "null verdicts",
        "%",
        "lower",
        1,
        "Share of judged questions for which the judge gave no usable verdict; they are in no win rate.",
        scale=100.0,
        share=True,
    ),
    _task("piqa", "PIQA", "Physical commonsense, two options; lm-eval acc_norm."),
    _task("siqa", "SIQA", "Social commonsense, three options; lm-eval acc_norm."),
    _task(
        "review_perplexity",
        "review bits/byte",
        "Bits per byte on held-out texts that no stage has trained on: -log2 likelihood / UTF-8 bytes, over all texts.",
        unit="",
        better="lower",
        digits=3,
        scale=1.0,
        share=False,
    ),
    _task("arc_challenge", "ARC-C", "Open LLM Leaderboard v1, 25 shots, acc_norm."),
    _task("hellaswag", "HellaSwag", "Open LLM Leaderboard v1, 10 shots, acc_norm."),
    _task("mmlu", "MMLU", "Open LLM Leaderboard v1, 5 shots, accuracy.", share=False),
    _task("truthfulqa_mc2", "TruthfulQA", "Open LLM Leaderboard v1, 0 shots, mass on true answers.", share=False),
    _task("winogrande", "WinoGrande", "Open LLM Leaderboard v1, 5 shots, accuracy."),
    _task("gsm8k", "GSM8K", "Open LLM Leaderboard v1, 5 shots, exact match (strict)."),
    _task("ifeval", "IFEval", "Instruction following, prompt-level strict accuracy."),
)

HEADLINE_BENCH = "in_domain"
"""The benchmark whose metrics carry no name of a benchmark."""

BENCH_LABELS = {"alpaca_eval": "AlpacaEval 2", "arena_hard": "Arena-Hard", "mt_bench": "MT-Bench"}

BY_ID = {metric.id: metric for metric in CATALOG}
MAIN = (
    "true_reward",
    "win_rate",
    "length_controlled_winrate",
    "arena_score",
    "arena_hard",
    "mt_bench",
    "kl",
    "repeated_trigrams",
    "answer_tokens",
)
"""Metrics of the first panel of the table, in order."""


def in_main_panel(metric_id: str) -> bool:
    """Whether a metric stands in the first panel; of other benchmarks than the study's own, only their win rates do."""
    bench, _, metric = metric_id.rpartition("/")
    return metric_id in MAIN or (bench != "" and metric in ("win_rate", "length_controlled_winrate"))


def describe(metric_id: str) -> Metric:
    """The catalog's entry; a capability task that has none is shown under its own id, with no direction guessed."""
    if metric_id in BY_ID:
        return BY_ID[metric_id]
    bench, slash, headline = metric_id.rpartition("/")
    if slash and headline in BY_ID:
        # A benchmark with a baseline of its own measures no change against the start.
        metric = BY_ID[headline]
        meaning = f"As `{headline}`, on the questions of {bench} and against its own baseline."
        label = f"{BENCH_LABELS.get(bench, bench)} {metric.label}"
        return replace(metric, id=metric_id, label=label, meaning=meaning, against_start=False)
    meaning = f"lm-eval task `{metric_id}`; see its JSON for metric and direction."
    return Metric(metric_id, metric_id, "", "neither", 3, meaning, capability=True)


def order_of(metric_id: str) -> tuple[int, str]:
    """Sort key that gives the catalog's order; metrics without an entry come last, by id."""
    return (list(BY_ID).index(metric_id) if metric_id in BY_ID else len(BY_ID), metric_id)
