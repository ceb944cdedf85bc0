"""Arena-Hard v0.1 and v2.0: from games to the scores of all models. Files are `arena_formats`, calls `arena_calls`."""

from collections.abc import Iterable, Mapping, Sequence
from typing import Any

from marginbench.benchmarks.arena_formats import BASELINES, Game
from marginbench.benchmarks.arena_scores import PERCENTILES, Version, clustered, official, to_battles
from marginbench.errors import UserError
from marginbench.study import START

DEFAULT_CATEGORY = "hard_prompt"
"""Which category is scored where there are several and none is named, as upstream."""


def choose(
    games: Sequence[Game], baseline: str | None = None, category: str | None = None, pool_judges: bool = False
) -> list[Game]:
    """The games of one category by one judge (several with `pool_judges`), with the baseline that all were against.

    That is the one that the rows name and `baseline`, which must agree; where neither names any, the category's
    official one. Raises UserError where that leaves a choice open, or nothing.
    """
    for game in games:
        if game.battle != games[0].battle:
            raise UserError(f"{game.place}: battles and judgments together count games twice; give one kind of file")
    known = sorted({game.category for game in games})
    if category is None:
        category = known[0] if len(known) == 1 else DEFAULT_CATEGORY
    if category not in known:
        raise UserError(f"no judgment is of category {category}; there are {', '.join(known)}: choose by --category")
    chosen = [game for game in games if game.category == category]
    judges = sorted({game.judge for game in chosen if game.judge is not None})
    if len(judges) > 1 and not pool_judges:
        other = next(game for game in chosen if game.judge not in (None, chosen[0].judge))
        raise UserError(
            f"{other.place}: judged by {other.judge}, others by {chosen[0].judge}; "
            "give the files of one judge, or --pool-judges"
        )
    named = next((game.baseline for game in chosen if game.baseline is not None), None)
    agreed = baseline or named or BASELINES.get(category)
    if agreed is None:
        raise UserError(f"{chosen[0].place}: category {category} has no official baseline; name it: --baseline")
    for game in chosen:
        if game.baseline not in (None, agreed):
            raise UserError(f"{game.place}: judged against the baseline {game.baseline}, not {agreed}; see --baseline")
        if game.model == agreed:
            raise UserError(f"{game.place}: {agreed} is the baseline itself; leave its judgments out")
    return [game._replace(baseline=agreed) for game in chosen]


def score_games(
    games: Sequence[Game],
    version: Version,
    style: Sequence[str] = (),
    answers: Mapping[str, Mapping[str, dict[str, Any]]] | None = None,
) -> dict[str, Any]:
    """The document that `marginbench score arena-hard` prints; see docs/decisions/0093-arena-hard.md for its keys.

    `games` are those of one category, baseline and pool of judges (`choose`); `answers`, of `read_answers`, are needed
    for style control.
    """
    judges = sorted({game.judge for game in games if game.judge is not None})
    # v2.0 leaves out a judge's verdicts on its own answers.
    own = sorted({game.model for game in games} & set(judges)) if version == "v2.0" else []
    games = [game for game in games if game.model not in own]
    if not games:
        raise UserError(f"the only model is the judge {own[0]}; v2.0 doesn't score a judge" if own else "no judgments")
    battles, counts = to_battles(games, version)
    numbers = official(battles, version)
    models: dict[str, dict[str, Any]] = {
        str(model): {**numbers[str(model)], **clustered(mine), "style_score": None, **counts[str(model)]}
        for model, mine in battles.groupby("model")
    }
    about = None
    if style:
        from marginbench.benchmarks.arena_style import reversals, style_controlled

        if answers is None:
            raise UserError("style control needs the answers; name their folder: --answers")
        controlled, about = style_controlled(battles, str(games[0].baseline), answers, style, version)
        for model, values in controlled.items():
            models[model].update(values)
        about["reversals"] = reversals(models)
    low, high = PERCENTILES[version]
    return {
        "models": models,
        "version": version,
        "category": games[0].category,
        "baseline": games[0].baseline,
        "judges": judges,
        "judges_left_out": own,
        "ci_percent": high - low,
        "style": about,
    }


def score_run(games: Sequence[Game], version: Version) -> dict[str, Any]:
    """Score of the one model that a run's judgments are about, its baseline, and its prompts one by one.

    `items` holds, under the metric's name, the mean of each prompt's battles (percent) weighted by their number: their
    weighted mean is the score.
    """
    category = games[0].category
    document = score_games(choose(games, category=category), version)
    (model,) = document["models"]
    battles, _ = to_battles(games, version)
    prompts = battles.groupby("question_id")["y"].agg(["mean", "count"])
    items = [
        {"item": str(name), "value": 100.0 * float(row["mean"]), "weight": int(row["count"])}
        for name, row in prompts.iterrows()
    ]
    return {
        "baseline": document["baseline"],
        **document["models"][model],
        "n_asked": len(games),
        "items": {arena_metric(document["baseline"]): items},
    }


def arena_metric(baseline: str) -> str:
    """`arena_score` against the SFT start's answers, `arena_hard` against the benchmark's own baseline."""
    return "arena_score" if baseline == START else "arena_hard"


def answering_models(games: Iterable[Game]) -> set[str]:
    """Whose answers style control needs: every model and its baseline."""
    return {str(name) for game in games for name in (game.model, game.baseline)}
