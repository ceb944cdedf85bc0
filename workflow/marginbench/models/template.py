"""From messages to token ids: the one place that decides about BOS, the chat template and the end token.

A plain prompt is one message of role `text` and is continued as it stands. A chat prompt goes through the model's own
template with the generation prompt at its end. Pads are never recognised by their id: many models (SmolLM2 too) pad
with the end token, so every consumer masks by the attention mask.
"""

import itertools
from collections.abc import Sequence
from typing import Literal

from transformers import PreTrainedTokenizerBase

from marginbench.errors import UserError
from marginbench.identity import content_id

Format = Literal["plain", "chat"]
_PROBE = "probe"


def adds_bos(tokenizer: PreTrainedTokenizerBase) -> bool:
    """Whether the tokenizer by its own convention puts a BOS in front of a text."""
    if tokenizer.bos_token_id is None:
        return False
    ids = tokenizer(_PROBE)["input_ids"]
    return bool(ids) and ids[0] == tokenizer.bos_token_id


def check_single_bos(ids: Sequence[int], tokenizer: PreTrainedTokenizerBase) -> None:
    """Raise UserError on two BOS in a row, or on none where the tokenizer's convention is one.

    A BOS that returns later is no error: some templates open every turn with it (SmolLM2's `<|im_start|>`).
    """
    bos = tokenizer.bos_token_id
    if bos is None:
        return
    if any(left == bos == right for left, right in itertools.pairwise(ids)):
        raise UserError(
            f"two `{tokenizer.bos_token}` tokens in a row in a tokenised text; remove `{tokenizer.bos_token}` from the "
            "data, or from the chat template"
        )
    if adds_bos(tokenizer) and (not ids or ids[0] != bos):
        raise UserError(f"a tokenised prompt does not start with the tokenizer's `{tokenizer.bos_token}`")


def encode_prompt(tokenizer: PreTrainedTokenizerBase, messages: Sequence[dict[str, str]], format: Format) -> list[int]:
    """Token ids of a prompt, generation prompt included for chats, with exactly one BOS if the tokenizer uses one.

    Raises UserError when the messages do not fit the format, or the tokenizer has no chat template.
    """
    messages = [{"role": message["role"], "content": message["content"]} for message in messages]
    roles = [message["role"] for message in messages]
    if format == "plain":
        if roles != ["text"]:
            raise UserError(f"a plain prompt is one message of role `text`, got roles {roles}; use format: chat")
        ids = list(tokenizer(messages[0]["content"], add_special_tokens=False)["input_ids"])
    elif format == "chat":
        if not messages or "text" in roles:
            raise UserError(f"a chat prompt needs roles such as `user`, got {roles}; use format: plain")
        if not tokenizer.chat_template:
            raise UserError("the model's tokenizer has no chat template; use format: plain, or a chat model")
        ids = list(tokenizer.apply_chat_template(messages, add_generation_prompt=True, return_dict=False))
    else:
        raise ValueError(f"format {format!r} is neither plain nor chat")
    if adds_bos(tokenizer) and ids[:1] != [tokenizer.bos_token_id]:
        ids = [tokenizer.bos_token_id, *ids]
    if not ids:
        raise UserError("a prompt is empty once tokenised; drop the row, or use format: chat")
    check_single_bos(ids, tokenizer)
    return ids


def end_token_id(tokenizer: PreTrainedTokenizerBase, format: Format) -> int:
    """The token that ends an answer: the template's end of turn for chats, the tokenizer's EOS otherwise."""
    if format == "chat" and tokenizer.chat_template:
        turns = [{"role": "user", "content": "q"}, {"role": "assistant", "content": _PROBE}]
        text = tokenizer.apply_chat_template(turns, tokenize=False)
        tail = tokenizer(text[text.rindex(_PROBE) + len(_PROBE) :], add_special_tokens=False)["input_ids"]
        special = set(tokenizer.all_special_ids) | set(tokenizer.added_tokens_decoder)
        for token in tail:
            if token in special and token != tokenizer.bos_token_id:
                return token
    if tokenizer.eos_token_id is None:
        raise UserError("the model's tokenizer has no end token (eos_token); add one to its tokenizer_config.json")
    return tokenizer.eos_token_id


def encode_answer(tokenizer: PreTrainedTokenizerBase, text: str, ended: bool, format: Format = "plain") -> list[int]:
    """Token ids of an answer without BOS, followed by the end token if and only if the answer is complete."""
    ids = list(tokenizer(text, add_special_tokens=False)["input_ids"])
    return [*ids, end_token_id(tokenizer, format)] if ended else ids


def template_hash(tokenizer: PreTrainedTokenizerBase, format: Format) -> str:
    """Hash of everything here that turns the same messages into other ids: format, template, special tokens."""
    return content_id(
        "template",
        format,
        tokenizer.chat_template if format == "chat" else None,
        {name: str(token) for name, token in tokenizer.special_tokens_map.items()},
        adds_bos(tokenizer),
    )
