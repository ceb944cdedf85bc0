"""Margins by held-out loss (SelectiveDPO, Gao et al. 2025, arXiv 2502.09650): how hard a pair is for unseeing models.

The prompts are split in two halves; a DPO policy is trained from the SFT start on the pairs of each half, and scores
the pairs of the other. This is repeated with new splits. A pair's difficulty is its DPO loss, -log sigma(beta g),
averaged over the runs that were not trained on it (runs / 2 of them; in the paper three of six).

The margin is minus that loss, so that a large margin is easy, as for every other scorer. A loss belongs to the pair
and not to an answer: `score_chosen` is minus the loss and `score_rejected` is 0. All margins are below 0, and a pair
that no model can tell apart stands at -log 2. They order and cut the pairs (`order`, `keep`, SelectiveDPO); where a
method reads a sign or a scale (MADPO's weight, a `tau`), another scorer is meant.
"""

import shutil
from collections.abc import Sequence
from pathlib import Path

import numpy as np
import pandas as pd

from marginbench.data.splits import share_of_prompts
from marginbench.identity import content_id, seed_for
from marginbench.job import Progress, quiet
from marginbench.margins.log_ratios import pair_log_ratios
from marginbench.margins.rows import margin_rows
from marginbench.methods.registry import load_method
from marginbench.models.manifest import read_manifest
from marginbench.study import HeldOutLoss, Optimisation
from marginbench.training.preference import train_policy

SCORER = "held_out_loss"


def halves(tokens: pd.DataFrame, split: int, dataset_id: str, seed: int) -> np.ndarray:
    """Which half of split number `split` every pair falls in, boolean, shape (pairs,): all pairs of a prompt in one.

    A prompt is its token ids, so that two prompts which a model cannot tell apart are one. Keyed by (dataset, seed,
    split); the order of the pairs is no matter. Raises UserError when there are fewer than two prompts.
    """
    prompts = [content_id("prompt", list(map(int, ids))) for ids in tokens["prompt_ids"]]
    half = share_of_prompts(prompts, 0.5, f"{SCORER} of {dataset_id}, split {split}", seed)
    return np.array([prompt in half for prompt in prompts], dtype=bool)


def dpo_loss(margin: Sequence[float] | np.ndarray, beta: float) -> np.ndarray:
    """-log sigma(beta g) in float64, shape of g; g in nats, without beta."""
    return np.logaddexp(0.0, -beta * np.asarray(margin, dtype=np.float64))


def score_pairs(
    *,
    start_manifest: str | Path,
    tokens: pd.DataFrame,
    reference: pd.DataFrame,
    settings: HeldOutLoss,
    opt: Optimisation,
    dataset_id: str,
    model_id: str,
    seed: int,
    template_hash: str,
    work_dir: str | Path,
    frozen_states: str | Path | None = None,
    progress: Progress = quiet,
) -> pd.DataFrame:
    """MARGINS of every pair of PAIR_TOKENS, in its order; every score is finite and below 0.

    Args:
        start_manifest: the SFT start that every run begins from, which is also the reference.
        reference: REFERENCE rows of all pairs.
        settings: number of runs and beta.
        opt: optimiser settings of a run.
        dataset_id, seed: what splits and data order depend on. model_id, seed: what initialisations depend on.
        template_hash: `models.template.template_hash` of this run.
        work_dir: where a run's policy lies until it has scored; removed at the end. A run that was killed is taken up
            from there.
        frozen_states: states under the trained blocks that the reference pass kept.

    Raises:
        UserError: as `train_policy`, e.g. a half with fewer pairs than one batch; fewer than two prompts.
    """
    work_dir = Path(work_dir)
    method = load_method("dpo", {"beta": settings.beta})
    total, times = np.zeros(len(tokens)), np.zeros(len(tokens), dtype=int)
    hashes = []
    for run in range(settings.runs):
        # Runs 2k and 2k + 1 share a split: what one is trained on, the other scores.
        trained = halves(tokens, run // 2, dataset_id, seed) ^ bool(run % 2)
        note = _noting(progress, f"run {run + 1} of {settings.runs}")
        train_policy(
            method=method,
            start_manifest=start_manifest,
            tokens=tokens[trained].reset_index(drop=True),
            reference=reference,
            opt=opt,
            dataset_id=dataset_id,
            model_id=model_id,
            seed=seed_for(SCORER, seed, run),
            out_dir=work_dir / f"run{run}",
            template_hash=template_hash,
            frozen_states=frozen_states,
            progress=note,
        )
        policy = work_dir / f"run{run}" / "manifest.json"
        chosen, rejected = pair_log_ratios(
            policy,
            tokens[~trained].reset_index(drop=True),
            reference,
            max_length=opt.max_length,
            precision=opt.precision,
            template_hash=template_hash,
            progress=note,
        )
        total[~trained] += dpo_loss(chosen - rejected, settings.beta)
        times[~trained] += 1
        hashes.append(read_manifest(policy).weights_hash)
        shutil.rmtree(policy.parent)
    shutil.rmtree(work_dir, ignore_errors=True)
    return margin_rows(
        tokens["pair_id"],
        -total / times,
        np.zeros(len(tokens)),
        scorer=SCORER,
        scorer_hash=content_id(SCORER, settings.beta, hashes, length=32),
    )


def _noting(progress: Progress, prefix: str) -> Progress:
    return lambda done, total, note="": progress(done, total, f"{prefix}: {note}")
