"""Log-probabilities under the frozen reference: computed once, keyed by everything that they depend on."""

from typing import Any

import numpy as np
import pandas as pd
import torch
from torch import nn

from marginbench.errors import UserError
from marginbench.identity import content_id
from marginbench.job import Progress, quiet
from marginbench.training.batches import PairCollator
from marginbench.training.pair_logps import autocast, pair_log_probs, prepare_log_probs

KEY_PARTS = ("model", "template", "max_length", "precision")


def reference_key(*, model_hash: str, template_hash: str, max_length: int, precision: str) -> str:
    """What a whole table depends on, readable so that a difference has a name: `model-template-max_length-precision`.

    A row's `cache_key` is this and the hash of the pair's own tokens, so a table may be used for some of its pairs, and
    a pair whose tokens have changed is found.
    """
    return "-".join(
        [content_id(model_hash, length=12), content_id(template_hash, length=12), str(max_length), precision]
    )


def pair_keys(tokens: pd.DataFrame, key: str) -> list[str]:
    """The `cache_key` of every pair: the table's key and the hash of the pair's token lists."""
    return [f"{key}-{content_id(*(list(map(int, ids)) for ids in lists))}" for lists in _lists(tokens)]


def different_parts(key: str, expected: str) -> list[str]:
    """Names of the parts in which two table keys differ; all of them when a key has another shape."""
    found, wanted = key.split("-"), expected.split("-")
    if len(found) != len(KEY_PARTS):
        return list(KEY_PARTS)
    return [name for name, a, b in zip(KEY_PARTS, found, wanted, strict=True) if a != b]


@torch.no_grad()
def compute_reference(
    model: nn.Module,
    tokens: pd.DataFrame,
    *,
    max_length: int,
    precision: str,
    batch_size: int,
    model_hash: str,
    template_hash: str,
    pad_id: int,
    progress: Progress = quiet,
) -> pd.DataFrame:
    """Summed log-probabilities of every pair under a frozen model.

    Args:
        model: the reference; put into evaluation mode.
        tokens: PAIR_TOKENS rows.
        max_length: longest sequence that the pairs were cut to; a longer one is an error, never cut here.
        precision: `fp32` or `bf16` (autocast), as in training, so that policy = reference at the first step.
        batch_size: pairs per forward pass. Pairs of like length meet, so little is padded.
        model_hash, template_hash: what the key is made of, beside the tokens, max_length and precision.
        pad_id: token id used for padding.
        progress: called with pairs done.

    Returns:
        REFERENCE rows in the order of `tokens`.
    """
    lengths = np.array([len(p) + max(len(c), len(r)) for p, c, r in _lists(tokens)])
    if len(lengths) and lengths.max() > max_length:
        row = int(lengths.argmax())
        raise UserError(
            f"pair tokens, row {row} (pair {tokens['pair_id'].iloc[row]}): {lengths[row]} tokens, "
            f"max_length is {max_length}; tokenise again with this max_length"
        )
    device = torch.device("cuda" if torch.cuda.is_available() else "cpu")
    model = model.to(device).eval()
    prepare_log_probs(model)
    collate = PairCollator(pad_id)
    rows, places = _each_answer_once(tokens)
    found = np.full((len(rows), 4), np.nan)
    order = np.argsort(
        [-len(r["prompt_ids"]) - max(len(r["chosen_ids"]), len(r["rejected_ids"])) for r in rows], kind="stable"
    )
    for start in range(0, len(order), batch_size):
        chunk = order[start : start + batch_size]
        batch = collate.torch_call([rows[i] for i in chunk])
        with autocast(device, precision):
            logps = pair_log_probs(model, {name: value.to(device) for name, value in batch.items()})
        found[chunk] = torch.stack(logps, dim=1).double().cpu().numpy()
        progress(start + len(chunk), len(order), "reference")
    values = np.array([[found[row, side] for row, side in place] for place in places]).reshape(-1, 2)
    counts = np.array([[found[row, 2 + side] for row, side in place] for place in places]).reshape(-1, 2)
    if not np.isfinite(values).all():
        row = int(np.argmin(np.isfinite(values).all(axis=1)))
        raise UserError(f"reference: pair {tokens['pair_id'].iloc[row]} has no finite log-probability; check the model")
    key = reference_key(model_hash=model_hash, template_hash=template_hash, max_length=max_length, precision=precision)
    return pd.DataFrame(
        {
            "pair_id": tokens["pair_id"].to_numpy(),
            "ref_chosen_logp": values[:, 0],
            "ref_rejected_logp": values[:, 1],
            "chosen_len": counts[:, 0].astype(np.int64),
            "rejected_len": counts[:, 1].astype(np.int64),
            "cache_key": pair_keys(tokens, key),
        }
    )


def _each_answer_once(tokens: pd.DataFrame) -> tuple[list[dict[str, Any]], list[tuple[tuple[int, int], ...]]]:
    """Rows of two answers to one prompt in which every different answer stands once (but for an odd one, twice).

    Where samples of a prompt meet in several pairs, this saves most of the pass, and an answer has one log-probability
    whatever pair it is in. Also returned: for every pair, the (row, side) of its chosen and of its rejected answer.
    """
    answers: dict[tuple[int, ...], dict[tuple[int, ...], None]] = {}
    pairs = [tuple(tuple(map(int, ids)) for ids in lists) for lists in _lists(tokens)]
    for prompt, *both in pairs:
        answers.setdefault(prompt, {}).update(dict.fromkeys(both))
    rows: list[dict[str, Any]] = []
    place: dict[tuple, tuple[int, int]] = {}
    for prompt, found in answers.items():
        listed = list(found)
        for i in range(0, len(listed), 2):
            one, other = listed[i], listed[min(i + 1, len(listed) - 1)]
            place[prompt, other], place[prompt, one] = (len(rows), 1), (len(rows), 0)
            row = {"row": len(rows), "prompt_ids": list(prompt), "chosen_ids": list(one), "rejected_ids": list(other)}
            rows.append(row)
    return rows, [(place[prompt, chosen], place[prompt, rejected]) for prompt, chosen, rejected in pairs]


def pair_rows(tokens: pd.DataFrame) -> list[dict[str, Any]]:
    """Rows for the collator, with `row` the position in `tokens`."""
    return [
        {"row": i, "prompt_ids": list(p), "chosen_ids": list(c), "rejected_ids": list(r)}
        for i, (p, c, r) in enumerate(_lists(tokens))
    ]


def answer_sequences(tokens: pd.DataFrame) -> list[list[int]]:
    """Prompt + answer ids of both sides of every pair, chosen first."""
    return [row["prompt_ids"] + row[side] for row in pair_rows(tokens) for side in ("chosen_ids", "rejected_ids")]


def join_reference(
    tokens: pd.DataFrame, reference: pd.DataFrame, expected_key: str, ignore: tuple[str, ...] = ()
) -> pd.DataFrame:
    """Tokenised pairs with their reference log-probabilities, joined by pair_id, in the order of `tokens`.

    Args:
        tokens: PAIR_TOKENS rows.
        reference: REFERENCE rows, for at least these pairs.
        expected_key: `reference_key` of this run.
        ignore: parts of the key that the caller cannot know.

    Raises:
        UserError: a pair is missing; the reference was made for other weights, template, max_length, precision or
            tokens.
    """
    known = reference.set_index("pair_id", verify_integrity=True)
    missing = tokens.loc[~tokens["pair_id"].isin(known.index), "pair_id"]
    if len(missing):
        raise UserError(
            f"reference log-probabilities: {len(missing)} of {len(tokens)} pairs are missing, "
            f"the first is {missing.iloc[0]}; compute them again for these pairs"
        )
    joined = tokens.join(known, on="pair_id")
    for pair_id, key, wanted in zip(
        joined["pair_id"], joined["cache_key"], pair_keys(tokens, expected_key), strict=True
    ):
        (table, _, own), (wanted_table, _, wanted_own) = key.rpartition("-"), wanted.rpartition("-")
        wrong = [part for part in different_parts(table, wanted_table) if part not in ignore]
        wrong += ["tokens"] if own != wanted_own else []
        if wrong:
            raise UserError(
                f"reference log-probabilities: pair {pair_id}: made with another {', '.join(wrong)} than this run uses "
                f"({key}, expected {wanted}); compute them again"
            )
    return joined


def _lists(tokens: pd.DataFrame) -> Any:
    return tokens[["prompt_ids", "chosen_ids", "rejected_ids"]].itertuples(index=False)
