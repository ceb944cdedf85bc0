"""What is measured on answers without a judge: ground-truth reward, KL, length, repetition."""

from collections.abc import Sequence
from typing import Any

import pandas as pd

from marginbench.data.classifier import TextClassifier, true_reward
from marginbench.generation.measures import repeated_trigrams


def measure_answers(answers: Sequence[dict[str, Any]], ground_truth: TextClassifier | None) -> pd.DataFrame:
    """ANSWER_SCORES rows, one for each answer, in order.

    Args:
        answers: rows of an answers file.
        ground_truth: scores prompt + answer; None where the corpus has no ground truth, and then the reward is null.
    """
    full_texts = [answer["prompt_text"] + answer["text"] for answer in answers]
    rewards = [None] * len(answers) if ground_truth is None else true_reward(ground_truth, full_texts).tolist()
    return pd.DataFrame(
        [
            {
                "answer_id": answer["answer_id"],
                "question_id": answer["question_id"],
                "true_reward": reward,
                "kl": answer["kl"],
                "n_tokens": answer["n_tokens"],
                "n_chars": len(answer["text"]),
                "repeated_trigrams": repeated_trigrams(answer["text"]),
                "truncated": answer["finish_reason"] == "length",
            }
            for answer, reward in zip(answers, rewards, strict=True)
        ]
    )
