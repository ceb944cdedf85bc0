"""Prompts to token ids: one BOS, the end token where it belongs, hashes that see what matters."""

import pytest
from marginbench.errors import UserError
from marginbench.models.template import (
    adds_bos,
    check_single_bos,
    encode_answer,
    encode_prompt,
    end_token_id,
    template_hash,
)
from marginbench.models.toy import toy_tokenizer

PLAIN = [{"role": "text", "content": "I saw the movie"}]
CHAT = [{"role": "user", "content": "How was it?"}]


@pytest.mark.parametrize(("messages", "format"), [(PLAIN, "plain"), (CHAT, "chat")])
def test_exactly_one_bos_if_the_tokenizer_uses_one(messages: list, format: str) -> None:
    tokenizer = toy_tokenizer(bos=True)
    assert adds_bos(tokenizer)
    ids = encode_prompt(tokenizer, messages, format)
    assert ids[0] == tokenizer.bos_token_id
    assert ids.count(tokenizer.bos_token_id) == 1


def test_a_template_without_bos_gets_the_tokenizers() -> None:
    tokenizer = toy_tokenizer(bos=True)
    tokenizer.chat_template = tokenizer.chat_template.replace("{{ bos_token }}", "")
    assert encode_prompt(tokenizer, CHAT, "chat").count(tokenizer.bos_token_id) == 1


def test_no_bos_where_the_tokenizer_uses_none() -> None:
    tokenizer = toy_tokenizer()
    assert not adds_bos(tokenizer)
    assert tokenizer.decode(encode_prompt(tokenizer, PLAIN, "plain")) == "I saw the movie"
    assert tokenizer.decode(encode_prompt(tokenizer, CHAT, "chat")) == "<|user|>How was it?<|end|><|assistant|>"


def test_a_double_bos_is_refused() -> None:
    tokenizer = toy_tokenizer(bos=True)
    rendered = tokenizer.apply_chat_template(CHAT, tokenize=False)
    with pytest.raises(UserError, match=r"two `<\|begin\|>`"):
        check_single_bos(tokenizer(rendered)["input_ids"], tokenizer)  # the classic mistake: template, then tokenizer
    doubled = toy_tokenizer(bos=True)
    doubled.chat_template = "{{ bos_token }}" + doubled.chat_template
    with pytest.raises(UserError, match=r"two `<\|begin\|>`"):
        encode_prompt(doubled, CHAT, "chat")
    with pytest.raises(UserError, match="does not start with"):
        check_single_bos([5, 6], tokenizer)


def test_bos_as_turn_marker_is_allowed() -> None:
    tokenizer = toy_tokenizer()
    tokenizer.bos_token = "<|user|>"  # SmolLM2 opens every turn with its bos token
    turns = [*CHAT, {"role": "assistant", "content": "Good."}, *CHAT]
    assert encode_prompt(tokenizer, turns, "chat").count(tokenizer.bos_token_id) == 2


def test_the_end_token_follows_an_answer_only_if_it_ended() -> None:
    tokenizer = toy_tokenizer(bos=True)
    ended, cut = (encode_answer(tokenizer, " it was fun", flag) for flag in (True, False))
    assert ended == [*cut, tokenizer.eos_token_id]
    assert tokenizer.bos_token_id not in ended
    assert tokenizer.decode(cut) == " it was fun"


def test_a_chat_ends_with_the_templates_end_of_turn() -> None:
    tokenizer = toy_tokenizer()
    tokenizer.eos_token = "<|begin|>"  # like Gemma: turns end with a token that is not the eos token
    assert end_token_id(tokenizer, "chat") == tokenizer.convert_tokens_to_ids("<|end|>")
    assert end_token_id(tokenizer, "plain") == tokenizer.eos_token_id


@pytest.mark.parametrize(
    ("messages", "format", "message"),
    [
        (CHAT, "plain", "one message of role `text`"),
        (PLAIN, "chat", "format: plain"),
        ([*PLAIN, *PLAIN], "plain", "one message of role `text`"),
        ([{"role": "text", "content": ""}], "plain", "empty"),
    ],
)
def test_messages_that_do_not_fit_the_format_are_refused(messages: list, format: str, message: str) -> None:
    with pytest.raises(UserError, match=message):
        encode_prompt(toy_tokenizer(), messages, format)


def test_a_chat_without_a_template_is_refused() -> None:
    tokenizer = toy_tokenizer()
    tokenizer.chat_template = None
    with pytest.raises(UserError, match="no chat template"):
        encode_prompt(tokenizer, CHAT, "chat")


def test_the_hash_sees_template_format_and_special_tokens() -> None:
    tokenizer = toy_tokenizer()
    hashes = [template_hash(tokenizer, "plain"), template_hash(tokenizer, "chat")]
    hashes.append(template_hash(toy_tokenizer(bos=True), "plain"))
    tokenizer.chat_template += " "
    assert template_hash(tokenizer, "plain") == hashes[0]
    hashes.append(template_hash(tokenizer, "chat"))
    assert len(set(hashes)) == 4
