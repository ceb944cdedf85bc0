"""What the rules that generate, judge and measure capability ask."""

from typing import Any

from marginbench.dag.paths import Paths
from marginbench.study import START, ReviewsCorpus


class Evaluation(Paths):
    """Questions of the rules between a trained policy and its scores."""

    def baseline_answers(self, wildcards: Any) -> str:
        """Answers of the SFT start that a run's answers are judged against: same seed, same decoding."""
        run = self.run(wildcards.study, wildcards.dataset, wildcards.model, START, wildcards.seed)
        return f"{run}/answers/{wildcards.generation}/{wildcards.bench}.jsonl"

    def ground_truth(self, wildcards: Any) -> list[str]:
        """The ground-truth classifier, where the corpus has one."""
        if not isinstance(self.corpus(wildcards), ReviewsCorpus):
            return []
        return [f"{self.corpus_folder(wildcards)}/classifiers/ground_truth.npz"]

    def judge_weights(self, wildcards: Any) -> list[str]:
        """What a local judge serves: the corpus's independent classifier, or a model of its own."""
        return self._judge_weights(wildcards, wildcards.judge)

    def _judge_weights(self, wildcards: Any, judge_id: str) -> list[str]:
        judge = self.judges[judge_id]
        if judge.backend == "classifier":
            return [f"{self.corpus_folder(wildcards)}/classifiers/judge.npz"]
        if judge.backend == "causal_lm":
            return [f"{self.results}/{wildcards.study}/judges/{judge_id}/manifest.json"]
        return []

    def decoding_params(self, wildcards: Any) -> dict[str, Any]:
        """How a generation samples."""
        return self.study(wildcards).generations[wildcards.generation].model_dump(mode="json")

    def n_prompts(self, wildcards: Any) -> int:
        """How many prompts a benchmark asks."""
        return self.study(wildcards).benchmarks[wildcards.bench].prompts

    def capability_rows(self, wildcards: Any) -> str:
        """Hidden states that the start's capability check keeps for the checks of the policies trained from it."""
        study = self.study(wildcards)
        seed = wildcards.seed if "sft" in study.reseed else study.seeds[0]
        run = self.run(wildcards.study, wildcards.dataset, wildcards.model, START, seed)
        return f"{run}/capability_rows.safetensors"

    def capability_params(self, wildcards: Any) -> dict[str, Any]:
        """Tasks and batch size of the capability check."""
        return self.study(wildcards).capability.model_dump(mode="json")

    def judge_params(self, wildcards: Any) -> dict[str, Any]:
        """The judge: model, endpoint, prompt text, decoding, order."""
        return self.judges[wildcards.judge].model_dump(mode="json")

    def judge_model_params(self, wildcards: Any) -> dict[str, Any]:
        """Where the model of a local judge comes from."""
        weights = self.judges[wildcards.judge].weights
        return weights.model_dump(mode="json") if weights else {}
