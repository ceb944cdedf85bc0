"""Margins by a trained policy: its implicit reward (DPO, equation 5) of the chosen answer minus that of the rejected.

The reward is beta (log policy - log start), in which the part that depends on the prompt alone cancels within a pair.
The policy has usually been trained on these very pairs, so its margins are not those of unseen ones; for these there
is `held_out_loss`.
"""

from pathlib import Path
from typing import Any

import pandas as pd

from marginbench.margins.log_ratios import pair_log_ratios
from marginbench.margins.rows import margin_rows
from marginbench.models.manifest import read_manifest

SCORER = "implicit_reward"


def score_pairs(
    policy_manifest: str | Path, tokens: pd.DataFrame, reference: pd.DataFrame, *, beta: float, **settings: Any
) -> pd.DataFrame:
    """MARGINS of every pair of PAIR_TOKENS, in its order: beta times the log-ratio of each answer.

    Args:
        policy_manifest: the policy that scores.
        reference: REFERENCE rows of the start that it was trained from.
        beta: scale, per nat.
        settings: further arguments of `pair_log_ratios`, whose errors these are too.
    """
    chosen, rejected = pair_log_ratios(policy_manifest, tokens, reference, **settings)
    return margin_rows(
        tokens["pair_id"],
        beta * chosen,
        beta * rejected,
        scorer=SCORER,
        scorer_hash=read_manifest(policy_manifest).weights_hash,
    )
