"""The table that every scorer fills: a score for each answer, the margin between them, and a digest of the row."""

from collections.abc import Sequence

import numpy as np
import pandas as pd

from marginbench.records import MARGINS, margin_digest


def margin_rows(
    pair_ids: Sequence[str],
    score_chosen: Sequence[float] | np.ndarray,
    score_rejected: Sequence[float] | np.ndarray,
    *,
    scorer: str,
    scorer_hash: str,
) -> pd.DataFrame:
    """MARGINS from two scores for each pair, shape (pairs,). Larger is better; the margin is chosen minus rejected."""
    chosen, rejected = (np.asarray(scores, dtype=np.float64) for scores in (score_chosen, score_rejected))
    frame = pd.DataFrame(
        {
            "pair_id": list(pair_ids),
            "score_chosen": chosen,
            "score_rejected": rejected,
            "margin": chosen - rejected,
            "scorer": scorer,
            "scorer_hash": scorer_hash,
            "digest": [
                margin_digest(pair, a, b, scorer, scorer_hash)
                for pair, a, b in zip(pair_ids, chosen, rejected, strict=True)
            ],
        }
    )
    return frame[list(MARGINS.columns)]
