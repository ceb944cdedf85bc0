"""What a printed number can have been before it was rounded, and what follows for numbers computed from it.

A number printed with d decimals lies within half a unit of the last one; both ends are taken in, because rules for
halves differ. What the functions compute is monotone in each argument, or turns once, so that their ranges are exact.
"""

import math
from collections.abc import Sequence
from dataclasses import dataclass

from scipy import stats

SLACK = 1e-9
"""Decimal numbers have no exact binary form: ranges that miss each other by less are taken to touch."""


@dataclass(frozen=True)
class Range:
    """All numbers from `low` to `high`, both ends included."""

    low: float
    high: float

    def __post_init__(self) -> None:
        if not self.low <= self.high:
            raise ValueError(f"a range from {self.low} to {self.high} holds nothing")

    def __add__(self, other: "Range") -> "Range":
        return Range(self.low + other.low, self.high + other.high)

    def __sub__(self, other: "Range") -> "Range":
        return Range(self.low - other.high, self.high - other.low)

    def meets(self, other: "Range") -> bool:
        """Whether some number lies in both."""
        return self.low <= other.high + SLACK and other.low <= self.high + SLACK


def printed_range(value: float, decimals: int, read_error: float | None = None) -> Range:
    """Numbers that are printed as `value` with so many decimals, or read as it from a figure within `read_error`."""
    half = max(0.5 * 10.0**-decimals, read_error or 0.0)
    return Range(value - half, value + half)


def total(parts: Sequence[Range]) -> Range:
    """Sum of the parts."""
    return Range(sum(part.low for part in parts), sum(part.high for part in parts))


def mean(parts: Sequence[Range]) -> Range:
    """Plain mean of the parts; ValueError where there are none."""
    if not parts:
        raise ValueError("the mean of nothing")
    whole = total(parts)
    return Range(whole.low / len(parts), whole.high / len(parts))


def ratio(part: Range, whole: Range) -> Range:
    """part / whole, for a positive whole."""
    if whole.low <= 0:
        raise ValueError("a ratio needs a positive denominator")
    ends = [a / b for a in (part.low, part.high) for b in (whole.low, whole.high)]
    return Range(min(ends), max(ends))


def per_cent_of(part: Range, whole: Range) -> Range:
    """100 part / whole, for a positive whole."""
    share = ratio(part, whole)
    return Range(100 * share.low, 100 * share.high)


def gain_per_cent(new: Range, old: Range) -> Range:
    """100 (new / old - 1), for a positive old value."""
    share = per_cent_of(new, old)
    return Range(share.low - 100, share.high - 100)


def hard_win_rate_se(win_rate: Range, n: int) -> Range:
    """Standard error sqrt(p (1 - p) / (n - 1)), in points, of a win rate in per cent from n verdicts won or lost."""
    ends = [min(max(end / 100, 0.0), 1.0) for end in (win_rate.low, win_rate.high)]
    if ends[0] < 0.5 < ends[1]:
        ends.append(0.5)
    errors = [100 * math.sqrt(p * (1 - p) / (n - 1)) for p in ends]
    return Range(min(errors), max(errors))


def nearest_win_rate(win_rate: Range, n: int) -> Range:
    """Win rate in per cent, of n verdicts with ties as halves, nearest to the middle of a range."""
    halves = round((win_rate.low + win_rate.high) / 2 * 2 * n / 100)
    return Range(100 * halves / (2 * n), 100 * halves / (2 * n))


def t_test_p(a: Range, sd_a: Range, b: Range, sd_b: Range, n: int) -> Range:
    """Two-sided p of Student's two-sample t-test on means of n values each, from printed means and deviations."""
    gap = a - b
    least = 0.0 if gap.low <= 0 <= gap.high else min(abs(gap.low), abs(gap.high))
    most = max(abs(gap.low), abs(gap.high))
    spread = [
        math.sqrt((max(x, 0.0) ** 2 + max(y, 0.0) ** 2) / n) for x, y in ((sd_a.low, sd_b.low), (sd_a.high, sd_b.high))
    ]
    t = [least / spread[1], most / spread[0] if spread[0] else math.inf]
    low, high = (float(2 * stats.t.sf(end, 2 * n - 2)) for end in (t[1], t[0]))
    return Range(low, high)


def normal_interval(centre: Range, sd: Range, n: int, per_cent: float) -> tuple[Range, Range]:
    """Ranges of both ends of centre -+ z sd / sqrt(n)."""
    z = float(stats.norm.ppf(0.5 + per_cent / 200)) / math.sqrt(n)
    half = Range(z * sd.low, z * sd.high)
    return centre - half, centre + half
