"""Broken data files: each ends with one line that says what is wrong and where, and nothing is written."""

import gzip
import io
import json

import pandas as pd
import pytest
from data_builders import file_corpus, preference_rows, review_rows, reviews_corpus
from marginbench.data.classifier import fit_halves
from marginbench.data.corpora import read_corpus
from marginbench.data.pairs import pairs_from_corpus
from marginbench.errors import UserError
from marginbench.records import PAIRS, TEXTS, write_table
from marginbench.study import Dataset

ROWS = preference_rows(12)
JSONL = b"".join(json.dumps(row).encode() + b"\n" for row in ROWS)
HH = {"chosen": "\n\nHuman: a\n\nAssistant: b", "rejected": "\n\nHuman: c\n\nAssistant: d"}


def jsonl(*rows) -> bytes:
    return b"".join(json.dumps(row).encode() + b"\n" for row in rows)


def parquet(rows) -> bytes:
    buffer = io.BytesIO()
    pd.DataFrame(rows).to_parquet(buffer)
    return buffer.getvalue()


def changed(**values) -> bytes:
    return jsonl(*[{**row, **values} for row in ROWS])


REFUSE = {"on_bad_rows": "refuse"}

# name of the case -> (file name, bytes, options of the corpus, words of the message)
PREFERENCE_FILES = {
    "empty file": ("p.jsonl", b"", {}, "the file is empty"),
    "only white space": ("p.json", b" \n\n", {}, "the file is empty"),
    "empty list": ("p.json", b"[]", {}, "it has no rows"),
    "truncated gzip": ("p.jsonl.gz", gzip.compress(JSONL)[:-20], {}, "damaged or cut short"),
    "not gzip at all": ("p.jsonl.gz", JSONL, {}, "damaged or cut short .Not a gzipped file"),
    "gzip of nothing": ("p.jsonl.gz", gzip.compress(b""), {}, "the file is empty"),
    "broken gzip block": ("p.json.gz", gzip.compress(JSONL)[:30] + b"\xff" * 40, {}, "damaged or cut short"),
    "unknown ending": ("p.xlsx", JSONL, {}, "no known format; known: .jsonl"),
    "no ending": ("pairs", JSONL, {}, "no known format"),
    "only .gz": ("pairs.gz", gzip.compress(JSONL), {}, "no known format"),
    "broken parquet": ("p.parquet", parquet(ROWS)[:-8], {}, "not a readable parquet file"),
    "JSON under the name of parquet": ("p.parquet", JSONL, {}, "not a readable parquet file"),
    "empty parquet": ("p.parquet", parquet([]), {}, "it has no rows"),
    "JSON cut short": ("p.json", json.dumps(ROWS).encode()[:-30], {}, "not valid JSON"),
    "JSONL under the name of JSON": ("p.json", JSONL, {}, "one object a line\\? then name it .jsonl"),
    "an object, not a list": ("p.json", json.dumps({"data": ROWS}).encode(), {}, "holds a dict, not a list of rows"),
    "JSON that nests too deeply": ("p.json", b"[" * 200_000, {}, "not valid JSON .nested too deeply"),
    "not UTF-8 in JSON": ("p.json", b'[\n{"prompt": "caf\xe9"}]', {}, "line 2: not UTF-8 .byte 0xe9"),
    "not UTF-8 in every line": ("p.jsonl", b'{"prompt": "caf\xe9"}\n' * 3, {}, "3 x bytes .* not UTF-8 .lines 1, 2, 3"),
    "UTF-16": ("p.jsonl", JSONL.decode().encode("utf-16"), {}, "no usable preference pair.*not UTF-8"),
    "not UTF-8 in one line": ("p.jsonl", JSONL + b"\xff\n", REFUSE, "not UTF-8 .line 13; first: byte 0xff"),
    "one line is no JSON": ("p.jsonl", JSONL + b"{'prompt': 1}\n", REFUSE, "1 x not valid JSON .line 13"),
    "cut inside the last line": ("p.jsonl", JSONL[:-9], REFUSE, "1 x not valid JSON .line 12"),
    "CSV under the name of JSONL": ("p.jsonl", b"prompt,chosen,rejected\na,b,c\n", {}, "2 x not valid JSON"),
    "rows that are lists": ("p.jsonl", jsonl([1, 2], [3, 4]), {}, "the row is a list, not an object"),
    "missing columns": ("p.jsonl", jsonl({"prompt": "a", "answer": "b"}), {}, "no row has the column `chosen` or"),
    "misspelt column": (
        "p.jsonl",
        JSONL,
        {"columns": {"chosen": "chosn"}},
        "no row has the column `chosn`; the columns",
    ),
    "missing rating column": (
        "p.jsonl",
        JSONL,
        {"columns": {"score_chosen": "s", "score_rejected": "t"}},
        "no row has the column `s` or `t`",
    ),
    "one rating column": ("p.jsonl", JSONL, {"columns": {"score_chosen": "s"}}, "name both `columns.score_chosen`"),
    "ratings are words": (
        "p.jsonl",
        changed(s="good", t="bad"),
        {"columns": {"score_chosen": "s", "score_rejected": "t"}},
        "12 x a rating is not a finite number .*first: `s` is 'good'",
    ),
    "answers are numbers": ("p.jsonl", changed(chosen=1), {}, "12 x a value of the wrong type .*first: `chosen`"),
    "answers are empty": ("p.jsonl", changed(rejected=" "), {}, "12 x empty text .*first: `rejected`"),
    "answers are null": ("p.jsonl", changed(rejected=None), {}, "12 x a value is missing .*first: `rejected`"),
    "chosen is rejected": ("p.jsonl", changed(chosen="x", rejected="x"), {}, "12 x chosen and rejected are identical"),
    "one row is empty": ("p.jsonl", JSONL + jsonl({**ROWS[0], "chosen": ""}), REFUSE, "1 x empty text .line 13; first"),
    "one row is repeated": ("p.json", json.dumps([*ROWS, ROWS[3]]).encode(), REFUSE, "repeats an earlier pair .row 12"),
    "two labels for one pair": (
        "p.jsonl",
        JSONL + jsonl({**ROWS[0], "chosen": ROWS[0]["rejected"], "rejected": ROWS[0]["chosen"]}),
        REFUSE,
        "2 x the same pair occurs with the opposite preference .* .lines 1, 13",
    ),
    "answers to different prompts": ("p.jsonl", jsonl(HH), {"layout": "hh"}, "answer different prompts .line 1"),
    "no transcripts": ("p.jsonl", JSONL, {"layout": "hh"}, "12 x a value of the wrong type .*not a transcript"),
    "transcripts as columns": ("p.jsonl", jsonl(HH), {"columns": {"prompt": None}}, "use layout hh for transcripts"),
    "half a surrogate pair": ("p.jsonl", changed(chosen="\ud83d"), {}, "half of a surrogate pair"),
    "one prompt only": ("p.jsonl", changed(prompt="q"), {}, "impossible split"),
    "two prompts only": ("p.jsonl", jsonl(*ROWS[:2]), {}, "impossible split"),
}


STEPS = {
    "read_corpus": lambda corpus, result: write_table(read_corpus(corpus, 0)[0], result, TEXTS),
    "make_pairs": lambda corpus, result: write_table(
        pairs_from_corpus(corpus, Dataset(corpus="c"), 0.2, 0)[0], result, PAIRS
    ),
}


def one_line(caught) -> None:
    assert "\n" not in str(caught.value)
    assert len(str(caught.value)) < 700


@pytest.mark.parametrize("name", PREFERENCE_FILES)
@pytest.mark.parametrize("step", STEPS)
def test_a_broken_preference_file(tmp_path, name, step):
    file_name, content, options, words = PREFERENCE_FILES[name]
    path = tmp_path / file_name
    path.write_bytes(content)
    corpus = file_corpus(path, **options)
    result = tmp_path / "results" / "out.parquet"
    with pytest.raises(UserError, match=words) as caught:
        STEPS[step](corpus, result)
    one_line(caught)
    assert [file.name for file in tmp_path.iterdir()] == [file_name]


@pytest.mark.parametrize(("name", "words"), [("", "is a folder"), ("absent.jsonl", "there is no such file")])
def test_a_path_that_is_no_file(tmp_path, name, words):
    with pytest.raises(UserError, match=words) as caught:
        read_corpus(file_corpus(tmp_path / name), 0)
    one_line(caught)
    assert list(tmp_path.iterdir()) == []


def csv(*rows: str) -> bytes:
    return ("text,label\n" + "".join(row + "\n" for row in rows)).encode()


REVIEWS = [f"{text},{label}" for text, label in review_rows(200)]

REVIEW_FILES = {
    "empty file": (b"", "not a CSV file"),
    "header only": (csv(), "impossible split: 156 reviews are wanted"),
    "too few reviews": (csv(*REVIEWS[:100]), "there are 100; lower classifier_texts"),
    "other columns": (b"review,sentiment\na,1\n", "no column text and label; the columns are review, sentiment"),
    "no label": (b"text\na\n", "no column label"),
    "a label in words": (csv(*REVIEWS, "a film,positive"), "row 200 .from 0.: label 'positive' is not 0 or 1"),
    "a label of 2": (csv("a film,2", *REVIEWS), "row 0 .from 0.: label '2' is not 0 or 1"),
    "empty text": (csv(*REVIEWS, ",1"), "row 200 .from 0.: the text is empty"),
    "only a line break": (csv(*REVIEWS, "<br />,1"), "row 200 .from 0.: the text is empty"),
    "not UTF-8": (csv(*REVIEWS) + b"caf\xe9,1\n", "line 202: not UTF-8 .byte 0xe9"),
    "commas without quotes": (csv("good, really,1", *REVIEWS), "not a CSV file|more fields than the header"),
    "commas without quotes everywhere": (csv(*["good, " + r for r in REVIEWS]), "more fields than the header"),
    "too few fields": (csv(*REVIEWS, "a film"), "row 200 .from 0.: label '' is not 0 or 1"),
    "an open quote": (csv(*REVIEWS, '"a film,1'), "not a CSV file .*EOF inside string"),
    "every text twice with both labels": (csv(*[f"t{i // 2},{i % 2}" for i in range(400)]), "there are 0"),
    "one label only": (csv(*[r[:-1] + "1" for r in REVIEWS]), "both labels"),
    "texts shorter than a prompt": (csv(*[f"word{i},{i % 2}" for i in range(300)]), "longer than 4 words"),
}


@pytest.mark.parametrize("name", REVIEW_FILES)
def test_a_broken_reviews_file(tmp_path, name):
    content, words = REVIEW_FILES[name]
    (tmp_path / "r.csv").write_bytes(content)
    with pytest.raises(UserError, match=words) as caught:
        fit_halves(reviews_corpus(tmp_path / "r.csv"), 0)[0].save(tmp_path / "results" / "c.npz")
    one_line(caught)
    assert [file.name for file in tmp_path.iterdir()] == ["r.csv"]
