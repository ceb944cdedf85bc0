"""`marginbench score mt-bench`: means by hand, duplicates, and a line for every broken file."""

import gzip
import json
import math
import statistics

import pytest
from marginbench.benchmarks.clustered import clustered_mean
from marginbench.cli import main
from marginbench.files import write_jsonl


def record(question_id, turn, score, model="dpo", judge=("j", "single-v1"), **changes):
    base = {"question_id": question_id, "model": model, "judge": list(judge), "turn": turn, "score": score}
    return {**base, "user_prompt": "p", "judgment": "t", "tstamp": 0.0, **changes}


def run(capsys, *arguments):
    code = main(["score", "mt-bench", *map(str, arguments)])
    captured = capsys.readouterr()
    return code, json.loads(captured.out) if code == 0 else captured.out, captured.err


def test_means_by_hand(tmp_path, capsys):
    path = tmp_path / "j_single.jsonl"
    rows = [record(81, 1, 8), record(81, 2, 6.5), record(82, 1, 3), record(82, 2, -1), record(83, 1, 10)]
    write_jsonl(path, [*rows, record(81, 1, 5, model="base")])
    code, output, err = run(capsys, path)
    assert code == 0
    assert list(output["models"]) == ["base", "dpo"]
    dpo = output["models"]["dpo"]
    average = (8 + 6.5 + 3 + 10) / 4
    assert (dpo["turn_1"], dpo["turn_2"], dpo["average"], dpo["n"], dpo["n_dropped"]) == (7.0, 6.5, average, 4, 1)
    residuals = [8 + 6.5 - 2 * average, 3 - average, 10 - average]
    assert dpo["clustered_se"] == pytest.approx(math.sqrt(3 / 2 * sum(r * r for r in residuals)) / 4, abs=1e-12)
    assert output["models"]["base"] == {
        "turn_1": 5.0, "turn_2": None, "average": 5.0, "clustered_se": None, "n": 1, "n_dropped": 0,
    }  # fmt: skip
    assert err == "dpo: judgments without a rating, left out: 1\n"


def test_a_model_without_any_rating_has_no_mean(tmp_path, capsys):
    write_jsonl(tmp_path / "f.jsonl", [record(81, 1, -1), record(81, 2, -1)])
    code, output, _ = run(capsys, tmp_path / "f.jsonl")
    assert code == 0
    assert output["models"]["dpo"] == {
        "turn_1": None, "turn_2": None, "average": None, "clustered_se": None, "n": 0, "n_dropped": 2,
    }  # fmt: skip


def test_files_are_scored_together_plain_or_zipped_and_in_any_order(tmp_path, capsys):
    rows = [record(i, turn, (3 * i + turn) % 10 + 1) for i in range(81, 91) for turn in (1, 2)]
    write_jsonl(tmp_path / "a.jsonl", rows[:7])
    lines = "".join(json.dumps(row) + "\n\n" for row in reversed(rows[7:]))
    (tmp_path / "b.jsonl.gz").write_bytes(gzip.compress(lines.encode()))
    write_jsonl(tmp_path / "all.jsonl", rows)
    _, apart, _ = run(capsys, tmp_path / "b.jsonl.gz", tmp_path / "a.jsonl")
    _, together, _ = run(capsys, tmp_path / "all.jsonl")
    assert apart["models"]["dpo"] == pytest.approx(together["models"]["dpo"], abs=1e-12)
    assert together["models"]["dpo"]["n"] == 20


@pytest.mark.parametrize(
    ("choice", "average", "n", "dropped"), [("first", 2, 1, 1), ("last", 6.5, 2, 0), ("keep", 5, 3, 1)]
)
def test_duplicates(tmp_path, capsys, choice, average, n, dropped):
    """Which judgment stays is decided before ratings are looked at, whichever file it stands in."""
    write_jsonl(tmp_path / "a.jsonl", [record(81, 1, 2), record(82, 1, -1)])
    write_jsonl(tmp_path / "b.jsonl", [record(82, 1, 9), record(81, 1, 4)])
    code, output, err = run(capsys, tmp_path / "a.jsonl", tmp_path / "b.jsonl", "--duplicates", choice)
    assert code == 0
    dpo = output["models"]["dpo"]
    assert (dpo["average"], dpo["n"], dpo["n_dropped"]) == (average, n, dropped)
    assert (f"duplicates passed over (--duplicates {choice}): 2" in err) == (choice != "keep")


def test_duplicates_are_refused_in_one_line(tmp_path, capsys):
    write_jsonl(tmp_path / "a.jsonl", [record(81, 1, 2), record(81, 2, 2), record(81, 1, 2)])
    code, out, err = run(capsys, tmp_path / "a.jsonl")
    assert (code, out, len(err.splitlines())) == (2, "", 1)
    assert "1 judgments are there more than once, first question 81, turn 1 of dpo" in err
    assert "a.jsonl, line 1 and" in err
    assert "a.jsonl, line 3)" in err


def test_the_same_question_of_two_models_or_two_turns_is_no_duplicate(tmp_path, capsys):
    rows = [record(81, 1, 2), record(81, 2, 2), record(81, 1, 2, model="base"), record("81b", 1, 2)]
    write_jsonl(tmp_path / "a.jsonl", rows)
    assert run(capsys, tmp_path / "a.jsonl")[0] == 0


@pytest.mark.parametrize("model", ["dpo", "base"])
def test_judges_are_not_mixed(tmp_path, capsys, model):
    """Nor hidden: a second prompt of one judge is its turn or reference variant, and no second judge."""
    rows = [record(81, 1, 2), record(81, 2, 2, judge=("j", "single-v1-multi-turn"))]
    write_jsonl(tmp_path / "a.jsonl", rows)
    assert run(capsys, tmp_path / "a.jsonl")[0] == 0
    write_jsonl(tmp_path / "a.jsonl", [*rows, record(82, 1, 9, model=model, judge=("k", "single-v1"))])
    code, _, err = run(capsys, tmp_path / "a.jsonl")
    assert code == 2
    assert "a.jsonl, line 3: a second judge (j, k)" in err


GOOD = json.dumps(record(81, 1, 2))


@pytest.mark.parametrize(
    ("line", "words"),
    [
        ("{", "not valid JSON"),
        ("[" * 100_000, "not valid JSON"),
        ("[1]", "holds a list, not an object"),
        ("null", "holds a NoneType"),
        ("{}", "the key `question_id` is missing"),
        (GOOD.replace('"model"', '"model_1"'), "the key `model` is missing"),
        (GOOD.replace('"score": 2', '"score": "2"'), "`score` must be a rating from 1 to 10"),
        (GOOD.replace('"score": 2', '"score": null'), "`score` must be a rating from 1 to 10"),
        (GOOD.replace('"score": 2', '"score": true'), "`score` must be a rating from 1 to 10"),
        (GOOD.replace('"score": 2', '"score": NaN'), "`score` must be a rating from 1 to 10"),
        (GOOD.replace('"score": 2', '"score": 0'), "or -1 where there is none, not 0"),
        (GOOD.replace('"score": 2', '"score": 11'), "or -1 where there is none, not 11"),
        (GOOD.replace('"turn": 1', '"turn": 3'), "`turn` must be 1 or 2, not 3"),
        (GOOD.replace('"turn": 1', '"turn": true'), "`turn` must be 1 or 2, not True"),
        (GOOD.replace('"turn": 1', '"turn": [1]'), "`turn` must be 1 or 2, not [1]"),
        (GOOD.replace('"dpo"', "7"), "`model` must be a name, not 7"),
        (GOOD.replace('["j", "single-v1"]', "[]"), "`judge` must be [name, prompt], not []"),
        (GOOD.replace("81", "[81]"), "`question_id` must be a number or a text, not [81]"),
        (b"\xff", "not UTF-8"),
    ],
)
def test_a_broken_line_is_named(tmp_path, capsys, line, words):
    path = tmp_path / "bad.jsonl"
    path.write_bytes(GOOD.encode() + b"\n" + (line if isinstance(line, bytes) else line.encode()) + b"\n")
    code, out, err = run(capsys, path)
    assert (code, out, len(err.splitlines())) == (2, "", 1)
    assert "bad.jsonl, line 2: " in err
    assert words in err


def test_a_broken_file_is_named(tmp_path, capsys):
    (tmp_path / "empty.jsonl").write_text(" \n")
    (tmp_path / "cut.jsonl.gz").write_bytes(gzip.compress(GOOD.encode() * 100)[:-9])
    (tmp_path / "plain.jsonl.gz").write_text(GOOD)
    for name, words in (
        ("nowhere.jsonl", "cannot be read (No such file or directory)"),
        (".", "cannot be read (Is a directory)"),
        ("empty.jsonl", "the file is empty"),
        ("cut.jsonl.gz", "damaged or cut short"),
        ("plain.jsonl.gz", "damaged or cut short"),
    ):
        code, out, err = run(capsys, tmp_path / name)
        assert (code, out, len(err.splitlines())) == (2, "", 1), name
        assert words in err, name


def test_the_clustered_error_of_single_values_is_the_plain_one():
    values = [1.0, 4.0, 4.0, 9.0, 2.5]
    mean, se = clustered_mean(values, list("abcde"))
    assert (mean, se) == pytest.approx((statistics.fmean(values), statistics.stdev(values) / 5**0.5), abs=1e-12)
    # Writing every value twice under its own cluster adds no information.
    assert clustered_mean(values * 2, list("abcde") * 2) == pytest.approx((mean, se), abs=1e-12)
    assert clustered_mean(values, ["a"] * 5) == (statistics.fmean(values), None)
    with pytest.raises(ValueError, match="0 values in 0 clusters"):
        clustered_mean([], [])
    with pytest.raises(ValueError, match="value 1 is not a finite number"):
        clustered_mean([1.0, math.nan], ["a", "b"])
