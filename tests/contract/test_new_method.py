"""A method that somebody adds is found and held to the contract by its file alone."""

from pathlib import Path

import pytest
from contract_tools import run_contract

pytestmark = pytest.mark.slow

FILE = Path(__file__).resolve().parents[1] / "fixtures" / "exponential.py"


def test_a_new_file_is_held_to_the_contract(tmp_path: Path) -> None:
    (tmp_path / FILE.name).write_text(FILE.read_text())
    result = run_contract("test_methods.py", "exponential", "MARGINBENCH_METHODS", tmp_path)
    assert result.returncode == 0, result.stdout[-3000:]
    assert int(result.stdout.split(" passed")[0].split()[-1]) > 10


def test_a_new_file_with_a_wrong_sign_is_found_out(tmp_path: Path) -> None:
    (tmp_path / FILE.name).write_text(FILE.read_text().replace("(-params.beta *", "(params.beta *"))
    result = run_contract("test_methods.py", "exponential", "MARGINBENCH_METHODS", tmp_path)
    assert result.returncode == 1, result.stdout[-3000:]
    assert "failed" in result.stdout
