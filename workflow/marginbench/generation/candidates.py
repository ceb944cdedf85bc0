"""Candidate answers of the SFT start, from which preference pairs are constructed."""

from pathlib import Path

import pandas as pd

from marginbench.generation.engine import Prompt
from marginbench.generation.policy import Policy
from marginbench.job import Progress, quiet
from marginbench.models.template import Format, encode_prompt
from marginbench.study import Decoding


def sample_candidates(
    start_manifest: str | Path,
    texts: pd.DataFrame,
    format: Format,
    decoding: Decoding,
    seed: int,
    progress: Progress = quiet,
) -> pd.DataFrame:
    """CANDIDATES rows: `decoding.samples_per_prompt` answers to every prompt, prompts in file order.

    Args:
        start_manifest: the SFT start.
        texts: TEXTS rows of role `prompt`.
        seed: of the sampling streams, which also depend on (prompt, sample).
    """
    policy = Policy(start_manifest)
    prompts = [
        Prompt(text_id, encode_prompt(policy.tokenizer, messages, format))
        for text_id, messages in zip(texts["text_id"], texts["prompt"], strict=True)
    ]
    answers, _ = policy.generate(prompts, decoding, seed, progress)
    return pd.DataFrame(
        [
            {
                "prompt_id": answer.prompt_id,
                "sample": answer.sample,
                "text": answer.text,
                "n_tokens": answer.n_tokens,
                "finish_reason": answer.finish_reason,
            }
            for answer in answers
        ]
    )
