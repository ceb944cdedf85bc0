"""Counts of a list of judgments: how many were sent and read, what they cost, and is the first answer favoured?"""

import math
from collections import Counter
from collections.abc import Sequence
from typing import Any


def summarise(judgments: Sequence[dict[str, Any]]) -> dict[str, Any]:
    """Counts, tokens and price of pairwise judgments, and how often the answer shown first won.

    A call that stands for several judgments (equal answers of two methods) is counted once in tokens and price.
    """
    sent = [row for row in judgments if row["reason"] != "identical"]
    read = [row for row in sent if row["preference"] is not None]
    first = [2.0 - row["preference"] if not row["switched"] else row["preference"] - 1.0 for row in read]
    shown = {
        side: [row["preference"] - 1.0 for row in read if row["switched"] is (side == "first")]
        for side in ("first", "second")
    }
    gap = (
        100.0 * (math.fsum(shown["second"]) / len(shown["second"]) - math.fsum(shown["first"]) / len(shown["first"]))
        if shown["first"] and shown["second"]
        else None
    )
    calls = {row["key"]: row for row in judgments}.values()
    return {
        "n": len(judgments),
        "n_sent": len(sent),
        "n_identical": len(judgments) - len(sent),
        "n_null": len(sent) - len(read),
        "null_reasons": dict(sorted(Counter(row["reason"] for row in sent if row["preference"] is None).items())),
        "p_first": math.fsum(first) / len(first) if first else None,
        "position_gap": gap,
        "tokens_in": sum(row["tokens_in"] or 0 for row in calls),
        "tokens_out": sum(row["tokens_out"] or 0 for row in calls),
        "price": math.fsum(row["price"] or 0.0 for row in calls),
    }
