"""Annotations of AlpacaEval's format as judgment rows, which `judge_health` reads: for files from elsewhere."""

from collections.abc import Mapping, Sequence
from typing import Any

from marginbench.judging.prompts import is_switched


def annotation_rows(annotations: Sequence[Mapping[str, Any]]) -> tuple[list[dict[str, Any]], dict[str, int]]:
    """Judgment rows, and the characters of every answer by its id.

    Which answer was shown first follows from the instruction, by AlpacaEval's rule: for annotations made in that order,
    with the official judges or with `order: seeded_by_instruction`. An answer's id is its generator and instruction.
    """
    rows, lengths = [], {}
    for row in annotations:
        instruction = row["instruction"]
        answer_ids = [f"{row[f'generator_{side}']}: {instruction}" for side in (1, 2)]
        lengths |= {answer_ids[side - 1]: len(row[f"output_{side}"]) for side in (1, 2)}
        switched = is_switched(instruction)
        rows.append(
            {
                "question_id": instruction,
                "turn": 1,
                "answer_ids": answer_ids,
                "judge": row.get("annotator"),
                "order": "method_first" if switched else "baseline_first",
                "switched": switched,
                "preference": row["preference"],
                "reason": "identical" if row["output_1"] == row["output_2"] else None,
            }
        )
    return rows, lengths
