"""Margins by a reward model that was trained elsewhere: a sequence classifier with one label, from the hub or a folder.

The texts are read with the reward model's own tokenizer and chat template, and the score is what its own forward pass
gives (so an answer's last token is found by the model's own pad token). Two things are required before it may score:
every weight of the architecture is in the files and none is left over, because a head that silently stayed random
gives scores that look like scores; and in a sanity set the known better answer wins, because a model with all its
weights may still be read with a wrong template or a turned sign.
"""

from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import pandas as pd
import torch
from transformers import AutoModelForSequenceClassification, PreTrainedModel, PreTrainedTokenizerBase

from marginbench.data.messages import Messages, chat_prompt, plain_prompt
from marginbench.errors import UserError
from marginbench.files import read_jsonl
from marginbench.identity import content_id, file_sha256
from marginbench.job import Progress, quiet
from marginbench.margins.rows import margin_rows
from marginbench.models.loading import folder_tokenizer, load_checked, model_folder
from marginbench.models.reward_head import reward_scores
from marginbench.models.template import Format, adds_bos, check_single_bos, template_hash
from marginbench.study import FolderRewardModel, HubRewardModel

SCORER = "hub_reward_model"
SANITY_KEYS = {"prompt", "good", "bad"}

Score = Callable[[Sequence[list[int]]], list[float]]


def load_classifier(folder: Path, precision: str) -> PreTrainedModel:
    """The sequence classifier of a folder, in eval mode on the CPU, every weight accounted for.

    Raises UserError when a weight is missing, has another shape, or has no place in the architecture, or when there is
    not exactly one label. Code that comes with a model is never run.
    """
    model, report = load_checked(AutoModelForSequenceClassification, folder, precision, "sequence classifier")
    if report["unexpected_keys"]:
        left = sorted(report["unexpected_keys"])
        raise UserError(
            f"{folder}: the weight {left[0]} ({len(left)} such) has no place in {type(model).__name__}, so this is not "
            "the model that was trained; give a reward model of an architecture that transformers knows"
        )
    if model.config.num_labels != 1:
        raise UserError(f"{folder}: has {model.config.num_labels} labels; a reward model has one (num_labels 1)")
    return model


def encode_text(
    tokenizer: PreTrainedTokenizerBase, prompt: Messages, answer: str, format: Format, max_length: int
) -> tuple[list[int], bool]:
    """Token ids of prompt and answer as the reward model reads them, and whether they were cut to `max_length`.

    A chat goes through the tokenizer's own template, the answer as its last turn; a plain prompt and its answer are one
    text, with the special tokens that the tokenizer puts around a text. Exactly one BOS where it uses one.
    """
    if format == "plain":
        text = "".join(message["content"] for message in prompt) + answer
        ids = list(tokenizer(text)["input_ids"])
        cut = len(ids) > max_length
        if cut:
            ids = list(tokenizer(text, truncation=True, max_length=max_length)["input_ids"])
    else:
        if not tokenizer.chat_template:
            raise UserError("hub_reward_model: its tokenizer has no chat template, so it cannot read chats")
        turns = [*({"role": m["role"], "content": m["content"]} for m in prompt), _turn("assistant", answer)]
        ids = list(tokenizer.apply_chat_template(turns, add_generation_prompt=False, return_dict=False))
        if adds_bos(tokenizer) and ids[:1] != [tokenizer.bos_token_id]:
            ids = [tokenizer.bos_token_id, *ids]
        cut = len(ids) > max_length
        ids = ids[:max_length]
    check_single_bos(ids, tokenizer)
    return ids, cut


def _turn(role: str, content: str) -> dict[str, str]:
    return {"role": role, "content": content}


def read_sanity(path: str | Path) -> list[dict[str, str]]:
    """Rows `prompt`, `good`, `bad` of a sanity set (JSONL). Raises UserError naming the first bad line."""
    rows = read_jsonl(path)
    for number, row in enumerate(rows, start=1):
        whole = isinstance(row, dict) and set(row) == SANITY_KEYS
        if not whole or not all(isinstance(text, str) and text.strip() for text in row.values()):
            raise UserError(f"{path}, line {number}: a row holds the texts `prompt`, `good` and `bad` and nothing else")
        if row["good"] == row["bad"]:
            raise UserError(f"{path}, line {number}: `good` and `bad` are the same text")
    if not rows:
        raise UserError(f"{path}: the file is empty; a sanity set has at least one row")
    return rows


def check_sanity(score: Score, encode: Callable[..., tuple[list[int], bool]], path: str | Path, allowed: int) -> None:
    """Raise UserError when the known better answer does not win (a tie is lost) in more than `allowed` rows.

    Args:
        score: scores of token sequences.
        encode: `encode(prompt, answer)`, token ids as the pairs have them; the prompt is a text here.
        path: the sanity set.
    """
    rows = read_sanity(path)
    scores = score([encode(row["prompt"], row[side])[0] for side in ("good", "bad") for row in rows])
    lost = [n for n in range(len(rows)) if not scores[n] > scores[n + len(rows)]]
    if len(lost) > allowed:
        named = ", ".join(f"line {n + 1} (`{_short(rows[n]['prompt'])}`)" for n in lost)
        raise UserError(
            f"hub_reward_model: the known better answer loses in {len(lost)} of {len(rows)} rows of {path} "
            f"({allowed} may be lost): {named}; check that this is a reward model for such texts, or name a sanity set "
            "of your own under hub_reward_model.sanity"
        )


def _short(text: str) -> str:
    text = " ".join(text.split())
    return text if len(text) <= 40 else text[:37] + "..."


def score_pairs(
    spec: HubRewardModel | FolderRewardModel,
    pairs: pd.DataFrame,
    tokens: pd.DataFrame,
    *,
    format: Format,
    sanity: str | Path,
    progress: Progress = quiet,
) -> pd.DataFrame:
    """MARGINS of every pair of PAIR_TOKENS, in its order. Equal texts are scored once.

    Args:
        spec: which reward model, and how it is run.
        pairs: PAIRS rows, for at least the pairs of `tokens`; their texts are what is read.
        tokens: PAIR_TOKENS rows; only their pair_id.
        format: `plain` or `chat`, of the pairs and of the sanity set.
        sanity: the sanity set.

    Raises:
        UserError: as `load_classifier` and `check_sanity`; a pair whose answers are equal once cut; a score that is not
            finite.
    """
    folder = model_folder(spec)
    tokenizer, model = folder_tokenizer(folder), load_classifier(folder, spec.precision)
    limit = getattr(model.config.get_text_config(), "max_position_embeddings", None)
    if limit and spec.max_length > limit:
        raise UserError(f"hub_reward_model.max_length: {spec.max_length} is more than the model's {limit}; lower it")
    if torch.cuda.is_available():
        model = model.to("cuda")

    def encode(prompt: Messages | str, answer: str) -> tuple[list[int], bool]:
        if isinstance(prompt, str):
            prompt = plain_prompt(prompt) if format == "plain" else chat_prompt(prompt.strip())
            answer = answer if format == "plain" else answer.strip()
        return encode_text(tokenizer, prompt, answer, format, spec.max_length)

    pad_id = model.config.get_text_config().pad_token_id
    # Without a pad token the classifier cannot find the end of a padded text, and takes one text at a time.
    padding: dict[str, Any] = {"pad_id": pad_id or 0, "batch_size": 1 if pad_id is None else spec.batch_size}
    check_sanity(lambda texts: reward_scores(model, texts, **padding), encode, sanity, spec.sanity_losses)
    texts = pairs.set_index("pair_id", verify_integrity=True).loc[tokens["pair_id"]]
    both = [
        encode(list(prompt), answer)
        for side in ("chosen", "rejected")
        for prompt, answer in zip(texts["prompt"], texts[side], strict=True)
    ]
    n = len(tokens)
    print(f"{sum(cut for _, cut in both)} of {2 * n} texts were cut to {spec.max_length} tokens")
    for pair_id, (chosen, _), (rejected, _) in zip(tokens["pair_id"], both[:n], both[n:], strict=True):
        if chosen == rejected:
            raise UserError(
                f"hub_reward_model: the answers of pair {pair_id} are the same within {spec.max_length} tokens; "
                "raise hub_reward_model.max_length"
            )
    scores = torch.tensor(
        reward_scores(model, [ids for ids, _ in both], **padding, progress=progress), dtype=torch.float64
    ).reshape(2, n)
    finite = torch.isfinite(scores).all(0)
    if not finite.all():
        bad = tokens["pair_id"].iloc[int(finite.int().argmin())]
        raise UserError(f"{folder}: the score of pair {bad} is not finite; use precision fp32 or another reward model")
    return margin_rows(
        tokens["pair_id"],
        scores[0].numpy(),
        scores[1].numpy(),
        scorer=SCORER,
        scorer_hash=_hash(folder, spec, template_hash(tokenizer, format)),
    )


def _hash(folder: Path, spec: HubRewardModel | FolderRewardModel, template: str) -> str:
    weights = {file.name: file_sha256(file) for file in folder.glob("*.safetensors")}
    return content_id(SCORER, weights, template, spec.max_length, spec.precision, length=32)
