"""The plan: everything that the `.smk` files ask, answered by functions of wildcards.

Rules hold no lambdas and no logic, and each is given only the values that it reads: changing one method's beta must
rerun that method and no other.
"""

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from marginbench.dag.checks import load_studies
from marginbench.dag.evaluation import PAIRWISE_BENCHES, answers_bench, judges_of
from marginbench.dag.online import Online
from marginbench.dag.scorers import scorers_of
from marginbench.judging.spec import load_judges
from marginbench.study import START, ReviewsCorpus


class Plan(Online):
    """All of it, and what tables and figures are made of."""

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
        benches = list(study.benchmarks.named)
        answered = [(g, b) for g in study.generations for b in benches if answers_bench(study, b) == b]
        arena = study.benchmarks.arena_hard
        # The start isn't played against itself: Arena-Hard leaves its baseline out.
        itself = ["arena_hard"] if method == START and arena and arena.baseline is None else []
        judged = [
            f"{g}/{b}/{j}"
            for g in study.generations
            for b in benches
            if b not in itself
            for j in judges_of(study, b, self.judges)
        ]
        return {
            "study": study_id,
            "dataset": dataset,
            "model": model,
            "method": method,
            "seed": seed,
            "spec": f"{folder}/spec.json",
            "train": None if method == START else f"{folder}/{'policy/' * (method in study.arms)}train.parquet",
            "answer_scores": {f"{g}/{b}": f"{folder}/answer_scores/{g}/{b}.parquet" for g, b in answered},
            "annotations": {
                key: f"{folder}/annotations/{key}.json" for key in judged if key.split("/")[1] in PAIRWISE_BENCHES
            },
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

    def online_metrics(self, wildcards: Any) -> list[str]:
        """The measured path of every online run of a study."""
        study = self.study(wildcards)
        runs = [run for run in self.runs(wildcards.study) if run["method"] in study.arms]
        return [run["train"].replace("train.parquet", "online_metrics.parquet") for run in runs]

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
