"""Which pairs are trained on, in which order, and with whose margin: what every method of labelled pairs can be told.

One place, so that a control is the method itself with one parameter changed: sorted DPO is DPO with
`order: margin_desc`, DPO without the hard pairs is DPO with `keep: easy`.
"""

import math
from collections.abc import Mapping
from dataclasses import replace
from typing import Annotated, Any, Literal

import numpy as np
from pydantic import AfterValidator, Field, PlainSerializer, model_validator

from marginbench.identity import stream
from marginbench.methods.base import MethodParams, Needs, Plan

Order = Literal["seeded", "margin_desc", "margin_asc"]


def _not_nan(value: float) -> float:
    if math.isnan(value):
        raise ValueError("must be a number or an infinity")
    return value


Threshold = Annotated[
    float,
    Field(allow_inf_nan=True),
    AfterValidator(_not_nan),
    PlainSerializer(lambda value: value if math.isfinite(value) else str(value), when_used="json-unless-none"),
]
"""A threshold on margins; -.inf and .inf put every pair on one side. JSON holds an infinity as a string."""


def one_threshold(data: Any, tau: str, percentile: str, default: float) -> Any:
    """Of a threshold and a percentile exactly one holds: the percentile if given, else the threshold (or its default).

    For use before validation, on the raw mapping. Raises ValueError when both are given, or both are null.
    """
    if not isinstance(data, Mapping):
        return data
    if data.get(percentile) is None:
        if tau in data and data[tau] is None:
            raise ValueError(f"`{tau}` and `{percentile}` are both null; give one of the two")
        return {**data, tau: data.get(tau, default)}
    if data.get(tau) is not None:
        raise ValueError(f"`{tau}` and `{percentile}` are two ways to say the same; give one of the two")
    return {**data, tau: None}


class PairParams(MethodParams):
    """What every method of labelled pairs can be told beside its own parameters.

    A pair is hard when its margin is below the threshold, easy otherwise: the rule that MixDPO routes by.
    """

    order: Order = Field(
        "seeded",
        description="Order of training: shuffled by (dataset, seed), or sorted by margin once (largest first is easy "
        "to hard; ties keep the order of the data), the same in every epoch.",
    )
    keep: Literal["all", "easy", "hard"] = Field("all", description="Pairs that are trained on.")
    keep_tau: Threshold | None = Field(0.5, description="For `keep`: hard means margin < keep_tau.")
    keep_percentile: float | None = Field(
        None, gt=0, lt=1, description="For `keep`: keep_tau is the margin that this share of the pairs lies below."
    )
    keep_inclusive: bool = Field(False, description="For `keep`: hard means margin <= keep_tau.")
    scorer: str | None = Field(None, description="Scorer of the margins; null takes the study's first.")
    shuffle_margins: int | None = Field(
        None, ge=0, description="Seed of a permutation of the margins among the pairs (a control); null leaves them."
    )

    @model_validator(mode="before")
    @classmethod
    def _keep_threshold(cls, data: Any) -> Any:
        return one_threshold(data, "keep_tau", "keep_percentile", 0.5)


SHARED = tuple(PairParams.model_fields)
"""Names of the parameters that all methods of pairs share."""


def descending(margins: np.ndarray) -> np.ndarray:
    """Positions from the largest margin to the smallest, ties in the order of the data; shape (pairs,)."""
    return np.argsort(-np.asarray(margins, dtype=np.float64), kind="stable")


def threshold(margins: np.ndarray, tau: float | None, percentile: float | None) -> float:
    """The threshold on margins: tau, or the margin at index int((1 - percentile) N) of the descending order.

    The index is that of exact arithmetic: (1 - 0.8) x 5 is 1, though in binary it falls short of it.
    """
    if percentile is None:
        if tau is None:
            raise ValueError("a threshold or a percentile is needed")
        return tau
    ordered = np.asarray(margins, dtype=np.float64)[descending(margins)]
    return float(ordered[min(math.floor((1 - percentile) * len(ordered) + 1e-9), len(ordered) - 1)])


def hard_pairs(margins: np.ndarray, tau: float | None, percentile: float | None, inclusive: bool) -> np.ndarray:
    """Which pairs lie below the threshold (or on it, if inclusive); boolean, shape (pairs,)."""
    margins = np.asarray(margins, dtype=np.float64)
    limit = threshold(margins, tau, percentile)
    return margins <= limit if inclusive else margins < limit


def margins_seen(margins: np.ndarray | None, params: MethodParams) -> np.ndarray | None:
    """The margins as the method sees them, shape (pairs,): permuted among the pairs if the parameters say so."""
    seed = getattr(params, "shuffle_margins", None)
    if margins is None or seed is None:
        return margins
    return np.asarray(margins)[stream("shuffle_margins", seed).permutation(len(margins))]


def needs_of_curriculum(needs: Needs, params: MethodParams) -> Needs:
    """A method's needs, with those of its order and filter."""
    if not isinstance(params, PairParams):
        return needs
    ordered = params.order != "seeded"
    return replace(needs, margins=needs.margins or ordered or params.keep != "all", order=needs.order or ordered)


def plan_of_curriculum(plan: Plan, margins: np.ndarray | None, params: MethodParams) -> Plan:
    """A method's plan, with the order and the filter of its parameters where it has none of its own."""
    if not isinstance(params, PairParams) or (params.order == "seeded" and params.keep == "all"):
        return plan
    if margins is None:
        raise ValueError("an order or a filter by margin needs margins")
    if params.order != "seeded" and plan.order is None:
        margins = np.asarray(margins, dtype=np.float64)
        plan = replace(plan, order=descending(margins if params.order == "margin_desc" else -margins))
    if params.keep != "all":
        hard = hard_pairs(margins, params.keep_tau, params.keep_percentile, params.keep_inclusive)
        side = hard if params.keep == "hard" else ~hard
        plan = replace(plan, keep=side if plan.keep is None else side & plan.keep)
    return plan
