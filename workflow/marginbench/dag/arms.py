"""Online arms of a study: what must hold of them before anything runs. One line for a mistake, as in checks.py."""

from collections.abc import Mapping

from pydantic import ValidationError

from marginbench.dag.scorers import check_reward_model
from marginbench.errors import UserError, nearest
from marginbench.judging.spec import JudgeSpec
from marginbench.methods.registry import load_method
from marginbench.selection.registry import load_strategy
from marginbench.study import Lora, ReviewsCorpus, Study

LABELLERS = ("ground_truth", "reward_model", "hub_reward_model")
"""Labellers that are no judge."""


def check_arms(study: Study, where: str, judges: Mapping[str, JudgeSpec]) -> None:
    """Strategy, labeller, loss and sizes of every arm, and the tests between arms. Raises UserError."""
    for name, model in study.labellers.items():
        if name in (*LABELLERS, *judges):
            raise UserError(f"{where}: labellers.{name}: `{name}` is a labeller or a judge already; choose another id")
        check_reward_model(model, f"{where}: labellers.{name}")
    for name in study.arms:
        _check_arm(study, name, f"{where}: arms.{name}", judges)
    at = f"{where}: equivalence"
    for pair in study.equivalence.pairs:
        for arm in pair:
            if arm not in study.arms:
                raise UserError(f"{at}.pairs: no entry `{arm}` under arms; {nearest(arm, study.arms)}")
        if pair[0] == pair[1]:
            raise UserError(f"{at}.pairs: `{pair[0]}` is compared with itself; name two arms")
        labellers = [study.arms[arm].labeller for arm in pair]
        if labellers[0] != labellers[1]:
            raise UserError(
                f"{at}.pairs: `{pair[0]}` is labelled by `{labellers[0]}` and `{pair[1]}` by `{labellers[1]}`; compare "
                "arms of one labeller"
            )


def _check_arm(study: Study, name: str, at: str, judges: Mapping[str, JudgeSpec]) -> None:
    arm = study.arms[name]
    try:
        strategy = load_strategy(arm.strategy, arm.params)
    except UserError as error:
        raise UserError(f"{at}: {error}") from error
    try:
        method = load_method(arm.method, arm.method_params)
    except UserError as error:
        raise UserError(f"{at}.method_params: {error}") from error
    if method.needs.margins or method.needs.order:
        raise UserError(f"{at}.method: `{arm.method}` reads margins or an order made beforehand; take one without")
    try:
        online, training = study.arm_online(name), study.arm_training(name)
    except ValidationError as error:
        finding = error.errors(include_url=False)[0]
        place = ".".join(map(str, finding["loc"]))
        raise UserError(f"{at}: {place}: {finding['msg']}; mend the override") from error
    if not isinstance(training.tuning, Lora):
        raise UserError(f"{at}.training.tuning: online arms train adapters (kind: lora); the start is their reference")
    if strategy.pool_size(online.query) > online.pool_size:
        raise UserError(
            f"{at}: strategy `{arm.strategy}` looks at {strategy.pool_size(online.query)} prompts a round, a round has "
            f"{online.pool_size}; raise online.pool, or lower params.pool_factor"
        )
    known = (*LABELLERS, *study.labellers, *judges)
    if arm.labeller not in known:
        raise UserError(f"{at}.labeller: unknown `{arm.labeller}`; {nearest(arm.labeller, known)}")
    if arm.labeller in study.judges and not online.judge_may_label:
        raise UserError(
            f"{at}.labeller: `{arm.labeller}` also judges the study and would measure its own taste; name another, or "
            "set online.judge_may_label: true, and the table says so"
        )
    for name in ("decoding", "evaluation"):
        if getattr(online, name).server is not None:
            raise UserError(
                f"{at}.online.{name}.server: the policy of an online arm lives in its job and changes in every round; "
                "remove the key"
            )
    reviews_only = arm.labeller == "ground_truth" or (
        arm.labeller in judges and "review_classifiers" in judges[arm.labeller].needs
    )
    for dataset, settings in study.datasets.items():
        corpus = study.corpora[settings.corpus]
        if not isinstance(corpus, ReviewsCorpus) and reviews_only:
            raise UserError(
                f"{at}.labeller: `{arm.labeller}` is a sentiment classifier, which the corpus of dataset `{dataset}` "
                "does not have; name `reward_model`, `hub_reward_model` or a judge that reads any text"
            )
        if isinstance(corpus, ReviewsCorpus) and corpus.prompts < online.pool_size:
            raise UserError(
                f"{at}: a round's pool is {online.pool_size} prompts, corpora.{settings.corpus}.prompts is "
                f"{corpus.prompts}; lower online.pool or raise prompts"
            )
    if arm.labeller == "hub_reward_model" and study.hub_reward_model is None:
        raise UserError(f"{at}.labeller: the study has no section `hub_reward_model`; add it")
