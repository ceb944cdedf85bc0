"""`marginbench compare capability` on outputs in lm-eval's format: pairs, McNemar, Holm, groups, refusals."""

import copy
import gzip
import json
import math

import pytest
from marginbench.cli import main
from marginbench.errors import UserError
from marginbench.reporting.compare_capability import compare_capability

STAMP = "2026-01-02T03-04-05.678901"


def run(folder, values, changes=None, group=True, zipped=False):
    """An lm-eval output folder: two tasks with 0/1 values and a group of both, weighted by size."""
    results, samples = {}, {}
    for task, correct in values.items():
        n = len(correct)
        mean = sum(correct) / n
        error = math.sqrt(sum((c - mean) ** 2 for c in correct) / (n - 1) / n)
        results[task] = {"alias": task, "name": task, "sample_len": n, "acc,none": mean, "acc_stderr,none": error}
        samples[task] = [
            {"doc_id": i, "filter": "none", "acc": c, "doc_hash": f"d{i}", "prompt_hash": f"p{i}", "target_hash": "t"}
            for i, c in enumerate(correct)
        ]
    every = [c for correct in values.values() for c in correct]
    if group:
        results["both"] = {"alias": "both", "acc,none": sum(every) / len(every), "acc_stderr,none": "N/A"}
    document = {
        "results": results,
        "groups": {"both": results["both"]} if group else {},
        "group_subtasks": {"both": list(values), **{task: [] for task in values}} if group else {},
        "configs": {task: {"doc_to_text": "{{question}}"} for task in values},
        "versions": dict.fromkeys(values, 1.0),
        "n-shot": dict.fromkeys(values, 5),
        "task_hashes": {task: f"hash-{task}" for task in values},
        "chat_template_sha": None,
        "lm_eval_version": "0.4.13",
    }
    for path, value in (changes or {}).items():
        here = document
        *parents, last = path
        for part in parents:
            here = here[part]
        here[last] = value
    folder = folder / "model"
    folder.mkdir(parents=True)
    (folder / f"results_{STAMP}.json").write_text(json.dumps(document))
    for task, rows in samples.items():
        text = "".join(json.dumps(row) + "\n" for row in rows)
        name = f"samples_{task}_{STAMP}.jsonl"
        if zipped:
            (folder / f"{name}.gz").write_bytes(gzip.compress(text.encode()))
        else:
            (folder / name).write_text(text)
    return folder.parent


BASE = {"easy": [1, 1, 1, 0, 1, 0, 1, 1], "hard_task": [0, 0, 1, 0]}
TUNED = {"easy": [0, 0, 1, 1, 0, 0, 0, 0], "hard_task": [0, 0, 1, 0]}


def test_a_row_for_each_task_metric_and_filter(tmp_path):
    rows = compare_capability(run(tmp_path / "a", BASE), run(tmp_path / "b", TUNED, zipped=True))
    by_task = {row["task"]: row for row in rows}
    assert set(by_task) == {"easy", "hard_task", "both"}
    easy = by_task["easy"]
    assert (easy["metric"], easy["filter"], easy["n"]) == ("acc", "none", 8)
    assert (easy["base"], easy["tuned"], easy["diff"]) == (0.75, 0.25, -0.5)
    assert (easy["lost"], easy["gained"]) == (5, 1)
    assert easy["mcnemar_p"] == pytest.approx(2 * (1 + 6) / 2**6)  # exact: P(at most 1 of 6) twice
    differences = [b - a for a, b in zip(BASE["easy"], TUNED["easy"], strict=True)]
    variance = sum((d + 0.5) ** 2 for d in differences) / 7
    assert easy["diff_se"] == pytest.approx(math.sqrt(variance / 8))
    assert easy["holm_p"] == pytest.approx(3 * easy["mcnemar_p"])
    unchanged = by_task["hard_task"]
    assert (unchanged["lost"], unchanged["gained"], unchanged["mcnemar_p"], unchanged["diff_se"]) == (0, 0, 1.0, 0.0)


def test_a_group_is_compared_on_the_documents_of_its_tasks(tmp_path):
    rows = compare_capability(run(tmp_path / "a", BASE), run(tmp_path / "b", TUNED))
    group = next(row for row in rows if row["task"] == "both")
    assert (group["n"], group["lost"], group["gained"], group["base_stderr"]) == (12, 5, 1, None)


def test_a_group_that_is_no_mean_of_its_documents_has_no_paired_error(tmp_path):
    other = {("results", "both", "acc,none"): 0.9, ("groups", "both", "acc,none"): 0.9}
    rows = compare_capability(run(tmp_path / "a", BASE, other), run(tmp_path / "b", TUNED, other))
    group = next(row for row in rows if row["task"] == "both")
    assert (group["n"], group["diff_se"], group["mcnemar_p"], group["holm_p"]) == (None, None, None, None)
    easy = next(row for row in rows if row["task"] == "easy")
    assert easy["holm_p"] == pytest.approx(2 * easy["mcnemar_p"])  # what has no test is not in the family


@pytest.mark.parametrize(
    ("changes", "words"),
    [
        ({("versions", "easy"): 2.0}, ["task version of easy", "1.0", "2.0"]),
        ({("n-shot", "easy"): 0}, ["number of shots of easy"]),
        ({("task_hashes", "hard_task"): "other"}, ["task hash of hard_task"]),
        ({("chat_template_sha",): "abc"}, ["chat template"]),
        ({("lm_eval_version",): "0.4.9"}, ["lm_eval version", "0.4.9"]),
        ({("configs", "easy", "doc_to_text"): "Q: {{question}}"}, ["prompt of easy"]),
    ],
)
def test_runs_made_differently_are_refused(tmp_path, changes, words):
    with pytest.raises(UserError) as error:
        compare_capability(run(tmp_path / "a", BASE), run(tmp_path / "b", TUNED, changes))
    assert all(word in str(error.value) for word in ["not comparable", *words]), error.value
    assert "\n" not in str(error.value)


def _rewrite(folder, task, change):
    path = next(folder.rglob(f"samples_{task}_*.jsonl"))
    rows = [json.loads(line) for line in path.read_text().splitlines()]
    path.write_text("".join(json.dumps(row) + "\n" for row in change(copy.deepcopy(rows))))


def test_other_documents_are_refused(tmp_path):
    base, tuned = run(tmp_path / "a", BASE), run(tmp_path / "b", TUNED)
    _rewrite(tuned, "easy", lambda rows: [{**row, "prompt_hash": "other"} for row in rows])
    with pytest.raises(UserError, match="document 0 of easy is not the same text"):
        compare_capability(base, tuned)
    _rewrite(tuned, "easy", lambda rows: rows[1:])
    with pytest.raises(UserError, match="document 0 of easy is in one of the two runs only"):
        compare_capability(base, tuned)
    _rewrite(base, "easy", lambda rows: [*rows, rows[0]])
    with pytest.raises(UserError, match="occurs more than once"):
        compare_capability(base, tuned)


def test_the_command_prints_json_or_one_line(tmp_path, capsys):
    base, tuned = str(run(tmp_path / "a", BASE)), str(run(tmp_path / "b", TUNED))
    assert main(["compare", "capability", base, tuned, "--margin", "0.1"]) == 0
    rows = {row["task"]: row for row in json.loads(capsys.readouterr().out)}
    assert rows["hard_task"]["non_inferior"] == "pass"
    assert rows["easy"]["non_inferior"] == "inconclusive"
    for wrong in (str(tmp_path / "absent"), str(tmp_path)):
        assert main(["compare", "capability", wrong, tuned]) == 2
        message = capsys.readouterr().err
        assert message.startswith("marginbench: error:"), message
        assert message.count("\n") == 1, message
