"""The shape of the house: imports go one way, generated files are fresh, names are found where they belong."""

import ast
import re
import subprocess
import sys
from pathlib import Path

import pytest
import yaml
from marginbench.generated import BASE, PACKAGE, ROOMS, room_imports, stale_files
from marginbench.identity import code_hash, import_closure
from marginbench.selection.registry import NOT_STRATEGIES

ROOT = Path(__file__).resolve().parents[2]
LIBRARY = ROOT / PACKAGE
SCRIPTS = ROOT / "workflow" / "scripts"


def test_generated_files_are_fresh():
    assert stale_files(ROOT) == [], "run `make schemas`"


@pytest.mark.parametrize("room", [room for room in ROOMS if (LIBRARY / room).is_dir()])
def test_a_room_imports_only_from_rooms_above(room):
    allowed = set(ROOMS[: ROOMS.index(room) + 1]) | set(BASE)
    for file in (LIBRARY / room).rglob("*.py"):
        assert room_imports(file) <= allowed, file


def test_base_modules_import_no_room():
    for name in BASE:
        assert room_imports(LIBRARY / f"{name}.py") <= set(BASE), name


def test_room_inits_import_nothing():
    for room in ROOMS:
        init = LIBRARY / room / "__init__.py"
        if init.is_file():
            body = ast.parse(init.read_text()).body
            assert len(body) == 1, f"{init}: one docstring and nothing else"
            assert isinstance(body[0], ast.Expr), init


def test_every_rule_has_one_script_of_its_name():
    rules = set()
    for file in (ROOT / "workflow" / "rules").glob("*.smk"):
        rules |= set(re.findall(r"^rule (\w+):", file.read_text(), re.M))
    assert rules == {script.stem for script in SCRIPTS.glob("*.py")}


def test_only_scripts_know_the_snakemake_object():
    for file in LIBRARY.rglob("*.py"):
        names = {node.id for node in ast.walk(ast.parse(file.read_text())) if isinstance(node, ast.Name)}
        assert "snakemake" not in names or file.name == "cli.py", file


def test_method_files_are_not_in_the_code_of_rules():
    for script in SCRIPTS.glob("*.py"):
        names = {path.name for path in import_closure(script) if path.parent.name == "methods"}
        assert names <= {"__init__.py", "base.py", "curriculum.py", "registry.py", "pages.py"}, script.name


def test_strategy_files_are_not_in_the_code_of_rules():
    for script in SCRIPTS.glob("*.py"):
        names = {path.stem for path in import_closure(script) if path.parent.name == "selection"}
        assert names <= NOT_STRATEGIES, script.name


def test_generation_judging_and_scoring_import_no_trainer():
    for name in ("generate_answers", "score_answers", "judge_answers", "score_judgments", "make_table", "read_corpus"):
        files = import_closure(SCRIPTS / f"{name}.py")
        assert not [file for file in files if file.parent.name == "training"], name


def test_code_hash_follows_imports(tmp_path):
    script = tmp_path / "script.py"
    script.write_text("from marginbench.statistics.intervals import mean_interval\n")
    closure = import_closure(script)
    assert LIBRARY / "statistics" / "intervals.py" in closure
    assert LIBRARY / "study.py" not in closure
    before = code_hash(script)
    script.write_text(script.read_text() + "# an edit\n")
    other = tmp_path / "other.py"
    other.write_text(script.read_text())
    assert code_hash(other) != before


def test_validation_needs_no_torch():
    code = "import sys, marginbench.dag.plan, marginbench.cli; print('torch' in sys.modules, 'trl' in sys.modules)"
    output = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True).stdout
    assert output.split() == ["False", "False"]


def locked() -> dict[str, str]:
    lock = (ROOT / "envs" / "requirements.lock").read_text()
    versions = {name.lower(): version for name, version in re.findall(r"^([\w.\-]+)==([^\s\\;]+)", lock, re.M)}
    setup = (ROOT / "envs" / "setup.py").read_text()
    return {**versions, "torch": re.search(r'TORCH = "torch==([\d.]+)"', setup)[1]}


def test_environments_agree_with_the_lock():
    files = sorted((ROOT / "envs").glob("*.yaml"))
    assert len(files) == 5
    for file in files:
        dependencies = yaml.safe_load(file.read_text())["dependencies"]
        pinned = next(entry["pip"] for entry in dependencies if isinstance(entry, dict))
        for requirement in pinned:
            name, version = requirement.split("==")
            assert locked()[name.lower()] == version, f"{file.name}: {requirement}"


def test_pins_agree_with_the_lock():
    for line in (ROOT / "envs" / "requirements.in").read_text().splitlines():
        name, exact, version = line.partition("==")
        if exact and not line.startswith("#"):
            assert locked()[name.lower()] == version, line


def test_locks_hold_no_addresses():
    for name in ("requirements.lock", "data-packages.lock", "requirements.in"):
        assert "://" not in (ROOT / "envs" / name).read_text(), name
