"""What the rules from raw data to a trained policy ask: inputs that depend on the study, and narrow parameters."""

from pathlib import Path
from typing import Any

from marginbench.dag.paths import SHARED, Paths
from marginbench.dag.scorers import implicit_beta, scorer_of, scorers_of
from marginbench.identity import code_hash
from marginbench.methods.registry import check_params, method_file
from marginbench.study import GivenRewardModel, ReviewsCorpus


class Training(Paths):
    """Questions of the rules that prepare data, score margins and train."""

    def policy_code(self, wildcards: Any) -> str:
        """As `code`, with the file of the method that is trained."""
        entry = self.studies[wildcards.study].methods[wildcards.method]
        return code_hash(self.scripts / "train_policy.py", method_file(entry.method))

    def held_out_code(self) -> str:
        """As `code`, with the file of the method that the runs behind `held_out_loss` are trained with."""
        return code_hash(self.scripts / "score_held_out_loss.py", method_file("dpo"))

    def pair_sources(self, wildcards: Any) -> dict[str, str]:
        """Inputs of make_pairs: constructed pairs need candidates and a ground truth, others only their corpus."""
        if not isinstance(self.corpus(wildcards), ReviewsCorpus):
            return self._corpus_file(self.corpus(wildcards))
        folder = self.corpus_folder(wildcards)
        return {
            "texts": f"{folder}/texts.parquet",
            "candidates": f"{folder}/{wildcards.model}/{wildcards.shared}/candidates.parquet",
            "ground_truth": f"{folder}/classifiers/ground_truth.npz",
        }

    def corpus_file(self, wildcards: Any) -> dict[str, str]:
        """Input of read_corpus: the user's file, where the corpus is one."""
        return self._corpus_file(self.corpus(wildcards))

    @staticmethod
    def _corpus_file(corpus: Any) -> dict[str, str]:
        path = getattr(corpus, "path", None)
        return {"file": path} if path else {}

    def margins_of_method(self, wildcards: Any) -> str | list[str]:
        """Margins that a method declares to need (of the scorer it names, else the study's first); most need none."""
        scorer = scorer_of(self.studies[wildcards.study], wildcards.method)
        # A bare path, because a list of one reaches the script as a list.
        return f"{self.cell(wildcards)}/margins/{scorer}.parquet" if scorer else []

    def has_margins(self, study: str) -> bool:
        """Whether any margins are made in a study."""
        return bool(scorers_of(self.studies[study]))

    def implicit_policy(self, wildcards: Any) -> str:
        """Manifest of the policy whose implicit rewards are margins: of its seed, or of a redrawn stage's own."""
        settings = self.study(wildcards).implicit_reward
        own = wildcards.shared.removeprefix(f"{SHARED}-seed")
        seed = settings.seed if own == SHARED else int(own)
        run = self.run(wildcards.study, wildcards.dataset, wildcards.model, settings.method, seed)
        return f"{run}/policy/manifest.json"

    def sanity_set(self, wildcards: Any) -> str:
        """The sanity set of the reward model from elsewhere: the study's own, or the packaged one."""
        return self._sanity_set(self.study(wildcards).hub_reward_model)

    def _sanity_set(self, settings: GivenRewardModel | None) -> str:
        if settings and settings.sanity:
            return settings.sanity
        path = self.scripts.parents[1] / "resources" / "reward_sanity.jsonl"
        return str(path.relative_to(Path.cwd()) if path.is_relative_to(Path.cwd()) else path)

    def corpus_params(self, wildcards: Any) -> dict[str, Any]:
        """The corpus, without what only sampling candidates reads."""
        return self.corpus(wildcards).model_dump(mode="json", exclude={"candidates"})

    def candidate_params(self, wildcards: Any) -> dict[str, Any]:
        """How candidates are sampled."""
        return self.corpus(wildcards).candidates.model_dump(mode="json")

    def format(self, wildcards: Any) -> str:
        """`chat` or `plain`."""
        return self.corpus(wildcards).format

    def dataset_params(self, wildcards: Any) -> dict[str, Any]:
        """The dataset."""
        return self.dataset(wildcards).model_dump(mode="json")

    def model_params(self, wildcards: Any) -> dict[str, Any]:
        """Where the model comes from."""
        return self.study(wildcards).models[wildcards.model].model_dump(mode="json")

    def sft_params(self, wildcards: Any) -> dict[str, Any]:
        """Optimiser settings of the SFT start."""
        return self.study(wildcards).sft.model_dump(mode="json")

    def reward_model_params(self, wildcards: Any) -> dict[str, Any]:
        """Optimiser settings of the reward model."""
        return self.study(wildcards).reward_model.model_dump(mode="json")

    def holdout_fraction(self, wildcards: Any) -> float:
        """Share of the prompts kept out of training to measure the reward model."""
        return self.study(wildcards).reward_model.holdout_fraction

    def max_length(self, wildcards: Any) -> int:
        """Longest tokenised pair."""
        return self.study(wildcards).training.max_length

    def reference_params(self, wildcards: Any) -> dict[str, Any]:
        """What the reference log-probabilities depend on besides weights and tokens."""
        training = self.study(wildcards).training
        return {
            "max_length": training.max_length,
            "precision": training.precision,
            "last_layers": self.last_layers(wildcards),
        }

    def method_params(self, wildcards: Any) -> dict[str, Any]:
        """Name and parameters of a method, defaults filled in."""
        entry = self.study(wildcards).methods[wildcards.method]
        return {"name": entry.method, "params": check_params(entry.method, entry.params).model_dump(mode="json")}

    def training_params(self, wildcards: Any) -> dict[str, Any]:
        """Optimiser settings of a method."""
        return self.study(wildcards).training_of(wildcards.method).model_dump(mode="json")

    def held_out_params(self, wildcards: Any) -> dict[str, Any]:
        """Number of runs, beta and optimiser settings of the scorer `held_out_loss`."""
        study = self.study(wildcards)
        return {
            "settings": study.held_out_loss.model_dump(mode="json", exclude={"training"}),
            "training": study.held_out_training().model_dump(mode="json"),
        }

    def implicit_params(self, wildcards: Any) -> dict[str, Any]:
        """Beta of the scorer `implicit_reward`, and how log-probabilities are computed."""
        training = self.study(wildcards).training
        beta = implicit_beta(self.study(wildcards))
        return {"beta": beta, "max_length": training.max_length, "precision": training.precision}

    def hub_reward_params(self, wildcards: Any) -> dict[str, Any]:
        """Which reward model from elsewhere scores, and how it is run."""
        settings = self.study(wildcards).hub_reward_model
        return settings.model_dump(mode="json") if settings else {}

    def last_layers(self, wildcards: Any) -> int | None:
        """How many of the last blocks the study's adapters train; None for all."""
        return getattr(self.study(wildcards).training.tuning, "last_layers", None)
