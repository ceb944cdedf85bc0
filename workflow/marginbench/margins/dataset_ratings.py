"""Margins that come with the data: rating of the chosen answer minus rating of the rejected one."""

import pandas as pd

from marginbench.errors import UserError
from marginbench.identity import content_id
from marginbench.margins.rows import margin_rows

SCORER = "dataset_ratings"


def score_pairs(pairs: pd.DataFrame) -> pd.DataFrame:
    """MARGINS of every pair of PAIRS, in its order. Raises UserError when a pair carries no rating.

    A margin may be negative: then the label contradicts the ratings, which is for a method to handle.
    """
    unrated = pairs["score_chosen"].isna() | pairs["score_rejected"].isna()
    if unrated.any():
        row = int(unrated.to_numpy().argmax())
        raise UserError(
            f"margins dataset_ratings: {int(unrated.sum())} of {len(pairs)} pairs have no rating, the first is row "
            f"{row} (pair {pairs['pair_id'].iloc[row]}); name the rating columns under `columns`, or use "
            "margins: [reward_model]"
        )
    chosen, rejected = pairs["score_chosen"].astype(float), pairs["score_rejected"].astype(float)
    ratings = [[pair_id, a, b] for pair_id, a, b in zip(pairs["pair_id"], chosen, rejected, strict=True)]
    return margin_rows(
        pairs["pair_id"], chosen, rejected, scorer=SCORER, scorer_hash=content_id("ratings", sorted(ratings))
    )
