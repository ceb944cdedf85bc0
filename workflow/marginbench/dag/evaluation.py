"""What the rules that generate, judge and measure capability ask."""

from collections.abc import Mapping
from typing import Any

from marginbench.dag.paths import Paths
from marginbench.judging.spec import JudgeSpec
from marginbench.study import START, ArenaHard, Benchmark, LocalFile, MtBench, ReviewsCorpus, Study

IN_DOMAIN = "in_domain"
PAIRWISE_BENCHES = (IN_DOMAIN, "alpaca_eval")
"""Benchmarks of AlpacaEval's protocol and files."""

PAIRWISE = ("logprobs", "ranking")
"""Kinds of verdict that name the better of two answers, as AlpacaEval's protocol needs."""


def verdicts_of(benchmark: Benchmark) -> tuple[str, ...]:
    """The kinds of verdict that a benchmark can score."""
    if isinstance(benchmark, ArenaHard):
        return ("arena_v01",) if benchmark.version == "v0.1" else ("arena_v20",)
    return ("rating",) if isinstance(benchmark, MtBench) else PAIRWISE


def judges_of(study: Study, bench: str, judges: Mapping[str, JudgeSpec]) -> list[str]:
    """The judges of a benchmark: those it names, else those of the study that give its kind of verdict."""
    benchmark = study.benchmarks.named[bench]
    if benchmark.judges is not None:
        return list(benchmark.judges)
    return [judge for judge in study.judges if judge in judges and judges[judge].verdict in verdicts_of(benchmark)]


def answers_bench(study: Study, bench: str) -> str:
    """Whose answers are judged: a benchmark's own, or the in-domain ones where it has no questions of its own."""
    benchmark = study.benchmarks.named[bench]
    return IN_DOMAIN if isinstance(benchmark, ArenaHard) and benchmark.questions is None else bench


class Evaluation(Paths):
    """Questions of the rules between a trained policy and its scores."""

    pairwise = "|".join(PAIRWISE_BENCHES)
    """Regular expression of the benchmarks that `judge_answers` judges."""

    def questions(self, wildcards: Any) -> str:
        """Where the questions of a benchmark are: the corpus's held-out prompts, or a file of its own."""
        if wildcards.bench == IN_DOMAIN:
            return f"{self.corpus_folder(wildcards)}/texts.parquet"
        return f"{self.results}/{wildcards.study}/questions/{wildcards.bench}.jsonl"

    def question_files(self, wildcards: Any) -> list[str]:
        """Local files that a benchmark is read from."""
        benchmark = self.study(wildcards).benchmarks.named[wildcards.bench]
        return [value.path for _, value in benchmark if isinstance(value, LocalFile)]

    def benchmark_params(self, wildcards: Any) -> dict[str, Any]:
        """A benchmark's own settings."""
        benchmark = self.study(wildcards).benchmarks.named[wildcards.bench]
        return benchmark.model_dump(mode="json", exclude={"judges"})

    def _answers_of(self, wildcards: Any, bench: str, method: str) -> str:
        run = self.run(wildcards.study, wildcards.dataset, wildcards.model, method, wildcards.seed)
        return f"{run}/answers/{wildcards.generation}/{answers_bench(self.study(wildcards), bench)}.jsonl"

    def judged_answers(self, bench: str | None = None) -> Any:
        """A function of wildcards: the run's answers that a benchmark judges."""
        return lambda wildcards: self._answers_of(wildcards, bench or wildcards.bench, wildcards.method)

    def baseline(self, bench: str | None = None) -> Any:
        """A function of wildcards: what a run's answers are judged beside.

        The SFT start's answers of the same seed and decoding, or the benchmark's questions, which hold its baseline's.
        """

        def path(wildcards: Any) -> str:
            name = bench or wildcards.bench
            benchmark = self.study(wildcards).benchmarks.named[name]
            if getattr(benchmark, "reference", None) or getattr(benchmark, "baseline", None):
                return f"{self.results}/{wildcards.study}/questions/{name}.jsonl"
            return self._answers_of(wildcards, name, START)

        return path

    def ground_truth(self, wildcards: Any) -> list[str]:
        """The ground-truth classifier, where the corpus has one and its prompts are answered."""
        if wildcards.bench != IN_DOMAIN or not isinstance(self.corpus(wildcards), ReviewsCorpus):
            return []
        return [f"{self.corpus_folder(wildcards)}/classifiers/ground_truth.npz"]

    def judge_weights(self, wildcards: Any) -> list[str]:
        """What a local judge serves: the corpus's independent classifier, or a model of its own."""
        return self._judge_weights(wildcards, wildcards.judge)

    def _judge_weights(self, wildcards: Any, judge_id: str) -> list[str]:
        judge = self.judges[judge_id]
        if judge.backend == "classifier":
            return [f"{self.corpus_folder(wildcards)}/classifiers/judge.npz"]
        if judge.backend in ("causal_lm", "reward_model"):
            return [f"{self.results}/{wildcards.study}/judges/{judge_id}/manifest.json"]
        return []

    def decoding_params(self, wildcards: Any) -> dict[str, Any]:
        """How a generation samples."""
        return self.study(wildcards).generations[wildcards.generation].model_dump(mode="json")

    def n_prompts(self, wildcards: Any) -> int:
        """How many prompts a benchmark asks."""
        benchmark = self.study(wildcards).benchmarks.in_domain
        return benchmark.prompts if benchmark else 0

    def capability_rows(self, wildcards: Any) -> str:
        """Hidden states that the start's capability check keeps for the checks of the policies trained from it."""
        study = self.study(wildcards)
        seed = wildcards.seed if "sft" in study.reseed else study.seeds[0]
        run = self.run(wildcards.study, wildcards.dataset, wildcards.model, START, seed)
        return f"{run}/capability_rows.safetensors"

    def capability_params(self, wildcards: Any) -> dict[str, Any]:
        """Tasks and batch size of the capability check."""
        return self.study(wildcards).capability.model_dump(mode="json")

    def temperatures(self, wildcards: Any) -> dict[str, float]:
        """Sampling temperatures that a benchmark sets by category."""
        return getattr(self.study(wildcards).benchmarks.named[wildcards.bench], "temperatures", {})

    def arena_version(self, wildcards: Any) -> str:
        """Whose rules Arena-Hard is scored by."""
        return self.study(wildcards).benchmarks.arena_hard.version

    def ledger(self, wildcards: Any) -> dict[str, Any]:
        """Where verdicts are kept, which all studies share; whose money it is; where batches wait."""
        return {
            "ledger": f"{self.results}/judgments.sqlite",
            "payer": wildcards.study,
            "batches": f"{self.results}/{wildcards.study}/batches/{wildcards.judge}",
            "budget": self.study(wildcards).budget,
        }

    def judge_params(self, wildcards: Any) -> dict[str, Any]:
        """The judge: model, endpoint, prompt text, decoding, order."""
        return self.judges[wildcards.judge].model_dump(mode="json")

    def judge_model_params(self, wildcards: Any) -> dict[str, Any]:
        """Where the model of a local judge comes from."""
        weights = self.judges[wildcards.judge].weights
        return weights.model_dump(mode="json") if weights else {}
