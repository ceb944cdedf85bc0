"""One online run, resumable: rounds one after the other, each kept whole, the last finished one taken up again."""

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import pandas as pd
import torch

from marginbench.errors import UserError
from marginbench.identity import code_hash, content_id
from marginbench.job import Progress, quiet
from marginbench.methods.registry import Method
from marginbench.models.lora import save_adapter
from marginbench.models.manifest import read_manifest, write_manifest
from marginbench.models.template import Format
from marginbench.online.candidates import Candidate
from marginbench.online.evaluation import Evaluation, as_rows, due, from_rows, prompts_hash
from marginbench.online.labels import Labeller, Labels
from marginbench.online.ledger import Ledger, spent
from marginbench.online.loop import Setting, pool_of, run_round
from marginbench.online.policy import Policy
from marginbench.online.schedule import Schedule, schedule
from marginbench.online.stages import RunStages
from marginbench.online.state import RoundFolders
from marginbench.online.update import Updater, check_method
from marginbench.records import ONLINE_COSTS, ONLINE_METRICS, ROUNDS, TRAIN_LOG, write_table
from marginbench.selection.registry import Strategy
from marginbench.study import Capability, Online, Optimisation


def train_online(
    *,
    strategy: Strategy,
    method: Method,
    start_manifest: str | Path,
    prompts: pd.DataFrame,
    evaluation_prompts: pd.DataFrame,
    format: Format,
    labeller: Labeller,
    judges: Sequence[Labeller],
    settings: Online,
    opt: Optimisation,
    study_id: str,
    dataset_id: str,
    model_id: str,
    arm: str,
    seed: int,
    out_dir: str | Path,
    capability: Capability | None = None,
    texts: pd.DataFrame | None = None,
    progress: Progress = quiet,
) -> pd.DataFrame:
    """Train a policy on pairs that are chosen, sampled and labelled round after round.

    Args:
        strategy: which prompts are labelled. method: the loss; any that needs no margins beforehand.
        start_manifest: manifest of the start (kind `model`), which is also the reference.
        prompts: TEXTS rows that pools are drawn from. evaluation_prompts: TEXTS rows that every evaluation answers.
        labeller: who labels pairs, and compares answers in evaluations. judges: who else compares them.
        settings: sizes of the loop. opt: optimiser settings; `epochs` is not read.
        study_id, dataset_id, model_id, arm, seed: axes of the streams (but for study and arm) and of the tables.
        out_dir: receives rounds.parquet, online_costs.parquet, online_metrics.parquet, train.parquet, labels.jsonl,
            weights/ and manifest.json; `rounds/` while it runs.
        capability: tasks of every evaluation, with `texts` of role `perplexity`.
        progress: called at every round.

    Returns:
        ONLINE_METRICS rows. A run that was killed is taken up after its last finished round and ends with the same
        weights and tables (but for seconds) as one that was not.

    Raises:
        UserError: a judge that is the labeller, unless `settings.judge_may_label`; a method or tuning that the loop
            cannot serve; a pool that is too small, or larger than the prompts that leave room for an answer; a pair
            without label.
    """
    out_dir, query = Path(out_dir), settings.query
    _check(strategy, settings, labeller, judges, prompts, evaluation_prompts)
    check_method(method, opt)
    start = read_manifest(start_manifest)
    loop = settings.loop or strategy.loop
    plan = schedule(settings.steps, settings.updates_per_query, query, opt.batch_size, loop)
    run_key = content_id(
        "online",
        [strategy.name, strategy.params.model_dump(mode="json")],
        [method.name, method.params.model_dump(mode="json")],
        start.weights_hash,
        [prompts_hash(prompts), prompts_hash(evaluation_prompts), format],
        [[who.id, who.version, who.template] for who in (labeller, *judges)],
        [settings.model_dump(mode="json"), opt.model_dump(mode="json")],
        None if capability is None else capability.model_dump(mode="json"),
        [dataset_id, model_id, seed, torch.get_num_threads()],
        code_hash(__file__, method.file, strategy.file),
    )
    asked = pd.concat([prompts, evaluation_prompts], ignore_index=True)
    policy = Policy(start, opt, model_id, seed, asked, format, settings.decoding.max_new_tokens)
    prompts, dropped = _that_fit(prompts, policy, settings, opt)
    updater = Updater(policy, method, opt, sum(plan.updates), seed)
    accumulate, resets = loop == "accumulate", strategy.resets_policy
    labels = Labels(labeller, out_dir / "labels.jsonl", settings.label_noise, seed)
    rounds = RunStages(policy, updater, labels, prompts, plan, accumulate, resets, [dataset_id, seed])
    folders = RoundFolders(out_dir / "rounds", run_key)
    everyone = [labeller, *(judge for judge in judges if judge.id != labeller.id)]
    evaluation = Evaluation(
        policy, evaluation_prompts, everyone, settings.evaluation, seed, folders.folder, capability, texts, format
    )
    setting = Setting(query, settings.decoding, getattr(method.params, "beta", 1.0), seed)
    last = folders.finished()
    if last is None:
        baseline = _evaluate_start(evaluation, folders)
        last = 0
    else:
        facts = [folders.facts(number) for number in range(last + 1)]
        baseline = from_rows(facts[0]["baseline"])
        if last:
            rounds.take_up(folders.tensors(last), facts[1:])
    for number in range(last + 1, plan.rounds + 1):
        progress(number - 1, plan.rounds, strategy.name)
        ledger = Ledger(number)
        pool = pool_of(prompts["text_id"].tolist(), settings.pool_size, strategy, query, number, seed, dataset_id)
        table, _ = run_round(number, pool, strategy, setting, rounds, ledger)
        measured = []
        if due(number, settings.evaluate_every, plan.rounds):
            with ledger.stage("evaluate") as cost:
                measured = evaluation.measure(evaluation.answers(cost), baseline, cost)
        tensors, facts = rounds.keep()
        log = pd.DataFrame(rounds.log, columns=list(TRAIN_LOG.columns))
        tables = [(ROUNDS, table), (ONLINE_COSTS, pd.DataFrame(ledger.rows())), (TRAIN_LOG, log)]
        folders.write(number, tables, tensors, {**facts, "evaluation": measured})
    axes = {
        "study": study_id,
        "dataset": dataset_id,
        "model": model_id,
        "labeller": labeller.id,
        "arm": arm,
        "seed": seed,
    }
    metrics = _metrics(folders, plan.rounds, axes, {judge.id for judge in everyone if _same(judge, labeller)})
    for table in (ROUNDS, ONLINE_COSTS, TRAIN_LOG):
        write_table(folders.table(table, plan.rounds), out_dir / f"{table.name}.parquet", table)
    write_table(metrics, out_dir / f"{ONLINE_METRICS.name}.parquet", ONLINE_METRICS)
    save_adapter(policy.model, out_dir / "weights")
    facts = {**_facts(strategy, method, loop, plan, labeller, everyone), "dropped_long_prompts": dropped}
    write_manifest(out_dir / "manifest.json", out_dir / "weights", "adapter", base=start, facts=facts)
    folders.remove()
    progress(plan.rounds, plan.rounds, strategy.name)
    return metrics


def _same(judge: Labeller, labeller: Labeller) -> bool:
    """Whether a judge is the labeller, or scores with its weights: a server may serve the labeller's classifier."""
    return judge.id == labeller.id or judge.version == labeller.version or "" != judge.weights == labeller.weights


def _facts(
    strategy: Strategy, method: Method, loop: str, plan: Schedule, labeller: Labeller, judges: Sequence[Labeller]
) -> dict[str, Any]:
    """What the manifest tells of a run."""
    return {
        "strategy": {"name": strategy.name, "params": strategy.params.model_dump(mode="json")},
        "method": {"name": method.name, "params": method.params.model_dump(mode="json")},
        "loop": loop,
        "rounds": plan.rounds,
        "labelled_pairs": plan.labelled_pairs,
        "pair_updates": plan.pair_updates,
        "labeller": {"id": labeller.id, "version": labeller.version},
        "judges": [{"id": judge.id, "version": judge.version} for judge in judges],
    }


def _check(
    strategy: Strategy,
    settings: Online,
    labeller: Labeller,
    judges: Sequence[Labeller],
    prompts: pd.DataFrame,
    evaluation_prompts: pd.DataFrame,
) -> None:
    same = [judge.id for judge in judges if _same(judge, labeller)]
    if same and not settings.judge_may_label:
        raise UserError(
            f"online: judge `{same[0]}` is the labeller `{labeller.id}` of the loop, whose own taste it would measure; "
            "name another judge, or set online.judge_may_label: true"
        )
    wanted = strategy.pool_size(settings.query)
    if wanted > settings.pool_size:
        raise UserError(
            f"online: strategy `{strategy.name}` looks at {wanted} prompts a round, but a round has "
            f"{settings.pool_size}; raise online.pool, or lower the strategy's pool_factor"
        )
    both = set(prompts["text_id"]) & set(evaluation_prompts["text_id"])
    if both:
        raise UserError(f"online: prompt {sorted(both)[0]} is trained on and evaluated; give disjoint prompts")


def _that_fit(prompts: pd.DataFrame, policy: Policy, settings: Online, opt: Optimisation) -> tuple[pd.DataFrame, int]:
    """Prompts that leave room for an answer, as tokenised pairs keep them, and how many do not."""
    fit = prompts["text_id"].map(policy.fits).astype(bool)
    if not fit.all() and fit.sum() < settings.pool_size:
        raise UserError(
            f"online: {int(fit.sum())} of {len(fit)} prompts leave room for answers of "
            f"{settings.decoding.max_new_tokens} tokens within training.max_length {opt.max_length}, a round's pool is "
            f"{settings.pool_size}; raise max_length, or lower online.pool or online.decoding.max_new_tokens"
        )
    return prompts[fit].reset_index(drop=True), int((~fit).sum())


def _evaluate_start(evaluation: Evaluation, folders: RoundFolders) -> list[Candidate]:
    ledger = Ledger(0)
    with ledger.stage("evaluate") as cost:
        baseline = evaluation.answers(cost)
        measured = evaluation.measure(baseline, baseline, cost)
    facts = {"evaluation": measured, "baseline": as_rows(baseline)}
    folders.write(0, [(ONLINE_COSTS, pd.DataFrame(ledger.rows()))], {}, facts)
    return baseline


def _metrics(folders: RoundFolders, rounds: int, axes: dict[str, Any], labelled: set[str]) -> pd.DataFrame:
    costs = folders.table(ONLINE_COSTS, rounds)
    rows = [
        {
            **axes,
            "round": number,
            **measured,
            "judge_is_labeller": measured["judge"] in labelled,
            **spent(costs, number),
        }
        for number in range(rounds + 1)
        for measured in folders.facts(number)["evaluation"]
    ]
    return pd.DataFrame(rows)[list(ONLINE_METRICS.columns)]
