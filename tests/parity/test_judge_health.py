"""Published AlpacaEval annotations show the position and length bias of their judge that the literature reports."""

import gzip
import json
import statistics
from pathlib import Path

import pytest
from marginbench.benchmarks.annotation_rows import annotation_rows
from marginbench.judging.prompts import is_switched
from marginbench.statistics.judge_health import judge_health

CASES = Path(__file__).parents[2].parent / "shared" / "parity" / "alpaca_eval"

pytestmark = pytest.mark.skipif(not CASES.is_dir(), reason="published judgments (../shared/parity) are not at hand")


def annotations(model):
    with gzip.open(CASES / model / "annotations.json.gz") as handle:
        return json.load(handle)


def test_position_and_length_bias_of_the_official_judge():
    rows = annotations("claude-2.1")
    table = judge_health({"official": annotation_rows(rows)[0]}, annotation_rows(rows)[1]).iloc[0]
    asked = [row for row in rows if row["output_1"] != row["output_2"]]
    rates = [
        100 * statistics.fmean(row["preference"] - 1 for row in asked if is_switched(row["instruction"]) is switched)
        for switched in (False, True)
    ]
    assert table["n"] == len(asked)
    assert table["position_gap"] == pytest.approx(rates[0] - rates[1])
    # 23.0 % shown second against 8.4 % shown first (judging pitfalls, specification 5.1).
    assert [round(rate, 1) for rate in rates] == [23.0, 8.4]
    # Length control's slope is negative for a baseline that is longer (Dubois et al. 2024); ours has the other sign.
    assert table["length_coefficient"] > 5 * table["length_se"] > 0


def test_nulls_are_counted():
    rows = annotations("ae1_zephyr-7b-beta")
    table = judge_health({"official": annotation_rows(rows)[0]}).iloc[0]
    nulls = sum(row["preference"] is None for row in rows)
    assert nulls == 2
    assert table["null_rate"] == pytest.approx(nulls / table["n"])
