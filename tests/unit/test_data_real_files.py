"""Real preference files beside the checkout: read in place, numbers counted by hand; skipped where they are absent."""

import gzip
import json
import math
from pathlib import Path

import pytest
from data_builders import file_corpus
from marginbench.data.corpora import read_corpus
from marginbench.data.pairs import pairs_from_corpus
from marginbench.data.preferences import read_preferences
from marginbench.errors import UserError
from marginbench.records import PAIRS, TEXTS, check_table
from marginbench.study import Dataset

SHARED = Path(__file__).resolve().parents[2].parent / "shared" / "data"


def real(name: str) -> Path:
    path = SHARED / name
    if not path.is_file():
        pytest.skip(f"../shared/data/{name} is not beside this checkout")
    return path


def places(report, kind):
    entry = report["problems"][kind]
    return entry["count"], entry.get("lines", entry.get("rows"))


def check_both_tables(corpus):
    """Texts and pairs keep their contracts and share no evaluation prompt."""
    texts, _ = read_corpus(corpus, 0)
    pairs, report = pairs_from_corpus(corpus, Dataset(corpus="real"), 0.2, 0)
    check_table(texts, TEXTS, "texts")
    check_table(pairs, PAIRS, "pairs")
    held = {json.dumps(p) for p in texts.loc[texts["role"].isin(["eval", "perplexity"]), "prompt"]}
    assert not held & {json.dumps(p) for p in pairs["prompt"]}
    return pairs, report


@pytest.mark.parametrize("text_format", ["chat", "plain"])
def test_hh_rlhf(text_format):
    path = real("hh_rlhf/harmless-base.test.jsonl.gz")
    corpus = file_corpus(path, layout="hh", format=text_format)
    frame, report = read_preferences(corpus)
    assert (report["rows"], len(frame)) == (2312, 2303)
    assert places(report, "empty_text") == (4, [87, 517, 926, 1104])
    assert places(report, "different_prompts") == (5, [1255, 1689, 1951, 1953, 2037])
    with gzip.open(path, "rt", encoding="utf-8") as handle:
        raw = [json.loads(line) for line in handle]
    for row in frame.itertuples():
        if text_format == "plain":
            assert row.prompt[0]["content"] + row.chosen == raw[row.source_row]["chosen"]
            assert row.prompt[0]["content"] + row.rejected == raw[row.source_row]["rejected"]
        else:
            assert row.prompt[-1]["role"] == "user"
            assert raw[row.source_row]["rejected"].rstrip().endswith(row.rejected)
    check_both_tables(corpus)


def test_llamafactory_dpo_demo():
    corpus = file_corpus(real("llamafactory_demo/dpo_en_demo.json.gz"), layout="sharegpt")
    frame, report = read_preferences(corpus)
    assert (report["rows"], len(frame)) == (300, 295)
    assert places(report, "duplicate_pair") == (5, [157, 186, 230, 248, 275])
    assert sum(p[0]["role"] == "system" for p in frame["prompt"]) > 70
    check_both_tables(corpus)


@pytest.mark.parametrize("name", ["alpaca-7b", "vicuna-7b-v1.5"])
def test_alpaca_eval_annotations_as_columns_with_ratings(tmp_path, name):
    """The continuous preference p in [1, 2] orders the outputs, and logit(p - 1) is the margin between them."""
    with gzip.open(real(f"alpaca_eval/annotations-weighted-{name}.json.gz"), "rt", encoding="utf-8") as handle:
        annotations = json.load(handle)
    rows = []
    for row in annotations:
        p = min(max(row["preference"] - 1, 1e-12), 1 - 1e-12)
        better, worse = ("output_2", "output_1") if p > 0.5 else ("output_1", "output_2")
        margin = abs(math.log(p / (1 - p)))
        rows.append({"instruction": row["instruction"], "w": row[better], "l": row[worse], "sw": margin, "sl": 0.0})
    (tmp_path / "a.json").write_text(json.dumps(rows))
    columns = {"prompt": "instruction", "chosen": "w", "rejected": "l", "score_chosen": "sw", "score_rejected": "sl"}
    corpus = file_corpus(tmp_path / "a.json", columns=columns)
    _, report = check_both_tables(corpus)
    assert report["rows"] == 805
    assert report["label_agreement"] > 0.99
    assert report["problems"]["rating_contradicts_label"]["count"] == 0


def test_alpaca_eval_annotations_read_as_they_are():
    columns = {"prompt": "instruction", "chosen": "output_1", "rejected": "output_2"}
    corpus = file_corpus(real("alpaca_eval/annotations-weighted-alpaca-7b.json.gz"), columns=columns)
    frame, report = read_preferences(corpus)
    assert (report["rows"], len(frame)) == (805, 802)
    assert places(report, "identical_answers") == (3, [199, 370, 713])


def test_gsm8k_solutions_as_pairs_of_a_right_and_a_wrong_answer(tmp_path):
    rows = []
    with gzip.open(real("gsm8k/example_model_solutions.jsonl.gz"), "rt", encoding="utf-8") as handle:
        for line in handle:
            row = json.loads(line)
            answers = [value for value in row.values() if isinstance(value, dict)]
            right = [a["solution"] for a in answers if a["is_correct"]]
            wrong = [a["solution"] for a in answers if not a["is_correct"]]
            if right and wrong:
                rows.append({"prompt": row["question"], "chosen": right[0], "rejected": wrong[0]})
    (tmp_path / "g.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    frame, report = read_preferences(file_corpus(tmp_path / "g.jsonl"))
    assert (report["rows"], len(frame)) == (731, 731)
    check_both_tables(file_corpus(tmp_path / "g.jsonl", max_pairs=200))


@pytest.mark.parametrize(
    ("name", "layout", "words"),
    [
        ("llamafactory_demo/kto_en_demo.json.gz", "columns", "the columns are messages, label"),
        ("llamafactory_demo/kto_en_demo.json.gz", "sharegpt", "`conversations` or `chosen` or `rejected`"),
        ("llamafactory_demo/alpaca_en_demo.json.gz", "columns", "the columns are instruction, input, output"),
        ("gsm8k/test.jsonl.gz", "hh", "no row has the column `chosen` or `rejected`; the columns are question, answer"),
        ("gsm8k/example_model_solutions.jsonl.gz", "columns", "no row has the column"),
        ("mt_bench/question.jsonl", "columns", "no row has the column"),
        ("arena_hard/question-v2.0.jsonl.gz", "columns", "no row has the column"),
        ("ifeval/input_data.jsonl", "columns", "no row has the column `chosen` or `rejected`"),
        ("hh_rlhf/harmless-base.test.jsonl.gz", "columns", "no row has the column `prompt`"),
        ("llamafactory_demo/dpo_en_demo.json.gz", "hh", "no usable preference pair: 300 x a value of the wrong type"),
    ],
)
def test_what_is_no_preference_data_in_this_layout_is_refused(name, layout, words):
    with pytest.raises(UserError, match=words) as caught:
        read_preferences(file_corpus(real(name), layout=layout))
    assert "\n" not in str(caught.value)
