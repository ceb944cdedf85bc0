"""The command line: what it prints, where, and with which exit code."""

import pytest
from marginbench.cli import main
from marginbench.methods.registry import method_names


def test_methods_lists_every_method_with_its_paper(capsys):
    assert main(["methods"]) == 0
    output = capsys.readouterr().out
    heads = [line.split(":")[0] for line in output.splitlines() if not line.startswith(" ")]
    assert heads == method_names()
    for words in ("(g - 1 / (2 beta))^2", "needs: reference log-probabilities", "c_max = 4.0", "dpo_sorted"):
        assert words in output
    assert "arXiv 2305.18290" in output


def test_a_method_page_tells_parameters_and_needs(capsys):
    assert main(["methods", "show", "ipo"]) == 0
    page = capsys.readouterr().out
    for words in ("2310.12036", "beta", "reduction", "reference log-probabilities", "ipo.py"):
        assert words in page


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (["methods", "show", "ipx"], "did you mean `ipo`?"),
        (["methods", "show"], "which one?"),
        (["check", "nowhere.yaml"], "no such file"),
        (["loss", "dpo"], "the following arguments are required: --pairs; see `marginbench loss --help`"),
        (["loss", "dpo", "--pairs", "nowhere.json"], "nowhere.json: no such file"),
        (["losss"], "invalid choice: 'losss'"),
        ([], "required: COMMAND"),
        (["show", "nowhere"], "nowhere"),
        (["run", "quickstrat"], "did you mean `quickstart`?"),
    ],
)
def test_a_users_mistake_is_one_line_and_exit_code_2(arguments, words, capsys):
    assert main(arguments) == 2
    captured = capsys.readouterr()
    assert captured.out == ""
    assert len(captured.err.splitlines()) == 1
    assert captured.err.startswith("marginbench: error: ")
    assert words in captured.err


def test_shipped_studies_are_valid(capsys):
    from marginbench.cli import ROOT

    for file in sorted((ROOT / "studies").glob("*.yaml")):
        assert main(["check", str(file)]) == 0
        assert "is valid" in capsys.readouterr().err
