"""Preference pairs to token ids: once, for every stage that reads pairs."""

from typing import Any

import pandas as pd
from transformers import PreTrainedTokenizerBase

from marginbench.errors import UserError
from marginbench.models.template import Format, encode_answer, encode_prompt


def tokenise_pairs(
    pairs: pd.DataFrame, tokenizer: PreTrainedTokenizerBase, format: Format, max_length: int
) -> tuple[pd.DataFrame, dict[str, Any]]:
    """Token ids of every pair, cut to `max_length` from the right.

    An answer that does not fit beside its prompt is cut and counted; a cut answer has no end token, so the model does
    not learn to stop there. Pairs that can teach nothing are dropped and counted: the prompt alone fills `max_length`,
    an answer without tokens, answers that are equal once cut.

    Args:
        pairs: PAIRS rows.
        tokenizer: the model's tokenizer.
        format: `plain` or `chat`.
        max_length: longest sequence of prompt and answer, in tokens.

    Returns:
        PAIR_TOKENS rows in the order of `pairs`, and a report of counts.

    Raises:
        UserError: no pair is left; a prompt that the tokenizer cannot encode.
    """
    prompts: dict[str, list[int]] = {}
    rows: list[dict[str, Any]] = []
    report = {
        "pairs": len(pairs),
        "kept": 0,
        "max_length": max_length,
        "longest": 0,
        "cut_chosen": 0,
        "cut_rejected": 0,
        "dropped_long_prompt": 0,
        "dropped_empty_answer": 0,
        "dropped_equal_answers": 0,
    }
    for pair in pairs.itertuples(index=False):
        if pair.prompt_id not in prompts:
            prompts[pair.prompt_id] = encode_prompt(tokenizer, list(pair.prompt), format)
        prompt = prompts[pair.prompt_id]
        room = max_length - len(prompt)
        if room <= 0:
            report["dropped_long_prompt"] += 1
            continue
        chosen = encode_answer(tokenizer, pair.chosen, bool(pair.chosen_ended), format)
        rejected = encode_answer(tokenizer, pair.rejected, bool(pair.rejected_ended), format)
        if not chosen or not rejected:
            report["dropped_empty_answer"] += 1
            continue
        if chosen[:room] == rejected[:room]:
            report["dropped_equal_answers"] += 1
            continue
        report["cut_chosen"] += len(chosen) > room
        report["cut_rejected"] += len(rejected) > room
        chosen, rejected = chosen[:room], rejected[:room]
        report["longest"] = max(report["longest"], len(prompt) + max(len(chosen), len(rejected)))
        rows.append(
            {
                "pair_id": pair.pair_id,
                "split": pair.split,
                "prompt_ids": list(prompt),
                "chosen_ids": chosen,
                "rejected_ids": rejected,
            }
        )
    report["kept"] = len(rows)
    if not rows:
        reasons = ", ".join(f"{key} {count}" for key, count in report.items() if key.startswith("dropped") and count)
        raise UserError(
            f"tokenised pairs: none of {len(pairs)} pairs is left ({reasons or 'there were none'}); "
            f"raise max_length (now {max_length}) or shorten the prompts"
        )
    return pd.DataFrame(rows, columns=["pair_id", "split", "prompt_ids", "chosen_ids", "rejected_ids"]), report
