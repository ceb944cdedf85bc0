"""From studies to the DAG: which runs there are, which files they make, and the narrow parameters of each rule.

Everything that the `.smk` files ask is answered here by functions of wildcards, so that rules hold no lambdas and no
logic. A rule is given only the values that it reads: changing one method's beta must rerun that method and no other.
"""

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from marginbench.checks import load_studies
from marginbench.identity import code_hash
from marginbench.judging.spec import JudgeSpec, load_judges
from marginbench.methods.registry import check_params, method_file
from marginbench.scorers import implicit_beta, scorer_of, scorers_of
from marginbench.selection.registry import load_strategy, strategy_file
from marginbench.study import START, ReviewsCorpus, Study

SHARED = "shared"
"""Folder of what all seeds share; `shared-seed{seed}` where a study asks for reseeding."""

AXES = ("data", "sft", "reward_model")


class Plan:
    """The studies and every question that a rule asks about them; `wildcards` are Snakemake's."""

    def __init__(
        self, studies: Mapping[str, Study], judges: Mapping[str, JudgeSpec], scripts: Path, results: str
    ) -> None:
        self.studies = dict(studies)
        self.judges = dict(judges)
        self.scripts = scripts
        self.results = results

    # --- code ---------------------------------------------------------------------------------------------------

    def code(self, rule: str) -> str:
        """Hash of a rule's script and all it imports."""
        return code_hash(self.scripts / f"{rule}.py")

    def policy_code(self, wildcards: Any) -> str:
        """As `code`, with the file of the method that is trained."""
        entry = self.studies[wildcards.study].methods[wildcards.method]
        return code_hash(self.scripts / "train_policy.py", method_file(entry.method))

    def held_out_code(self) -> str:
        """As `code`, with the file of the method that the runs behind `held_out_loss` are trained with."""
        return code_hash(self.scripts / "score_held_out_loss.py", method_file("dpo"))

    # --- wildcards ----------------------------------------------------------------------------------------------

    def constraints(self) -> dict[str, str]:
        """Regular expressions of the wildcards: only ids that some study holds."""
        studies = self.studies.values()

        def any_of(names: Any) -> str:
            return "|".join(sorted(set(names)))

        return {
            "study": any_of(self.studies),
            "corpus": any_of(c for s in studies for c in s.corpora),
            "dataset": any_of(d for s in studies for d in s.datasets),
            "model": any_of(m for s in studies for m in s.models),
            "method": any_of([START, *(m for s in studies for m in [*s.methods, *s.arms])]),
            "generation": any_of(g for s in studies for g in s.generations),
            "bench": any_of(b for s in studies for b in s.benchmarks),
            "judge": any_of(j for s in studies for j in s.judges),
            "shared": rf"{SHARED}(-seed\d+)?",
            "seed": r"\d+",
        }

    def kind(self, section: str) -> str:
        """Regular expression of the ids under `methods` or `arms` of any study; without any it matches nothing."""
        names = sorted({name for study in self.studies.values() for name in getattr(study, section)})
        return "|".join(names) or "(?!)"

    def shared(self, study: str, seed: int | str) -> str:
        """The shared folder that a seed's runs start from."""
        return f"{SHARED}-seed{seed}" if self.studies[study].reseed else SHARED

    def shared_seed(self, axis: str) -> Any:
        """A function of wildcards: the seed of a shared stage. 0, unless the study draws that axis for every seed."""
        assert axis in AXES, axis

        def seed(wildcards: Any) -> int:
            if axis not in self.studies[wildcards.study].reseed:
                return 0
            return int(wildcards.shared.removeprefix(f"{SHARED}-seed"))

        return seed

    # --- paths --------------------------------------------------------------------------------------------------

    def cell(self, wildcards: Any) -> str:
        """Folder of what the methods of a (dataset, model) share, for a run's seed."""
        shared = getattr(wildcards, "shared", None) or self.shared(wildcards.study, wildcards.seed)
        return f"{self.results}/{wildcards.study}/{wildcards.dataset}/{wildcards.model}/{shared}"

    def in_cell(self, name: str) -> Any:
        """A function of wildcards: a file that the methods of a (dataset, model) share."""
        return lambda wildcards: f"{self.cell(wildcards)}/{name}"

    def corpus_folder(self, wildcards: Any) -> str:
        """Folder of the corpus behind a dataset (or named by the wildcard)."""
        corpus = getattr(wildcards, "corpus", None) or self.dataset(wildcards).corpus
        return f"{self.results}/{wildcards.study}/corpora/{corpus}"

    def in_corpus(self, name: str) -> Any:
        """A function of wildcards: a file of the corpus behind a dataset."""
        return lambda wildcards: f"{self.corpus_folder(wildcards)}/{name}"

    def start_manifest(self, wildcards: Any) -> str:
        """Manifest of the SFT start of a (dataset, model), for a shared folder or a run's seed."""
        shared = getattr(wildcards, "shared", None) or self.shared(wildcards.study, wildcards.seed)
        return f"{self.corpus_folder(wildcards)}/{wildcards.model}/{shared}/sft/manifest.json"

    def run(self, study: str, dataset: str, model: str, method: str, seed: int | str) -> str:
        """Folder of one run."""
        return f"{self.results}/{study}/{dataset}/{model}/{method}/seed{seed}"

    def baseline_answers(self, wildcards: Any) -> str:
        """Answers of the SFT start that a run's answers are judged against: same seed, same decoding."""
        run = self.run(wildcards.study, wildcards.dataset, wildcards.model, START, wildcards.seed)
        return f"{run}/answers/{wildcards.generation}/{wildcards.bench}.jsonl"

    # --- inputs that depend on the study ------------------------------------------------------------------------

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
        settings = self.study(wildcards).hub_reward_model
        if settings and settings.sanity:
            return settings.sanity
        path = self.scripts.parents[1] / "resources" / "reward_sanity.jsonl"
        return str(path.relative_to(Path.cwd()) if path.is_relative_to(Path.cwd()) else path)

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

    def labeller_weights(self, wildcards: Any) -> list[str]:
        """What the labeller of an arm scores with."""
        return self._labeller_weights(wildcards, self.studies[wildcards.study].arms[wildcards.method].labeller)

    def other_labellers(self, wildcards: Any) -> list[str]:
        """What labels in other arms of the study and is no judge of it: every run is compared by these, too."""
        study = self.studies[wildcards.study]
        own = study.arms[wildcards.method].labeller
        found = dict.fromkeys(arm.labeller for arm in study.arms.values())
        return [name for name in found if name != own and name not in study.judges]

    def other_labellers_weights(self, wildcards: Any) -> list[str]:
        """What they score with, in their order; nothing for a judge that is elsewhere."""
        return [path for name in self.other_labellers(wildcards) for path in self._labeller_weights(wildcards, name)]

    def _labeller_weights(self, wildcards: Any, labeller: str) -> list[str]:
        if labeller == "ground_truth":
            return [f"{self.corpus_folder(wildcards)}/classifiers/ground_truth.npz"]
        if labeller == "reward_model":
            return [f"{self.cell(wildcards)}/reward_model/manifest.json"]
        if labeller == "hub_reward_model":
            return [self.sanity_set(wildcards)]
        return self._judge_weights(wildcards, labeller)

    def judges_weights(self, wildcards: Any) -> list[str]:
        """What the study's judges serve, in their order; nothing for a judge that is elsewhere."""
        judges = self.studies[wildcards.study].judges
        return [path for judge in judges for path in self._judge_weights(wildcards, judge)]

    # --- narrow parameters --------------------------------------------------------------------------------------

    def study(self, wildcards: Any) -> Study:
        """The study of the wildcards."""
        return self.studies[wildcards.study]

    def dataset(self, wildcards: Any) -> Any:
        """The dataset of the wildcards."""
        return self.study(wildcards).datasets[wildcards.dataset]

    def corpus(self, wildcards: Any) -> Any:
        """The corpus named by the wildcards, or behind their dataset."""
        name = getattr(wildcards, "corpus", None) or self.dataset(wildcards).corpus
        return self.study(wildcards).corpora[name]

    def corpus_id(self, wildcards: Any) -> str:
        """Id of the corpus behind a dataset."""
        return getattr(wildcards, "corpus", None) or self.dataset(wildcards).corpus

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

    def last_layers(self, wildcards: Any) -> int | None:
        """How many of the last blocks the study's adapters train; None for all."""
        return getattr(self.study(wildcards).training.tuning, "last_layers", None)

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

    def table_params(self, wildcards: Any) -> dict[str, Any]:
        """What tables and figures read of a study."""
        study = self.study(wildcards)
        return {
            "title": study.title,
            "seeds": study.seeds,
            "reseed": study.reseed,
            "confidence": study.confidence,
            "methods": [START, *study.methods, *study.arms],
            "judges": study.judges,
            "generations": list(study.generations),
            "tasks": list(study.capability.tasks),
        }

    def claims_params(self, wildcards: Any) -> dict[str, Any]:
        """The family of differences that a study tests."""
        study = self.study(wildcards)
        return {
            "baseline": study.claims_baseline,
            "methods": study.claimed_methods,
            "metrics": study.claims.metrics,
            "level": study.claims.level or round(1 - study.confidence, 12),
        }

    def arm_params(self, wildcards: Any) -> dict[str, Any]:
        """Everything of an arm that its run reads."""
        study = self.study(wildcards)
        arm = study.arms[wildcards.method]
        strategy = load_strategy(arm.strategy, arm.params)
        judges = {name: judge.model_dump(mode="json") for name, judge in self.judges.items()}
        others = self.other_labellers(wildcards)
        return {
            "strategy": {"name": arm.strategy, "params": strategy.params.model_dump(mode="json")},
            "method": {
                "name": arm.method,
                "params": check_params(arm.method, arm.method_params).model_dump(mode="json"),
            },
            "labeller": arm.labeller,
            "others": others,
            "labelling_judges": {name: judges[name] for name in (arm.labeller, *others) if name in judges},
            "hub_reward_model": (
                self.hub_reward_params(wildcards) if "hub_reward_model" in (arm.labeller, *others) else None
            ),
            "judges": [judges[judge] for judge in study.judges],
            "online": study.arm_online(wildcards.method).model_dump(mode="json"),
            "training": study.arm_training(wildcards.method).model_dump(mode="json"),
            "capability": study.capability.model_dump(mode="json"),
            "prompts": max(benchmark.prompts for benchmark in study.benchmarks.values()),
        }

    def arm_code(self, wildcards: Any) -> str:
        """As `code`, with the files of the strategy and of the method."""
        arm = self.study(wildcards).arms[wildcards.method]
        return code_hash(self.scripts / "train_online.py", method_file(arm.method), strategy_file(arm.strategy))

    def online_params(self, wildcards: Any) -> dict[str, Any]:
        """What the table of an online study reads: arms in order, tests, confidence."""
        study = self.study(wildcards)
        return {
            "arms": list(study.arms),
            "confidence": study.confidence,
            "judges": study.judges,
            "tasks": list(study.capability.tasks),
            "equivalence": study.equivalence.model_dump(mode="json"),
        }

    def online_metrics(self, wildcards: Any) -> list[str]:
        """The measured path of every online run of a study."""
        study = self.study(wildcards)
        runs = [run for run in self.runs(wildcards.study) if run["method"] in study.arms]
        return [run["train"].replace("train.parquet", "online_metrics.parquet") for run in runs]

    def has_arms(self, study: str) -> bool:
        """Whether a study trains online."""
        return bool(self.studies[study].arms)

    # --- everything of a study ----------------------------------------------------------------------------------

    def runs(self, study_id: str) -> list[dict[str, Any]]:
        """Every run of a study with the files that describe it."""
        study = self.studies[study_id]
        runs = []
        for dataset in study.datasets:
            for model in study.models:
                for method in [START, *study.methods, *study.arms]:
                    for seed in study.seeds_of(method):
                        runs.append(self._run_files(study_id, dataset, model, method, seed))
        return runs

    def _run_files(self, study_id: str, dataset: str, model: str, method: str, seed: int) -> dict[str, Any]:
        study = self.studies[study_id]
        folder = self.run(study_id, dataset, model, method, seed)
        # The start's weights are the same for every seed unless SFT is redrawn, so they are checked once.
        fixed = method == START and "sft" not in study.reseed
        checked = self.run(study_id, dataset, model, method, study.seeds[0]) if fixed else folder
        pairs = [(g, b) for g in study.generations for b in study.benchmarks]
        judged = [f"{g}/{b}/{j}" for g, b in pairs for j in study.judges]
        return {
            "study": study_id,
            "dataset": dataset,
            "model": model,
            "method": method,
            "seed": seed,
            "spec": f"{folder}/spec.json",
            "train": None if method == START else f"{folder}/{'policy/' * (method in study.arms)}train.parquet",
            "answer_scores": {f"{g}/{b}": f"{folder}/answer_scores/{g}/{b}.parquet" for g, b in pairs},
            "annotations": {key: f"{folder}/annotations/{key}.json" for key in judged},
            "scores": {key: f"{folder}/scores/{key}.json" for key in judged},
            "capability": f"{checked}/capability" if study.capability.tasks else None,
        }

    def study_runs(self, wildcards: Any) -> list[dict[str, Any]]:
        """Every run of the study of the wildcards."""
        return self.runs(wildcards.study)

    def run_inputs(self, wildcards: Any) -> list[str]:
        """Every file of every run that aggregation reads."""
        files: list[str] = []
        for run in self.runs(wildcards.study):
            files += [
                run["spec"],
                *run["answer_scores"].values(),
                *run["annotations"].values(),
                *run["scores"].values(),
            ]
            files += [run["capability"]] if run["capability"] else []
        return list(dict.fromkeys(files))

    def train_logs(self, wildcards: Any) -> list[str]:
        """The training log of every trained run."""
        return [run["train"] for run in self.runs(wildcards.study) if run["train"]]

    def margin_files(self, wildcards: Any) -> list[str]:
        """The margins of every scorer of the study."""
        return self.shared_inputs(wildcards)["margins"]

    def shared_inputs(self, wildcards: Any) -> dict[str, list[str]]:
        """Reports of the shared stages: pairs, reward models, margins, classifiers."""
        study = self.study(wildcards)
        shared = sorted({self.shared(wildcards.study, seed) for seed in study.seeds})
        root = f"{self.results}/{wildcards.study}"
        cells = [f"{root}/{d}/{m}/{s}" for d in study.datasets for m in study.models for s in shared]
        reviews = [name for name, corpus in study.corpora.items() if isinstance(corpus, ReviewsCorpus)]
        used = {dataset.corpus for dataset in study.datasets.values()}
        return {
            "pairs": [f"{cell}/pairs.json" for cell in cells],
            "reward_models": [f"{cell}/reward_model/report.json" for cell in cells],
            "margins": [f"{cell}/margins/{scorer}.parquet" for cell in cells for scorer in scorers_of(study)],
            "classifiers": [f"{root}/corpora/{name}/classifiers/report.json" for name in reviews if name in used],
        }


def make_plan(config: Mapping[str, Any], root: Path, results: str) -> Plan:
    """The plan behind a Snakemake config: config.yaml, every file in studies/, and the user's `study_file`.

    Raises:
        UserError: the first mistake in any of them.
    """
    default = {key: value for key, value in config.items() if key != "study_file"}
    files = sorted((root / "studies").glob("*.yaml"))
    names = [file.relative_to(Path.cwd()) if file.is_relative_to(Path.cwd()) else file for file in files]
    if config.get("study_file"):
        names.append(Path(str(config["study_file"])))
    judges = load_judges(root / "resources" / "judges.yaml")
    return Plan(load_studies(default, names, judges), judges, root / "workflow" / "scripts", results)
