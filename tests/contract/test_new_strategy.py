"""A strategy that somebody adds is found and held to the contract by its file alone; each defect is found out."""

from pathlib import Path

import pytest
from contract_tools import run_contract

pytestmark = pytest.mark.slow

FILE = Path(__file__).resolve().parents[1] / "fixtures" / "lowest_entropy.py"


def test_a_new_file_is_held_to_the_contract(tmp_path: Path) -> None:
    (tmp_path / FILE.name).write_text(FILE.read_text())
    result = run_contract("test_selection.py", "lowest_entropy", "MARGINBENCH_SELECTION", tmp_path)
    assert result.returncode == 0, result.stdout[-3000:]
    assert int(result.stdout.split(" passed")[0].split()[-1]) > 10


@pytest.mark.parametrize(
    ("right", "wrong", "caught_by"),
    [
        ("return largest(table, n, ", "return largest(table.iloc[::-1], n, ", "the_order_that_is_handed_in_decides"),
        ("return largest(table, n, ", "return n * largest(table, 1, ", "n_different_prompts"),
        ('numbers_in(table, "entropy")', 'table["entropy"].to_numpy()', "a_bad_table_is_refused"),
        ('"entropy", only_n', '"margin", only_n', "reads_the_score_that_it_declares"),
        ('numbers_in(table, "entropy")', 'numbers_in(table, "entropy") + table.index', "the_same_again"),
    ],
    ids=["ties to the higher row", "the same prompt n times", "unchecked scores", "another score", "index labels"],
)
def test_a_new_file_with_a_defect_is_found_out(tmp_path: Path, right: str, wrong: str, caught_by: str) -> None:
    text = FILE.read_text()
    assert right in text
    (tmp_path / FILE.name).write_text(text.replace(right, wrong))
    result = run_contract("test_selection.py", "lowest_entropy", "MARGINBENCH_SELECTION", tmp_path)
    assert result.returncode == 1, result.stdout[-3000:]
    failed = [line for line in result.stdout.splitlines() if line.startswith("FAILED")]
    assert any(caught_by in line for line in failed), failed
