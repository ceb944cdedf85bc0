"""Labeller x judge: does an arm's lead survive another judge than the one that labelled its training pairs?"""

import pandas as pd

from marginbench.statistics.intervals import NO_INTERVAL, paired_seeds_difference

KEY = ["labeller", "judge", "arm", "seed"]


def difference_matrix(values: pd.DataFrame, ours: str, theirs: str, confidence: float) -> pd.DataFrame:
    """Mean of ours - theirs over the seeds that both have, for every labeller with every judge.

    Args:
        values: long frame with columns labeller, judge, arm, seed, value; a missing value leaves its seed out.
        ours: arm whose lead is asked for.
        theirs: arm that it is compared with.
        confidence: level of the t-intervals over seeds.

    Returns:
        One row per (labeller, judge), all combinations, sorted: `same` (the judge labelled the training pairs),
        `difference`, `low`, `high` (missing where nothing was measured or seeds are too few), `n_seeds`, and `how`
        ("seeds", or "none" where there is no interval). Exchanging the arms turns every sign.

    Raises:
        ValueError: a (labeller, judge, arm, seed) occurs more than once.
    """
    if values.duplicated(KEY).any():
        raise ValueError(f"{values.loc[values.duplicated(KEY), KEY].iloc[0].to_dict()} occurs more than once")
    known = values[values["arm"].isin([ours, theirs])].dropna(subset="value")
    by_seed = known.pivot(index=["labeller", "judge", "seed"], columns="arm", values="value")
    by_seed = by_seed.reindex(columns=[ours, theirs]).dropna()
    rows = []
    for labeller in sorted(values["labeller"].unique()):
        for judge in sorted(values["judge"].unique()):
            row = {"labeller": labeller, "judge": judge, "same": labeller == judge}
            found = by_seed[
                (by_seed.index.get_level_values(0) == labeller) & (by_seed.index.get_level_values(1) == judge)
            ]
            if found.empty:
                rows.append({**row, "difference": None, "low": None, "high": None, "n_seeds": 0, "how": NO_INTERVAL})
                continue
            interval = paired_seeds_difference(found[ours], found[theirs], confidence)
            numbers = {"difference": interval.mean, "low": interval.low, "high": interval.high}
            rows.append({**row, **numbers, "n_seeds": interval.n, "how": interval.how})
    columns = ["labeller", "judge", "same", "difference", "low", "high", "n_seeds", "how"]
    return pd.DataFrame(rows, columns=columns).astype({"difference": float, "low": float, "high": float})
