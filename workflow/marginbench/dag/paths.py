"""The studies of a DAG, what its wildcards may be, and where every file of a run lies."""

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from marginbench.identity import code_hash
from marginbench.judging.spec import JudgeSpec
from marginbench.study import START, Study

SHARED = "shared"
"""Folder of what all seeds share; `shared-seed{seed}` where a study asks for reseeding."""

AXES = ("data", "sft", "reward_model")


class Paths:
    """The studies and their paths; `wildcards` are Snakemake's. The base of every part of the plan."""

    def __init__(
        self, studies: Mapping[str, Study], judges: Mapping[str, JudgeSpec], scripts: Path, results: str
    ) -> None:
        self.studies = dict(studies)
        self.judges = dict(judges)
        self.scripts = scripts
        self.results = results

    def code(self, rule: str) -> str:
        """Hash of a rule's script and all it imports."""
        return code_hash(self.scripts / f"{rule}.py")

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
