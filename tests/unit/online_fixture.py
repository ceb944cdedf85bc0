"""Made-up online runs in the shape of ONLINE_METRICS, for the tests of their reporting."""

import numpy as np
import pandas as pd
from marginbench.identity import stream
from marginbench.records import ONLINE_METRICS

LABELLER, JUDGE = "reward_model", "sentiment_half_b"
PER_ROUND = {"random": (16, 32, 6.0), "apl": (16, 1536, 41.0)}
"""Labels, completions and seconds of a round."""
GAIN = {"random": 24.0, "apl": 24.6}
TOKENS = 24


def online_frame(
    seeds=range(5), arms=("random", "apl"), rounds=range(0, 21, 4), labeller=LABELLER, study="apl_made_up"
) -> pd.DataFrame:
    """Win rates that rise towards 50 + gain, capability that falls; both arms of a seed share its luck."""
    rows = []
    for seed in seeds:
        luck = stream("luck", labeller, seed).normal(0, 2)
        for arm in arms:
            labels, completions, seconds = PER_ROUND[arm]
            own = stream("own", labeller, arm, seed).normal(0, 1, (len(rounds), 5))
            for noise, number in zip(own, rounds, strict=True):
                learned = 1 - np.exp(-number / 8)
                values = {
                    ("win_rate", labeller): 50 + learned * (GAIN[arm] + 8 + luck + noise[0]),
                    ("win_rate", JUDGE): 50 + learned * (GAIN[arm] + luck + noise[1]),
                    ("piqa", ""): 0.66 - learned * (0.02 + 0.004 * noise[2]),
                    ("review_perplexity", ""): 1.10 + learned * (0.05 + 0.01 * noise[3]),
                    ("answer_tokens", ""): 24 + learned * noise[4],
                }
                spent = {
                    "labels": labels * number,
                    "completions": completions * number,
                    "generated_tokens": TOKENS * completions * number,
                    "seconds": (seconds + 0.1 * seed) * number,
                }
                place = {"study": study, "dataset": "imdb_high", "model": "smollm2_135m", "labeller": labeller}
                for (metric, judge), value in values.items():
                    row = {"arm": arm, "seed": seed, "round": number, "metric": metric, "judge": judge, "value": value}
                    row["judge_is_labeller"] = judge == labeller
                    rows.append({**place, **row, **spent})
    return pd.DataFrame(rows, columns=list(ONLINE_METRICS.columns))
