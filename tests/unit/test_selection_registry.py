"""Finding strategy files, checking their parameters, and saying what is wrong in one line."""

import subprocess
import sys
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
from marginbench.errors import UserError
from marginbench.selection.registry import FOLDER, NOT_STRATEGIES, load_strategy, strategy_file, strategy_names

FIXTURE = Path(__file__).parents[1] / "fixtures" / "lowest_entropy.py"
TABLE = pd.DataFrame({"prompt_id": ["a", "b", "c"], "entropy": [2.0, 1.0, 3.0]})


@pytest.fixture
def extra(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    folder = tmp_path / "more"
    folder.mkdir()
    (folder / FIXTURE.name).write_text(FIXTURE.read_text())
    monkeypatch.setenv("MARGINBENCH_SELECTION", str(folder))
    return folder


def test_names_are_the_files() -> None:
    files = {path.stem for path in FOLDER.glob("*.py")} - NOT_STRATEGIES
    assert strategy_names() == sorted(files)
    named = "random random_same_pool entropy margin uncertainty apl apl_original k_centre k_means_pp"
    assert files == set(named.split())
    assert strategy_file("apl") == FOLDER / "apl.py"


def test_loops() -> None:
    original = load_strategy("apl_original")
    assert (original.loop, original.resets_policy) == ("accumulate", True)
    assert (load_strategy("apl").loop, load_strategy("apl").resets_policy) == ("continual", False)


def test_nothing_heavy_is_imported() -> None:
    code = (
        "import sys\n"
        "import marginbench.selection.one_shot, marginbench.selection.pools, marginbench.selection.scores\n"
        "from marginbench.selection.registry import load_strategy, strategy_names\n"
        "for name in strategy_names(): load_strategy(name).stages\n"
        "heavy = {'torch', 'transformers', 'trl', 'peft', 'sklearn'} & set(sys.modules)\n"
        "assert not heavy, heavy\n"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr


def test_a_file_in_another_folder_is_a_strategy(extra: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    assert "lowest_entropy" in strategy_names()
    assert strategy_file("lowest_entropy") == extra / FIXTURE.name
    assert load_strategy("lowest_entropy").rank(TABLE, 2, np.random.default_rng(0)) == ["b", "a"]
    monkeypatch.delenv("MARGINBENCH_SELECTION")
    assert "lowest_entropy" not in strategy_names()
    assert "lowest_entropy" in strategy_names(extra)


def test_a_file_that_gives_something_else_is_found_out(extra: Path) -> None:
    for wrong in ("['a', 'a']", "['a', 'z']", "['a']"):
        (extra / FIXTURE.name).write_text(FIXTURE.read_text().replace("return largest(", f"return {wrong} or largest("))
        with pytest.raises(UserError, match="must give 2 different prompt_ids of the table"):
            load_strategy("lowest_entropy").rank(TABLE, 2, np.random.default_rng(0))


def test_a_file_without_its_parts_is_refused(extra: Path) -> None:
    (extra / "half.py").write_text("Params = 1\n")
    with pytest.raises(UserError, match=r"a strategy file must define .* missing stages, pool, rank, EXAMPLE"):
        load_strategy("half")


def test_a_folder_that_is_not_there(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setenv("MARGINBENCH_SELECTION", str(tmp_path / "nowhere"))
    with pytest.raises(UserError, match="set MARGINBENCH_SELECTION to folders of strategy files"):
        strategy_names()


@pytest.mark.parametrize(
    ("name", "params", "message"),
    [
        ("apl", {"keep_share": 0}, "strategy `apl`: `keep_share` = 0: must be greater than 0"),
        ("apl", {"keep_shar": 0.5}, "strategy `apl`: unknown parameter `keep_shar`; did you mean `keep_share`?"),
        ("entropy", {"temperature": 0}, "strategy `entropy`: `temperature` = 0: must be greater than 0"),
        ("random", {"pool_factor": 2}, "strategy `random`: unknown parameter `pool_factor`"),
        ("apl_original", {"acquisition": "mid"}, "strategy `apl_original`: `acquisition` = 'mid': must be 'certainty'"),
        ("entropi", {}, "unknown strategy `entropi`; did you mean `entropy`?"),
    ],
)
def test_messages(name: str, params: dict, message: str) -> None:
    with pytest.raises(UserError) as raised:
        load_strategy(name, params)
    assert str(raised.value).startswith(message)
    assert "\n" not in str(raised.value)


def test_the_page_for_people_names_every_strategy() -> None:
    page = (Path(__file__).parents[2] / "docs" / "selection.md").read_text(encoding="utf-8")
    for name in strategy_names():
        assert f"`{name}`" in page, name
