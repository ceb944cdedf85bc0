"""results/README.md and the captions explain what is really there."""

from pathlib import Path

import pytest
from marginbench.errors import UserError
from marginbench.records import ALL_TABLES, METRICS
from marginbench.reporting.catalog import CATALOG, describe
from marginbench.reporting.claims import CLAIM_COLUMNS
from marginbench.reporting.comparison import CELL_COLUMNS
from marginbench.reporting.metrics import ANSWER_METRICS
from marginbench.reporting.online import MATRIX_DOCS, VERDICT_COLUMNS
from marginbench.reporting.readme import SECTIONS, refresh

ROOT = Path(__file__).parents[2]
README = (ROOT / "results/README.md").read_text(encoding="utf-8")


def test_generated_sections_are_fresh():
    assert refresh(README) == README


def test_every_column_and_metric_is_explained():
    for name in [*METRICS.columns, *(metric.id for metric in CATALOG), *CELL_COLUMNS, *CLAIM_COLUMNS, *ANSWER_METRICS]:
        assert f"| `{name}` |" in README, name
    for name in [*VERDICT_COLUMNS, *MATRIX_DOCS]:
        assert f"| `{name}` |" in README, name
    for table in ALL_TABLES:
        assert f"### `{table.name}`" in README


def test_sections_need_their_marks():
    with pytest.raises(UserError, match="<!-- columns -->"):
        refresh(README.replace("<!-- columns -->", ""))
    assert len(SECTIONS) == 6


@pytest.mark.parametrize("name", ["table", "claims", "learning_curves", "reward_kl", "margins", "metrics", "wide"])
def test_captions_name_the_study(name):
    text = (ROOT / f"workflow/report/{name}.rst").read_text(encoding="utf-8")
    assert "{{ snakemake.wildcards.study }}" in text
    assert "seed" in text


def test_numbers_are_shown_as_people_write_them():
    kl, piqa = describe("kl"), describe("piqa")
    assert kl.show(1.234) == "1.23"
    assert kl.show(-0.001, signed=True) == "+0.00"
    assert kl.show(-1.5) == "−1.50"
    assert kl.show(None) == kl.show(float("nan")) == "–"
    assert piqa.show(0.6543) == "65.4"
    assert piqa.head == "PIQA (%)"


def test_an_unknown_task_claims_no_direction():
    task = describe("my_task")
    assert (task.label, task.better, task.arrow, task.capability) == ("my_task", "neither", "", True)
    other = describe("alpaca_eval/win_rate")  # against that benchmark's own baseline, so 50 is not "no change"
    assert (other.label, other.against_start, other.bounds) == ("AlpacaEval 2 win rate", False, (0.0, 100.0))
    assert describe("arena/win_rate").label == "arena win rate"
