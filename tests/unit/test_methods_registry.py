"""Finding method files, checking their parameters, and saying what is wrong in one line."""

import subprocess
import sys
from pathlib import Path

import pytest
from marginbench.errors import UserError
from marginbench.methods.registry import (
    FOLDER,
    NOT_METHODS,
    check_params,
    load_method,
    method_file,
    method_names,
    variant_names,
)

EXTRA = '''"""A hinge on the log-ratio margin; only here to show that a file is enough."""

from pydantic import Field

from marginbench.methods.base import Case, MethodParams, Needs, PairLoss, log_ratio_margin


class Params(MethodParams):
    beta: float = Field(gt=0, description="Slope.")


def needs(params):
    return Needs(reference=True)


def loss(batch, params, state=None):
    return PairLoss((1 - params.beta * log_ratio_margin(batch)).clamp(min=0))


EXAMPLE = (Case({"beta": 1.0}, [], []),)
'''


@pytest.fixture
def extra(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    folder = tmp_path / "more"
    folder.mkdir()
    (folder / "hinge_here.py").write_text(EXTRA)
    monkeypatch.setenv("MARGINBENCH_METHODS", str(folder))
    return folder


def test_names_are_the_files() -> None:
    files = {path.stem for path in FOLDER.glob("*.py")} - NOT_METHODS
    assert method_names() == sorted(files)
    named = "sft dpo ipo beta_dpo madpo mixdpo simpo rdpo slic_hf kto orpo cpo robust_dpo dpop dpo_nll cal_dpo"
    assert {*named.split(), "selective_dpo"} <= files
    assert method_file("dpo") == FOLDER / "dpo.py"


def test_a_variant_is_a_method_with_other_parameters() -> None:
    assert load_method("dpo_sorted").params == check_params("dpo", {"order": "margin_desc"})
    assert load_method("dpo_sorted", {"beta": 0.3}).params == check_params("dpo", {"order": "margin_desc", "beta": 0.3})
    assert load_method("dpo_sorted").bind({"beta": 0.3}).params.order == "margin_desc"
    assert load_method("dpo_sorted").name == "dpo_sorted"
    assert method_file("dpo_sorted") == FOLDER / "dpo.py"
    assert "dpo_sorted" not in method_names()


def test_the_controls_and_released_forms_have_names() -> None:
    named = "dpo_sorted dpo_easy_only dpo_drop_contradicted mixdpo_shuffled mixdpo_released sft_hard_only"
    named += " madpo_shuffled_margins madpo_unit_weight beta_dpo_released"
    assert set(named.split()) <= set(variant_names())


def test_a_variant_with_the_name_of_a_method_is_refused(extra: Path) -> None:
    (extra / "hinge_here.py").write_text(EXTRA + '\nVARIANTS = {"dpo": {"beta": 2.0}}\n')
    with pytest.raises(UserError, match="variant `dpo` has the name of another method"):
        variant_names()


def test_nothing_heavy_is_imported_to_check_parameters() -> None:
    code = (
        "import sys\n"
        "from marginbench.methods.registry import check_params, load_method, method_names\n"
        "for name in method_names(): load_method(name).needs\n"
        "heavy = {'torch', 'transformers', 'trl', 'peft', 'sklearn'} & set(sys.modules)\n"
        "assert not heavy, heavy\n"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr


def test_a_file_in_another_folder_is_a_method(extra: Path) -> None:
    assert "hinge_here" in method_names()
    assert method_file("hinge_here") == extra / "hinge_here.py"
    assert load_method("hinge_here", {"beta": 2.0}).params.beta == 2.0
    assert "hinge_here" not in [path.stem for path in FOLDER.glob("*.py")]


def test_a_folder_can_be_given_as_an_argument(extra: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("MARGINBENCH_METHODS")
    assert "hinge_here" not in method_names()
    assert "hinge_here" in method_names(extra)
    assert check_params("hinge_here", {"beta": 1}, extra).beta == 1.0


def test_an_edited_file_is_read_again(extra: Path) -> None:
    assert load_method("hinge_here", {"beta": 1.0}).doc.startswith("A hinge")
    (extra / "hinge_here.py").write_text(EXTRA.replace("A hinge", "Another hinge"))
    assert load_method("hinge_here", {"beta": 1.0}).doc.startswith("Another hinge")


def test_the_same_name_twice_is_refused(extra: Path) -> None:
    (extra / "dpo.py").write_text(EXTRA)
    with pytest.raises(UserError, match="`dpo` exists already"):
        method_names()


def test_a_file_without_its_parts_is_refused(extra: Path) -> None:
    (extra / "half.py").write_text("Params = 1\n")
    with pytest.raises(UserError, match="missing needs, loss, EXAMPLE"):
        load_method("half")


def test_a_folder_that_is_not_there(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setenv("MARGINBENCH_METHODS", str(tmp_path / "nowhere"))
    with pytest.raises(UserError, match="is not a folder"):
        method_names()


@pytest.mark.parametrize(
    ("name", "params", "message"),
    [
        ("dpo", {"beta": -1}, "method `dpo`: `beta` = -1: must be greater than 0"),
        ("dpo", {"bta": 0.1}, "method `dpo`: unknown parameter `bta`; did you mean `beta`?"),
        ("dpo", {"label_smoothing": 0.5}, "method `dpo`: `label_smoothing` = 0.5: must be less than 0.5"),
        ("dpo", {"beta": "much"}, "method `dpo`: `beta` = 'much': must be a valid number"),
        ("ipo", {"reduction": "avg"}, "method `ipo`: `reduction` = 'avg': must be 'mean' or 'sum'"),
        ("hinge_here", {}, "method `hinge_here`: parameter `beta` is missing"),
        ("madpo", {"c_max": 1}, "method `madpo`: `c_max` = 1: must be greater than 1"),
        ("mixdpo", {"tau": 0.5, "percentile": 0.1}, "method `mixdpo`: `tau` and `percentile` are two ways to say"),
        ("mixdpo", {"tau": None}, "method `mixdpo`: `tau` and `percentile` are both null"),
        ("mixdpo", {"tau": float("nan")}, "method `mixdpo`: `tau` = nan: must be a number or an infinity"),
        ("mixdpo", {"order": "seeded", "sft_schedule": "own"}, "method `mixdpo`: `sft_schedule: own` needs"),
        ("simpo", {"gamma": 1, "gamma_beta_ratio": 0.5}, "method `simpo`: `gamma` and `gamma_beta_ratio` are two ways"),
        ("dpo", {"shuffle_margins": 1}, "method `dpo`: `shuffle_margins` has no effect where no margins are read"),
        ("dpo_sorte", {}, "unknown method `dpo_sorte`; did you mean `dpo_sorted`?"),
        ("dppo", {}, "unknown method `dppo`; did you mean `dpo`?"),
    ],
)
def test_messages(extra: Path, name: str, params: dict, message: str) -> None:
    with pytest.raises(UserError) as raised:
        check_params(name, params)
    assert str(raised.value).startswith(message)
    assert "\n" not in str(raised.value)


def test_the_page_for_people_names_every_method_and_variant() -> None:
    page = (Path(__file__).parents[2] / "docs" / "methods.md").read_text(encoding="utf-8")
    for name in (*method_names(), *variant_names()):
        assert f"`{name}`" in page, name
