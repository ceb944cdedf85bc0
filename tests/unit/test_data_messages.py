"""Prompts and answers in one shape."""

import pytest
from marginbench.data.messages import MessageError, as_messages, plain_prompt, plain_text


def test_the_usual_spellings_give_the_same_messages():
    want = [{"role": "system", "content": "s"}, {"role": "user", "content": "u"}, {"role": "assistant", "content": "a"}]
    assert as_messages(want) == want
    sharegpt = [{"from": "system", "value": "s"}, {"from": "human", "value": "u"}, {"from": "gpt", "value": "a"}]
    assert as_messages(sharegpt) == want
    assert as_messages({"role": ["system", "user", "assistant"], "content": ["s", "u", "a"]}) == want
    assert as_messages({"from": "gpt", "value": "a"}) == want[2:]


@pytest.mark.parametrize(
    ("value", "words"),
    [
        ([], "empty"),
        ("text", "not str"),
        ([{"role": "robot", "content": "x"}], "robot"),
        ([{"role": "user", "content": None}], "NoneType"),
        ([{"role": "user"}], "content of a user"),
        (["text"], "object with role"),
        ([{"content": "x"}], "None"),
    ],
)
def test_what_is_no_message_is_refused_with_the_reason(value, words):
    with pytest.raises(MessageError, match=words):
        as_messages(value)


def test_plain_text_keeps_a_single_message_and_labels_several():
    assert plain_text(plain_prompt("It was ")) == "It was "
    two = [{"role": "user", "content": "Hi"}, {"role": "assistant", "content": "Hello"}]
    assert plain_text(two) == "User: Hi\n\nAssistant: Hello"
    with pytest.raises(MessageError):
        plain_text([])
