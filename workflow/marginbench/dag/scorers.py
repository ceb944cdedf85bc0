"""Which scorers a study's margins come from, and whether each has what it needs, before the DAG is built.

A scorer is made when it stands under `margins`, and also when only a method asks for it (`params.scorer`).
"""

from pathlib import Path
from typing import get_args

from marginbench.errors import UserError, nearest
from marginbench.methods.registry import load_method
from marginbench.study import FolderRewardModel, HubRewardModel, PreferenceCorpus, Scorer, Study

SCORERS: tuple[str, ...] = get_args(Scorer)


def scorer_of(study: Study, method_id: str) -> str | None:
    """The scorer whose margins an entry reads: the one it names, else the study's first; None for most."""
    entry = study.methods[method_id]
    method = load_method(entry.method, entry.params)
    if not method.needs.margins:
        return None
    return method.scorer or study.margins[0]


def scorers_of(study: Study) -> list[str]:
    """Every scorer of a study: those under `margins`, then those that only a method asks for."""
    asked = [scorer_of(study, method_id) for method_id in study.methods]
    return list(dict.fromkeys([*study.margins, *filter(None, asked)]))


def implicit_beta(study: Study) -> float | None:
    """The beta of `implicit_reward`: its own, else that of the entry whose policy scores; None if neither has one."""
    if study.implicit_reward.beta is not None:
        return study.implicit_reward.beta
    entry = study.methods[study.implicit_reward.method]
    return getattr(load_method(entry.method, entry.params).params, "beta", None)


def check_scorers(study: Study, where: str) -> None:
    """Raise UserError when a scorer of the study cannot score: no ratings, no reward model, no such policy, a cycle."""
    used = scorers_of(study)
    if "dataset_ratings" in used:
        for dataset in study.datasets.values():
            corpus = study.corpora[dataset.corpus]
            if not isinstance(corpus, PreferenceCorpus) or not corpus.columns.score_chosen:
                raise UserError(
                    f"{where}: margins: `dataset_ratings` needs corpora.{dataset.corpus}.columns.score_chosen and "
                    "score_rejected; name the columns or use another scorer"
                )
    if "implicit_reward" in used:
        _check_implicit_reward(study, f"{where}: implicit_reward")
    if "hub_reward_model" in used:
        _check_hub_reward_model(study, f"{where}: hub_reward_model")


def _check_implicit_reward(study: Study, at: str) -> None:
    settings = study.implicit_reward
    if settings.method not in study.methods:
        raise UserError(f"{at}.method: no entry `{settings.method}`; {nearest(settings.method, study.methods)}")
    if scorer_of(study, settings.method) == "implicit_reward":
        raise UserError(
            f"{at}.method: a cycle: `{settings.method}` itself reads the margins of `implicit_reward`; choose an entry "
            "that does not"
        )
    seeds = study.seeds_of(settings.method)
    if not study.reseed and settings.seed not in seeds:
        raise UserError(f"{at}.seed: {settings.seed} is none of the seeds {seeds} of `{settings.method}`; choose one")
    if study.reseed and set(seeds) != set(study.seeds):
        raise UserError(
            f"{at}.method: with `reseed` every seed's pairs have their own policy, and `{settings.method}` has "
            f"the seeds {seeds} of {study.seeds} only; choose an entry with all"
        )
    if implicit_beta(study) is None:
        raise UserError(f"{at}.beta: missing, and the method of `{settings.method}` has no beta; give one")


def _check_hub_reward_model(study: Study, at: str) -> None:
    settings = study.hub_reward_model
    if settings is None:
        raise UserError(f"{at}: missing, and the scorer of this name is asked for; say which reward model it is")
    check_reward_model(settings, at)


def check_reward_model(settings: HubRewardModel | FolderRewardModel, at: str) -> None:
    """Raise UserError when a reward model from elsewhere names a folder or a sanity set that is not there."""
    if isinstance(settings, FolderRewardModel) and not Path(settings.path).expanduser().is_dir():
        raise UserError(f"{at}.path: `{settings.path}` is not a folder")
    if settings.sanity is not None and not Path(settings.sanity).is_file():
        raise UserError(
            f"{at}.sanity: `{settings.sanity}` is not a file; give a path relative to the working directory"
        )
