"""Margins by a trained reward model: score of the chosen answer minus score of the rejected one."""

from pathlib import Path

import pandas as pd
import torch

from marginbench.errors import UserError
from marginbench.job import Progress, quiet
from marginbench.margins.rows import margin_rows
from marginbench.models.loading import load_tokenizer
from marginbench.models.manifest import read_manifest
from marginbench.models.reward_head import load_reward_model, reward_scores, reward_sequences

SCORER = "reward_model"


def score_pairs(
    rm_manifest_path: str | Path, tokens: pd.DataFrame, *, batch_size: int = 32, progress: Progress = quiet
) -> pd.DataFrame:
    """MARGINS of every pair of PAIR_TOKENS, in its order.

    Sequences are cut where the reward model's training cut them. Raises UserError when a weight of the reward model is
    missing, left over or newly initialised, or when a score is not finite.
    """
    manifest = read_manifest(rm_manifest_path)
    model = load_reward_model(manifest)
    if torch.cuda.is_available():
        model = model.to("cuda")
    pad_id = load_tokenizer(manifest).pad_token_id
    layout = {"max_length": manifest.facts.get("max_length"), "cue_ids": manifest.facts.get("cue_ids", [])}
    both = [sequence for side in ("chosen", "rejected") for sequence in reward_sequences(tokens, side, **layout)]
    scores = torch.tensor(reward_scores(model, both, pad_id, batch_size, progress), dtype=torch.float64)
    chosen, rejected = scores[: len(tokens)].numpy(), scores[len(tokens) :].numpy()
    finite = torch.isfinite(scores).reshape(2, -1).all(0)
    if not finite.all():
        bad = tokens["pair_id"].iloc[int(finite.int().argmin())]
        raise UserError(f"{manifest.path}: the score of pair {bad} is not finite; train the reward model again")
    return margin_rows(tokens["pair_id"], chosen, rejected, scorer=SCORER, scorer_hash=manifest.weights_hash)
