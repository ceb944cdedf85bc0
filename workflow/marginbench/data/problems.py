"""Problems of rows: every kind has a name, is counted, and keeps the places where it occurred."""

from dataclasses import dataclass, field
from typing import Any

KINDS = {
    "not_json": "not valid JSON",
    "not_utf8": "bytes or characters that are not UTF-8",
    "wrong_type": "a value of the wrong type",
    "missing_column": "a column is missing",
    "missing_value": "a value is missing",
    "empty_text": "empty text",
    "different_prompts": "chosen and rejected answer different prompts",
    "identical_answers": "chosen and rejected are identical",
    "duplicate_pair": "repeats an earlier pair",
    "contradictory_pair": "the same pair occurs with the opposite preference (all copies)",
    "rating_not_a_number": "a rating is not a finite number",
    "rating_contradicts_label": "rejected is rated higher than chosen (kept)",
    "rating_tie": "both answers have the same rating (kept)",
}

KEPT = frozenset({"rating_contradicts_label", "rating_tie"})
"""Kinds that are reported while the row stays: they are facts about the labels, not broken rows."""

SHOWN = 20


class RowProblem(Exception):
    """One bad row: the kind and what exactly was found."""

    def __init__(self, kind: str, detail: str):
        super().__init__(detail)
        self.kind, self.detail = kind, detail


@dataclass
class Problems:
    """Collects problems of one source. Places are `line`s counted from 1 or `row`s counted from 0."""

    unit: str = "row"
    places: dict[str, list[int]] = field(default_factory=lambda: {kind: [] for kind in KINDS})
    first_detail: dict[str, str] = field(default_factory=dict)

    def add(self, kind: str, row: int, detail: str = "") -> None:
        """Note a problem of the row with this number (counted from 0)."""
        self.places[kind].append(row + 1 if self.unit == "line" else row)
        self.first_detail.setdefault(kind, detail)

    def dropping(self) -> dict[str, list[int]]:
        """The kinds that cost rows, with their places; only those that occurred."""
        return {kind: places for kind, places in self.places.items() if places and kind not in KEPT}

    def sentence(self) -> str:
        """One line: `3 empty text (rows 4, 7, 9; chosen); 1 ...`."""
        parts = []
        for kind, places in self.dropping().items():
            shown = ", ".join(str(place) for place in sorted(places)[:5]) + (", ..." if len(places) > 5 else "")
            detail = self.first_detail.get(kind, "")
            units = self.unit + ("s" if len(places) > 1 else "")
            text = f"{len(places)} x {KINDS[kind]} ({units} {shown}" + (f"; first: {detail}" if detail else "") + ")"
            parts.append(" ".join(text.split()))
        return "; ".join(parts)

    def report(self) -> dict[str, Any]:
        """Every kind with its count, its first places and what was found first; zeros included."""
        return {
            kind: {
                "what": what,
                "count": len(self.places[kind]),
                f"{self.unit}s": sorted(self.places[kind])[:SHOWN],
                "first": self.first_detail.get(kind, ""),
                "kept": kind in KEPT,
            }
            for kind, what in KINDS.items()
        }
