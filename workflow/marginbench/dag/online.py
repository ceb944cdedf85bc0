"""What the rules of the online arms ask."""

from typing import Any

from marginbench.dag.evaluation import PAIRWISE, Evaluation
from marginbench.dag.training import Training
from marginbench.identity import code_hash
from marginbench.methods.registry import check_params, method_file
from marginbench.selection.registry import load_strategy, strategy_file


class Online(Training, Evaluation):
    """Questions of the rules that train and compare online arms."""

    def labeller_weights(self, wildcards: Any) -> list[str]:
        """What the labeller of an arm scores with."""
        return self._labeller_weights(wildcards, self.studies[wildcards.study].arms[wildcards.method].labeller)

    def other_labellers(self, wildcards: Any) -> list[str]:
        """What labels in other arms of the study and is no judge of it: every run is compared by these, too."""
        study = self.studies[wildcards.study]
        own = study.arms[wildcards.method].labeller
        found = dict.fromkeys(arm.labeller for arm in study.arms.values())
        return [name for name in found if name != own and name not in self.loop_judges(wildcards)]

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
        named = self.studies[wildcards.study].labellers
        if labeller in named:
            return [self._sanity_set(named[labeller])]
        return self._judge_weights(wildcards, labeller)

    def loop_judges(self, wildcards: Any) -> list[str]:
        """The study's judges that can compare two answers; between rounds nothing else is asked of a judge."""
        return [judge for judge in self.study(wildcards).judges if self.judges[judge].verdict in PAIRWISE]

    def judges_weights(self, wildcards: Any) -> list[str]:
        """What the study's judges serve, in their order; nothing for a judge that is elsewhere."""
        judges = self.loop_judges(wildcards)
        return [path for judge in judges for path in self._judge_weights(wildcards, judge)]

    def arm_params(self, wildcards: Any) -> dict[str, Any]:
        """Everything of an arm that its run reads."""
        study = self.study(wildcards)
        arm = study.arms[wildcards.method]
        strategy = load_strategy(arm.strategy, arm.params)
        judges = {name: judge.model_dump(mode="json") for name, judge in self.judges.items()}
        others = self.other_labellers(wildcards)
        models = {name: model.model_dump(mode="json") for name, model in study.labellers.items()}
        models["hub_reward_model"] = self.hub_reward_params(wildcards)
        return {
            "strategy": {"name": arm.strategy, "params": strategy.params.model_dump(mode="json")},
            "method": {
                "name": arm.method,
                "params": check_params(arm.method, arm.method_params).model_dump(mode="json"),
            },
            "labeller": arm.labeller,
            "others": others,
            "labelling_judges": {name: judges[name] for name in (arm.labeller, *others) if name in judges},
            "reward_models": {name: models[name] for name in (arm.labeller, *others) if name in models},
            "judges": [judges[judge] for judge in self.loop_judges(wildcards)],
            "online": study.arm_online(wildcards.method).model_dump(mode="json"),
            "training": study.arm_training(wildcards.method).model_dump(mode="json"),
            "capability": study.capability.model_dump(mode="json"),
            "prompts": study.benchmarks.in_domain.prompts if study.benchmarks.in_domain else 0,
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
            "judges": self.loop_judges(wildcards),
            "tasks": list(study.capability.tasks),
            "equivalence": study.equivalence.model_dump(mode="json"),
        }

    def has_arms(self, study: str) -> bool:
        """Whether a study trains online."""
        return bool(self.studies[study].arms)
