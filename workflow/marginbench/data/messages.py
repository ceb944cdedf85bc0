"""Prompts and answers in one shape: a list of messages `{"role", "content"}`; a plain prompt has the role `text`."""

from typing import Any

Messages = list[dict[str, str]]

ROLES = {
    "system": "system",
    "user": "user",
    "human": "user",
    "prompter": "user",
    "assistant": "assistant",
    "gpt": "assistant",
    "model": "assistant",
    "tool": "tool",
    "text": "text",
}
"""Names of roles in common datasets -> the names used here."""


class MessageError(ValueError):
    """A value that is no message, with the reason. Readers turn it into a counted problem of the row."""


def plain_prompt(text: str) -> Messages:
    """A prompt that is continued as text, without a chat template."""
    return [{"role": "text", "content": text}]


def chat_prompt(text: str) -> Messages:
    """A prompt that is one user turn."""
    return [{"role": "user", "content": text}]


def _message(value: Any) -> dict[str, str]:
    if not isinstance(value, dict):
        raise MessageError(f"a message must be an object with role and content, not {type(value).__name__}")
    role = value.get("role", value.get("from"))
    content = value.get("content", value.get("value"))
    if not isinstance(role, str) or role.lower() not in ROLES:
        raise MessageError(f"the role {role!r} is not one of {', '.join(ROLES)}")
    if not isinstance(content, str):
        raise MessageError(f"the content of a {role} message must be a string, not {type(content).__name__}")
    return {"role": ROLES[role.lower()], "content": content}


def as_messages(value: Any) -> Messages:
    """Messages of a list of objects (role/content or from/value), of one such object, or of an object of lists.

    Raises MessageError with the reason; an empty list is one.
    """
    if isinstance(value, dict):
        lists = [v for v in value.values() if isinstance(v, list)]
        if lists and len(lists) == len(value) and len({len(v) for v in lists}) == 1:
            value = [dict(zip(value, row, strict=True)) for row in zip(*value.values(), strict=True)]
        else:
            value = [value]
    if not isinstance(value, list):
        raise MessageError(f"expected a list of messages, not {type(value).__name__}")
    if not value:
        raise MessageError("the list of messages is empty")
    return [_message(message) for message in value]


def plain_text(messages: Messages) -> str:
    """The text of a prompt: a single message as it is; several as `Role: content` blocks (for people and judges)."""
    if not messages:
        raise MessageError("the list of messages is empty")
    if len(messages) == 1:
        return messages[0]["content"]
    return "\n\n".join(f"{message['role'].capitalize()}: {message['content']}" for message in messages)
