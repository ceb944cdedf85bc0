"""What strategies rank by, from log-probabilities: predictive entropy and implicit reward margins. numpy, float64.

One row is one sampled answer and carries the id of its prompt: answers are brought together by that id alone, never by
their position. The released code of Oh et al. 2026 (arXiv 2604.02766) goes by position and averages, and pairs, answers
to different prompts (the specification's defects D1 and D2).
"""

from collections.abc import Sequence

import numpy as np
import pandas as pd

ROUNDING = 1e-3
"""A log-probability may be this far above 0: of a nearly certain token, computed in half precision, it can be."""


def sequence_logp(token_logp: np.ndarray, mask: np.ndarray) -> np.ndarray:
    """Log-probability of every answer: the sum over its own tokens, nats.

    Args:
        token_logp: shape (answers, tokens), padded; what stands on padding is never read, be it NaN.
        mask: the same shape, 1 on the answer's tokens, the end token included, 0 on padding.

    Returns:
        Shape (answers,). Raises ValueError on other shapes, a mask that is not 0 and 1, an answer without a token, or a
        log-probability that is not finite or above 0 by more than rounding.
    """
    token_logp, real = np.asarray(token_logp, dtype=np.float64), _real(mask)
    if token_logp.shape != real.shape:
        raise ValueError(f"log-probabilities {token_logp.shape} and mask {real.shape} must be (answers, tokens)")
    read = token_logp[real]
    if not np.isfinite(read).all() or (read > ROUNDING).any():
        raise ValueError("a log-probability on an answer's token is not finite, or above 0")
    return np.where(real, token_logp, 0.0).sum(axis=1)


def token_counts(mask: np.ndarray) -> np.ndarray:
    """Tokens of every answer, the end token included, shape (answers,)."""
    return _real(mask).sum(axis=1)


def _real(mask: np.ndarray) -> np.ndarray:
    mask = np.asarray(mask)
    if mask.ndim != 2 or not np.isin(mask, (0, 1)).all():
        raise ValueError("a mask must have the shape (answers, tokens) and hold 0 and 1")
    if not mask.any(axis=1).all():
        raise ValueError(f"answer {int(np.argmin(mask.any(axis=1)))} has no token; the end token counts as one")
    return mask.astype(bool)


def mean_by_prompt(prompt_ids: Sequence[str], values: np.ndarray, samples: int) -> pd.Series:
    """Mean over the answers of each prompt, indexed by prompt_id, prompts in the order of their first answer.

    Raises ValueError unless every prompt has exactly `samples` answers: a mean over some of them is another estimate.
    """
    frame = pd.DataFrame({"prompt_id": list(prompt_ids), "value": np.asarray(values, dtype=np.float64)})
    groups = frame.groupby("prompt_id", sort=False)["value"]
    counts = groups.size()
    if (counts != samples).any():
        prompt = counts.index[int(np.argmax(counts.to_numpy() != samples))]
        raise ValueError(f"prompt {prompt!r} has {counts[prompt]} answers, not {samples}")
    return groups.mean()


def predictive_entropy(prompt_ids: Sequence[str], token_logp: np.ndarray, mask: np.ndarray, samples: int) -> pd.Series:
    """Monte Carlo entropy of the answers to each prompt, -(1 / N) sum_n log pi(y_n | x), nats, not divided by length.

    Unbiased if the answers were sampled at temperature 1 without truncation, and the log-probabilities are those of
    temperature 1 (Muldrew et al. 2024, arXiv 2402.08114). Arguments as in `sequence_logp` and `mean_by_prompt`.
    """
    return -mean_by_prompt(prompt_ids, sequence_logp(token_logp, mask), samples).rename("entropy")


def entropy_per_token(prompt_ids: Sequence[str], token_logp: np.ndarray, mask: np.ndarray, samples: int) -> pd.Series:
    """The same with every answer's log-probability divided by its tokens, nats a token. Reported, never ranked by."""
    logp = sequence_logp(token_logp, mask) / token_counts(mask)
    return -mean_by_prompt(prompt_ids, logp, samples).rename("entropy_per_token")


def implicit_reward(logp: np.ndarray, ref_logp: np.ndarray, beta: float) -> np.ndarray:
    """DPO's implicit reward beta (log pi - log ref) of every answer, up to its prompt's constant, shape (answers,)."""
    return beta * (np.asarray(logp, dtype=np.float64) - np.asarray(ref_logp, dtype=np.float64))


def margin_by_prompt(prompt_ids: Sequence[str], sample_ids: Sequence[int], rewards: np.ndarray) -> pd.Series:
    """Reward of answer 0 minus reward of answer 1 to each prompt, signed, prompts in the order of their first answer.

    Raises ValueError unless every prompt has exactly the answers 0 and 1.
    """
    frame = pd.DataFrame(
        {"prompt_id": list(prompt_ids), "sample": list(sample_ids), "reward": np.asarray(rewards, dtype=np.float64)}
    )
    order = frame["prompt_id"].drop_duplicates()
    for prompt, samples in frame.groupby("prompt_id", sort=False)["sample"]:
        if sorted(samples) != [0, 1]:
            raise ValueError(f"prompt {prompt!r} has the answers {sorted(samples)}, not 0 and 1")
    wide = frame.pivot(index="prompt_id", columns="sample", values="reward").loc[order]
    return (wide[0] - wide[1]).rename("margin")


def preference_probability(margin: np.ndarray) -> np.ndarray:
    """P(the first answer is better) under the implicit Bradley-Terry model: sigma(margin)."""
    return 1.0 / (1.0 + np.exp(-np.asarray(margin, dtype=np.float64)))


def uncertainty(margin: np.ndarray) -> np.ndarray:
    """u = 1 - 2 |sigma(margin) - 1/2|, in [0, 1], 1 where the model cannot tell; written as 2 sigma(-|margin|)."""
    return 2.0 * preference_probability(-np.abs(np.asarray(margin, dtype=np.float64)))
