"""One round, with what it is made of handed in: pool -> candidates -> scores -> selection -> labels -> update.

Nothing here knows a model. Every candidate carries its prompt_id, sample_id and random key; scores are made for each
prompt from its own samples, and a pair refuses answers of different prompts.
"""

from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Protocol

import numpy as np
import pandas as pd

from marginbench.identity import stream
from marginbench.online.candidates import Candidate, Pair, RoundTable
from marginbench.online.ledger import Ledger
from marginbench.selection.base import PAIR
from marginbench.selection.pools import pool_of_round
from marginbench.selection.registry import Strategy
from marginbench.selection.scores import implicit_reward, margin_by_prompt, mean_by_prompt
from marginbench.study import Decoding


class Stages(Protocol):
    """What a round is made of: a model, a labeller, an optimiser. Tests hand in others."""

    def generate(self, prompt_ids: Sequence[str], decoding: Decoding, key: str) -> list[Candidate]:
        """`decoding.samples_per_prompt` answers to every prompt, samples of a prompt together."""
        ...

    def log_probs(self, candidates: Sequence[Candidate], reference: bool) -> list[float]:
        """Log-probability of every candidate at temperature 1 under the policy, or under the start; nats."""
        ...

    def embed(self, prompt_ids: Sequence[str], candidates: Sequence[Candidate]) -> np.ndarray:
        """A vector for every prompt, shape (prompts, width), from the prompt and its candidates if it has any."""
        ...

    def label(self, pairs: Sequence[tuple[Candidate, Candidate]]) -> tuple[list[bool], int]:
        """Whether the first of each pair is preferred, and how many pairs this run asks about for the first time."""
        ...

    def update(self, pairs: Sequence[Pair], round: int) -> int:
        """Train on a round's pairs; returns the pairs that the optimiser's steps read."""
        ...


@dataclass(frozen=True)
class Setting:
    """What every round has in common.

    Attributes:
        query: pairs to be labelled.
        decoding: how the answers that are trained on are sampled.
        beta: scale of the implicit reward.
        seed: training seed.
    """

    query: int
    decoding: Decoding
    beta: float
    seed: int


def pool_of(
    prompt_ids: Sequence[str], block: int, strategy: Strategy, query: int, number: int, seed: int, dataset: str
) -> list[str]:
    """Prompts that a strategy looks at in round `number` (from 1), in pool order: the first of the round's block.

    All arms of a seed have the same blocks; one that looks at fewer prompts takes the first.
    """
    positions = pool_of_round(len(prompt_ids), block, number - 1, seed, dataset)
    return [prompt_ids[position] for position in positions[: strategy.pool_size(query)]]


def run_round(
    number: int, pool: Sequence[str], strategy: Strategy, setting: Setting, stages: Stages, ledger: Ledger
) -> tuple[pd.DataFrame, list[Pair]]:
    """One round: ROUNDS rows of all candidates, and the labelled pairs that were trained on.

    Args:
        number: number of the round, from 1.
        pool: prompt ids that the strategy chooses from, in a seeded order; ties fall to the earlier one.
        strategy: its stages and its ranking.

    A stage samples where it needs samples and none are alive; after a stage with `fresh` they are dead. What is left
    after the last stage is answered once more if its samples are dead.
    """
    if len(set(pool)) != len(pool):
        raise ValueError(f"round {number}: the pool holds a prompt twice")
    table = RoundTable(number)
    kept, alive, draws = list(pool), {}, Counter()
    for place, stage in enumerate(strategy.stages):
        decoding = stage_decoding(stage, setting.decoding)
        if stage.samples and not alive:
            alive = _draw(kept, decoding, _key(number, "score", draws, setting, decoding), stages, ledger, table)
        rows = pd.DataFrame({"prompt_id": kept})
        if stage.score != "none":
            with ledger.stage("score") as cost:
                values = _scores(stage.score, kept, alive, decoding, setting.beta, stages, cost)
            for name, column in values.items():
                rows[name] = column if name == "embedding" else column.loc[kept].to_numpy()
            table.scored(rows, alive)
        with ledger.stage("select"):
            rng = stream("online_select", setting.seed, number, place)
            wanted = stage.keep(len(kept), setting.query)
            taken = set(strategy.rank(rows, wanted, rng, place))
            kept = [prompt_id for prompt_id in kept if prompt_id in taken]  # in pool order: ties go to the earlier
            if len(kept) != wanted:
                raise ValueError(f"round {number}: stage {place} kept {len(kept)} prompts of its table, not {wanted}")
        alive = {} if stage.fresh else {prompt_id: alive[prompt_id] for prompt_id in kept if prompt_id in alive}
    if len(kept) != setting.query:
        raise ValueError(f"round {number}: the last stage kept {len(kept)} prompts, {setting.query} are to be labelled")
    if not alive:
        decoding = setting.decoding.model_copy(update={"samples_per_prompt": PAIR})
        alive = _draw(kept, decoding, _key(number, "pair", draws, setting, decoding), stages, ledger, table)
    pairs = _labelled(kept, alive, stages, ledger, table)
    with ledger.stage("update") as cost:
        cost.pair_updates += stages.update(pairs, number)
    return table.frame(), pairs


def stage_decoding(stage: Any, base: Decoding) -> Decoding:
    """How a stage samples: as the pairs are, but for what the stage says itself."""
    changes = {name: getattr(stage, name) for name in ("temperature", "top_p") if getattr(stage, name) is not None}
    if stage.top_k is not None:
        changes["top_k"] = stage.top_k or None  # 0 says: not truncated
    return base.model_copy(update={"samples_per_prompt": stage.samples, **changes})


def _key(number: int, purpose: str, draws: Counter, setting: Setting, decoding: Decoding) -> str:
    """Axes of a draw's streams. Draws as pairs are sampled share their streams in all arms of a seed."""
    same = decoding.model_copy(update={"samples_per_prompt": 1}) == setting.decoding.model_copy(
        update={"samples_per_prompt": 1}
    )
    purpose = "pair" if same else purpose
    draws[purpose] += 1
    return f"seed{setting.seed}/round{number}/{purpose}{draws[purpose] - 1}"


def _draw(
    prompt_ids: Sequence[str], decoding: Decoding, key: str, stages: Stages, ledger: Ledger, table: RoundTable
) -> dict[str, list[Candidate]]:
    """Samples of every prompt, by prompt. Raises ValueError unless each has its own, in order."""
    with ledger.stage("generate") as cost:
        found = stages.generate(prompt_ids, decoding, key)
        cost.completions += len(found)
        cost.generated_tokens += sum(len(candidate.token_ids) for candidate in found)
    count = decoding.samples_per_prompt
    wanted = [(prompt_id, sample) for prompt_id in prompt_ids for sample in range(count)]
    if [(candidate.prompt_id, candidate.sample_id) for candidate in found] != wanted:
        raise ValueError(f"{key}: the samples are not {count} for each of {len(prompt_ids)} prompts, in order")
    table.drawn(found)
    return {prompt_id: found[i * count : (i + 1) * count] for i, prompt_id in enumerate(prompt_ids)}


def _scores(
    score: str,
    prompt_ids: Sequence[str],
    alive: Mapping[str, Sequence[Candidate]],
    decoding: Decoding,
    beta: float,
    stages: Stages,
    cost: Any,
) -> dict[str, Any]:
    """What a stage ranks by: a column of one value for each prompt, by prompt_id, from the prompt's own samples."""
    flat = [candidate for prompt_id in prompt_ids for candidate in alive.get(prompt_id, ())]
    ids, samples = [candidate.prompt_id for candidate in flat], decoding.samples_per_prompt
    if score == "embedding":
        cost.scored_sequences += len(flat) or len(prompt_ids)
        return {"embedding": list(stages.embed(prompt_ids, flat))}
    if score == "entropy":
        free = decoding.temperature == 1
        found = np.array([candidate.log_prob for candidate in flat] if free else stages.log_probs(flat, False))
        cost.scored_sequences += 0 if free else len(flat)
        per_token = found / [len(candidate.token_ids) for candidate in flat]
        return {
            "entropy": -mean_by_prompt(ids, found, samples),
            "entropy_per_token": -mean_by_prompt(ids, per_token, samples),
        }
    if score == "margin":
        rewards = implicit_reward(stages.log_probs(flat, False), stages.log_probs(flat, True), beta)
        cost.scored_sequences += 2 * len(flat)
        return {"margin": margin_by_prompt(ids, [candidate.sample_id for candidate in flat], rewards)}
    raise ValueError(f"a stage's score {score!r} is none of none, entropy, margin, embedding")


def _labelled(
    kept: Sequence[str],
    alive: Mapping[str, Sequence[Candidate]],
    stages: Stages,
    ledger: Ledger,
    table: RoundTable,
) -> list[Pair]:
    """The first two samples of every prompt that is left, labelled."""
    both = [(alive[prompt_id][0], alive[prompt_id][1]) for prompt_id in kept]
    with ledger.stage("label") as cost:
        wins, asked = stages.label(both)
        cost.labels += asked
    pairs = [
        Pair(prompt_id, *(sides if first else sides[::-1]))
        for prompt_id, sides, first in zip(kept, both, wins, strict=True)
    ]
    for pair in pairs:
        table.labelled(pair)
    return pairs
