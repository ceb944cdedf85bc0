"""Verdicts in the text of a judge that writes before it decides: Arena-Hard's two rules. Pure, and never raises.

A label says which answer is better, A being the one shown first. What is returned may be a label that no version
scores (`[[A]]`); the benchmark counts those. Source: lmarena/arena-hard-auto, `get_score` at d99b139 (v0.1) and
196f6b82 (v2.0).
"""

import re

DOUBLE = re.compile(r"\[\[([AB<>=]+)\]\]")
SINGLE = re.compile(r"\[([AB<>=]+)\]")


def parse_arena_v01(text: str) -> str | None:
    """v0.1: the label in double brackets if all of them are the same one; None for none, or for several that differ."""
    found = set(DOUBLE.findall(text))
    return found.pop() if len(found) == 1 else None


def arena_v01_asks_again(text: str) -> bool:
    """Whether v0.1 asks the judge to go on and finish: only where there is no label at all, not where labels differ."""
    return DOUBLE.search(text) is None


def parse_arena_v20(text: str) -> str | None:
    """v2.0: the last label in double brackets, else the last one in single brackets, else None; letters of any case."""
    text = text.upper()
    found = DOUBLE.findall(text) or SINGLE.findall(text)
    return found[-1] if found else None
