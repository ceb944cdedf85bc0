"""What is sent to a judge, as the benchmarks make it and the client sends it: one Call is one request."""

from typing import Literal, TypedDict

from marginbench.judging.prompts import Messages

Order = Literal["single", "baseline_first", "method_first"]
"""Which answer the judge sees first; `single` where it grades one answer."""


class Call(TypedDict):
    """One request to a judge. All but `question_id` and `answer_ids` goes into its key."""

    question_id: str
    turn: int
    """Counts from 1."""
    order: Order
    question: str
    """The user's turns that the judge sees, joined by a blank line."""
    answers: list[str]
    """The answers that the judge sees, in the order shown (two answers, or one for each turn of a graded answer)."""
    answer_ids: list[str]
    """[baseline's, method's] of a pair, whatever is shown first; [method's] of a graded answer."""
    messages: Messages
