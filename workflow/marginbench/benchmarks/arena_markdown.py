"""What style control looks at in an answer: its length in tokens, and counts of headers, list items and bold text.

Recorded counts of an answer file are used as they are; what is missing is counted here. Source: arena-hard-auto's
`add_markdown_info.py`.
"""

import re
from collections.abc import Callable
from typing import Any

from marginbench.benchmarks.arena_scores import Version
from marginbench.errors import UserError

ENCODINGS: dict[Version, str] = {"v0.1": "cl100k_base", "v2.0": "o200k_base"}
"""tiktoken's encoding behind `token_len`: that of gpt-3.5-turbo and of gpt-4o."""

_CODE = re.compile("```([^`]*)```")
_PATTERNS = {
    "header_count": {f"h{level}": re.compile(rf"^#{{{level}}}\s", re.MULTILINE) for level in range(1, 7)},
    "list_count": {
        "ordered": re.compile(r"^\s*\d+\.\s", re.MULTILINE),
        "unordered": re.compile(r"^\s*[-*+]\s", re.MULTILINE),
    },
    "bold_count": {"**": re.compile(r"\*\*[^*\n]+\*\*"), "__": re.compile(r"__[^_\n]+__")},
}


def markdown_counts(text: str) -> dict[str, dict[str, int]]:
    """header_count, list_count and bold_count by kind, as the official files hold them.

    As there, what stands between code fences is deleted from the whole text, the fences themselves stay.
    """
    for block in _CODE.findall(text):
        text = text.replace(block, "")
    return {
        name: {kind: len(pattern.findall(text)) for kind, pattern in kinds.items()} for name, kinds in _PATTERNS.items()
    }


def style_counts(facts: dict[str, Any], where: str, count_tokens: Callable[[str], int] | None) -> tuple[float, ...]:
    """(tokens, headers, list items, bold) of an answer of `arena_formats.read_answers`.

    Raises UserError when the tokens are neither recorded nor countable.
    """
    tokens = facts["token_len"]
    if tokens is None:
        if count_tokens is None:
            raise UserError(
                f"{where}: `token_len` is not recorded, and tiktoken's encoding is not on this machine; "
                "put its file into TIKTOKEN_CACHE_DIR, or use answer files with token_len"
            )
        tokens = count_tokens(facts["text"])
    recorded = {name: facts[name] for name in _PATTERNS}
    if None in recorded.values():
        recorded = {**markdown_counts(facts["text"]), **{k: v for k, v in recorded.items() if v is not None}}
    counts = [tokens, *(sum(v.values()) if isinstance(v, dict) else v for v in recorded.values())]
    if not all(isinstance(value, int | float) and value >= 0 for value in counts):
        raise UserError(f"{where}: the recorded counts {counts} are not all numbers from 0")
    return tuple(float(value) for value in counts)


def token_counter(version: Version) -> Callable[[str], int] | None:
    """Counts tokens as the version's files do; None where tiktoken or its encoding is not at hand. Downloads nothing."""
    try:
        import tiktoken
        import tiktoken.load as load
    except ImportError:
        return None

    def refuse(path: str) -> bytes:
        raise FileNotFoundError(path)

    fetch, load.read_file = load.read_file, refuse
    try:
        encoding = tiktoken.get_encoding(ENCODINGS[version])
    except OSError:
        return None
    finally:
        load.read_file = fetch
    return lambda text: len(encoding.encode(text, disallowed_special=()))
