"""Log-ratios of a policy and its start on the pairs: what implicit rewards are made of."""

from pathlib import Path

import numpy as np
import pandas as pd

from marginbench.job import Progress, quiet
from marginbench.models.loading import load_model, load_tokenizer
from marginbench.models.manifest import read_manifest
from marginbench.training.reference import compute_reference, join_reference, reference_key


def pair_log_ratios(
    policy_manifest: str | Path,
    tokens: pd.DataFrame,
    reference: pd.DataFrame,
    *,
    max_length: int,
    precision: str,
    template_hash: str,
    batch_size: int = 16,
    progress: Progress = quiet,
) -> tuple[np.ndarray, np.ndarray]:
    """Summed log-ratio, policy over start, of the chosen and of the rejected answers: nats, each of shape (pairs,).

    The same pass as that of the reference, so equal answers are computed once.

    Args:
        policy_manifest: a policy trained in this project; its manifest names the start that it was trained from.
        tokens: PAIR_TOKENS rows to be scored.
        reference: REFERENCE rows of that start, for at least these pairs.
        max_length, precision, template_hash: as the reference was computed with.

    Raises:
        UserError: the reference lacks a pair, or was made for another start, template, max_length or precision.
    """
    manifest = read_manifest(policy_manifest)
    if manifest.base is None:
        raise ValueError(f"{manifest.path}: is no policy: its manifest names no start")
    settings = {"max_length": max_length, "precision": precision, "template_hash": template_hash}
    key = reference_key(model_hash=manifest.base.weights_hash, **settings)
    start = join_reference(tokens, reference, key)
    found = compute_reference(
        load_model(manifest),
        tokens,
        **settings,
        batch_size=batch_size,
        model_hash=manifest.weights_hash,
        pad_id=load_tokenizer(manifest).pad_token_id,
        progress=progress,
    )
    chosen, rejected = (
        found[name].to_numpy(np.float64) - start[name].to_numpy(np.float64)
        for name in ("ref_chosen_logp", "ref_rejected_logp")
    )
    return chosen, rejected
