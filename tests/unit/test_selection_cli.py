"""`marginbench select`: a scored pool in, ids as JSON out; mistakes are one line and exit code 2."""

import json
from pathlib import Path
from typing import Any

import pandas as pd
import pytest
from marginbench.cli import main

ROWS = [
    {"prompt_id": f"p{i}", "entropy": entropy, "margin": margin, "embedding": [entropy, 0.0]}
    for i, (entropy, margin) in enumerate(
        [(10, 0.9), (42, -0.05), (35, 0.4), (8, -0.8), (27, 0.7), (31, 0.1), (27, 0.95), (55, -0.2)]
    )
]


@pytest.fixture
def run(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> Any:
    def _run(strategy: str, rows: Any, n: Any = 2, *options: str, name: str = "pool.json") -> tuple[int, Any, str]:
        path = tmp_path / name
        if isinstance(rows, bytes):
            path.write_bytes(rows)
        elif path.suffix == ".parquet":
            pd.DataFrame(rows).to_parquet(path)
        elif rows is not None:
            path.write_text(json.dumps(rows))
        code = main(["select", strategy, "--pool", str(path), "--n", str(n), *options])
        captured = capsys.readouterr()
        return code, json.loads(captured.out)["ids"] if captured.out else None, captured.err

    return _run


@pytest.mark.parametrize("name", ["pool.json", "pool.parquet"])
@pytest.mark.parametrize(
    ("strategy", "n", "expected"),
    [
        ("apl", 2, [2, 7]),  # max(2, 8 // 2) = 4 by entropy: 7, 1, 2, 5
        ("apl", 5, [4, 2, 7, 5, 1]),  # max(5, 4) = 5 by entropy, where 4 ties with 6
        ("apl", 8, [6, 0, 3, 4, 2, 7, 5, 1]),
        ("entropy", 5, [7, 1, 2, 5, 4]),
        ("margin", 2, [6, 0]),
        ("uncertainty", 2, [1, 5]),
        ("k_centre", 3, [5, 7, 3]),  # the mean is 29.375
    ],
)
def test_ids_in_selection_order(run: Any, name: str, strategy: str, n: int, expected: list[int]) -> None:
    assert run(strategy, ROWS, n, name=name) == (0, [f"p{i}" for i in expected], "")


def test_survivors_of_a_stage_tie_by_row_and_not_by_its_score(run: Any) -> None:
    rows = [{"prompt_id": i, "entropy": i, "margin": 1} for i in range(6)]
    assert run("apl", rows, 2)[1] == [3, 4]


def test_an_odd_pool_is_halved_downwards(run: Any) -> None:
    rows = [{"prompt_id": i, "entropy": 7 - i, "margin": i} for i in range(7)]
    assert run("apl", rows, 1)[1] == [2]  # of 0, 1, 2


def test_a_seed_gives_the_same_again_and_another_seed_something_else(run: Any) -> None:
    for strategy in ("random", "random_same_pool", "k_means_pp"):
        assert run(strategy, ROWS, 4, "--seed", "3") == run(strategy, ROWS, 4, "--seed", "3")
        assert len({tuple(run(strategy, ROWS, 4, "--seed", str(seed))[1]) for seed in range(4)}) > 1
    assert run("apl", ROWS, 4, "--seed", "3") == run("apl", ROWS, 4)


def test_parameters(run: Any) -> None:
    assert run("apl", ROWS, 2, "--set", "keep_share=0.8")[1] == ["p6", "p4"]  # 6 by entropy: 7 1 2 5 4 6
    assert run("apl_original", ROWS, 2, "--set", "acquisition=entropy")[1] == ["p7", "p1"]


def test_columns_are_read_as_well_as_rows(run: Any) -> None:
    columns = {"prompt_id": [3, 1, 2], "entropy": [1, 2, 3]}
    assert run("entropy", columns, 2)[1] == [2, 1]


def _with(row: int, **values: Any) -> list[dict[str, Any]]:
    return [{**item, **values} if i == row else item for i, item in enumerate(ROWS)]


@pytest.mark.parametrize(
    ("strategy", "rows", "n", "message"),
    [
        ("entropy", _with(3, prompt_id="p1"), 2, "row 3 (from 0): prompt_id 'p1' stands in row 1 too"),
        ("random", _with(3, prompt_id="p1"), 2, "row 3 (from 0): prompt_id 'p1' stands in row 1 too"),
        ("entropy", [{"prompt_id": "a"}], 1, "column `entropy` is missing"),
        ("apl", [{"prompt_id": "a", "entropy": 1}], 1, "column `margin` is missing"),
        ("entropy", _with(2, entropy=float("nan")), 2, "column `entropy`, row 2 (from 0): nan is not a finite number"),
        ("entropy", _with(2, entropy=None), 2, "column `entropy`, row 2 (from 0): nan is not"),
        ("margin", _with(2, margin=True), 2, "column `margin`, row 2 (from 0): True is not"),
        ("entropy", _with(2, prompt_id=None), 2, "row 2 (from 0): prompt_id"),
        ("k_centre", _with(2, embedding=[1.0]), 2, "column `embedding`, row 2 (from 0): 1 numbers, but row 0 has 2"),
        ("entropy", ROWS, 9, "8 prompts, but n = 9"),
        ("apl", ROWS, 9, "8 prompts, but n = 9"),
        ("entropy", ROWS, 0, "n = 0: at least one"),
        ("entropy", [], 1, "`prompt_id` is missing"),
        ("entropy", {"prompt_id": ["a"], "entropy": [1, 2]}, 1, "must be [{"),
        ("entropy", 3, 1, "must be [{"),
        ("entropy", b"[{", 1, "line 1: not JSON"),
        ("entropy", b"\xff\xfe", 1, "cannot be read"),
        ("entropy", None, 1, "no such file"),
        ("entropi", ROWS, 1, "did you mean `entropy`?"),
        ("entropy", ROWS, "two", "invalid int value: 'two'"),
    ],
)
def test_a_users_mistake_is_one_line_and_exit_code_2(run: Any, strategy: str, rows: Any, n: Any, message: str) -> None:
    code, ids, error = run(strategy, rows, n)
    assert (code, ids) == (2, None)
    assert error.startswith("marginbench: error: ")
    assert message in error
    assert len(error.splitlines()) == 1


def test_other_files_are_refused(run: Any) -> None:
    assert "is a .parquet or .json file" in run("entropy", ROWS, name="pool.csv")[2]
    code, _, error = run("entropy", b"no parquet", name="pool.parquet")
    assert code == 2
    assert "cannot be read" in error
    assert len(error.splitlines()) == 1
