"""`marginbench compare scores`: paired by instruction, whatever the order of the rows and whatever is missing."""

import json

import numpy as np
import pytest
from marginbench import cli
from marginbench.identity import stream
from scipy import stats


def rows(preferences, method, **changes):
    return [
        {
            "instruction": f"instruction {i}",
            "output_1": f"base {i}",
            "output_2": method,
            "generator_1": "start",
            "generator_2": method,
            "annotator": "judge",
            "preference": preference,
            **changes,
        }
        for i, preference in enumerate(preferences)
    ]


def compare(folder, capsys, a, b, *options):
    for name, value in (("a.json", a), ("b.json", b)):
        (folder / name).write_text(json.dumps(value))
    code = cli.main(["compare", "scores", str(folder / "a.json"), str(folder / "b.json"), *options])
    printed = capsys.readouterr()
    return code, json.loads(printed.out) if printed.out else None, printed.err


def test_difference_and_interval_are_those_of_the_paired_t_test(tmp_path, capsys):
    x = 1 + stream("paired", "x").random(60)
    y = np.clip(x + 0.3 * stream("paired", "y").normal(size=60), 1, 2)
    a, b = rows(x.tolist(), "dpo"), rows(y.tolist(), "ipo")
    a[3]["preference"] = b[5]["preference"] = None
    a[7]["preference"], x[7] = 0, 1.5
    a, b = a[:50], b[2:][::-1]
    code, found, messages = compare(tmp_path, capsys, a, b, "--confidence", "0.9")
    used = [i for i in range(2, 50) if i not in (3, 5)]
    expected = stats.ttest_rel(100 * x[used], 100 * y[used])
    low, high = expected.confidence_interval(0.9)
    assert (code, messages) == (0, "")
    assert found["diff"] == pytest.approx(100 * (x[used] - y[used]).mean(), abs=1e-9)
    assert found["se_paired"] == pytest.approx(100 * (x[used] - y[used]).std(ddof=1) / len(used) ** 0.5, abs=1e-9)
    assert [found["ci_low"], found["ci_high"], found["p"]] == pytest.approx([low, high, expected.pvalue], rel=1e-9)
    assert found["correlation"] == pytest.approx(np.corrcoef(x[used], y[used])[0, 1])
    counts = [found[key] for key in ("n_common", "n_only_a", "n_only_b", "n_null_a", "n_null_b")]
    assert counts == [46, 2, 10, 1, 1]
    assert (found["a"], found["b"], found["same_judge"]) == ("dpo", "ipo", True)


def test_a_file_against_itself_differs_by_nothing(tmp_path, capsys):
    a = rows([1.5, 1.5, 1.5], "dpo")
    _, found, _ = compare(tmp_path, capsys, a, a)
    assert [found[key] for key in ("diff", "se_paired", "p", "correlation")] == [0.0, 0.0, 1.0, None]


@pytest.mark.parametrize("annotator", ["other", None])
def test_another_judge_is_marked(tmp_path, capsys, annotator):
    code, found, messages = compare(
        tmp_path, capsys, rows([1.0, 2.0], "dpo"), rows([2.0, 1.5], "ipo", annotator=annotator)
    )
    assert code == 0
    assert not found["same_judge"]
    assert "not known to be the same" in messages


@pytest.mark.parametrize(
    ("b", "options", "words"),
    [
        (rows([1.0, 2.0], "ipo", generator_1="other"), [], "their win rates can't be compared"),
        (rows([1.0, 2.0], "ipo", output_1="x"), [], "the baseline's answer differs for 2 of 2 instructions"),
        (rows([1.0, None], "ipo"), [], "1 instructions have a verdict in both"),
        (rows([1.0, 2.0], "ipo", instruction="same"), [], "occur more than once"),
        (rows([1.0, 2.0], "ipo"), ["--confidence", "95"], "a number between 0 and 1"),
    ],
)
def test_files_that_cannot_be_paired_are_one_line(tmp_path, capsys, b, options, words):
    code, found, messages = compare(tmp_path, capsys, rows([1.0, 2.0], "dpo"), b, *options)
    assert (code, found) == (2, None)
    assert words in messages
    assert len(messages.splitlines()) == 1
