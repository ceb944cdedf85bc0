"""The contract between rules: a writer names the column and the first bad row, and leaves nothing behind."""

import numpy as np
import pandas as pd
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from marginbench.errors import UserError
from marginbench.files import atomic_folder, atomic_path, read_json, read_jsonl, write_json, write_jsonl
from marginbench.identity import content_id, seed_for, stream
from marginbench.margins.rows import margin_rows
from marginbench.records import CANDIDATES, MARGINS, PAIR_TOKENS, PAIRS, ROUNDS, id_of_pair, read_table, write_table


def candidates() -> pd.DataFrame:
    return pd.DataFrame(
        {
            "prompt_id": ["a", "a", "b"],
            "sample": [0, 1, 0],
            "text": ["one", "two", "three"],
            "n_tokens": [1, 1, 1],
            "finish_reason": ["stop", "length", "stop"],
        }
    )


def test_round_trip(tmp_path):
    write_table(candidates(), tmp_path / "c.parquet", CANDIDATES)
    assert read_table(tmp_path / "c.parquet", CANDIDATES).equals(candidates())
    tokens = pd.DataFrame(
        {"pair_id": ["p"], "split": ["train"], "prompt_ids": [[1, 2]], "chosen_ids": [[3]], "rejected_ids": [[4, 5]]}
    )
    write_table(tokens, tmp_path / "t.parquet", PAIR_TOKENS)
    assert read_table(tmp_path / "t.parquet", PAIR_TOKENS)["rejected_ids"][0] == [4, 5]


@pytest.mark.parametrize(
    ("change", "words"),
    [
        (lambda f: f.drop(columns="text"), ["missing column text"]),
        (lambda f: f.assign(extra=1), ["unknown column extra"]),
        (lambda f: f.assign(text=["one", None, "three"]), ["column `text`, row 1", "missing"]),
        (lambda f: f.assign(sample=[0, "x", 0]), ["column `sample`, row 1"]),
        (lambda f: f.assign(sample=[0, 0, 0]), ["row 1 repeats the key", "prompt_id='a'"]),
    ],
)
def test_a_bad_table_is_refused_before_anything_is_written(tmp_path, change, words):
    with pytest.raises(UserError) as caught:
        write_table(change(candidates()), tmp_path / "c.parquet", CANDIDATES)
    assert all(word in str(caught.value) for word in words), caught.value
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize("value", [np.nan, np.inf, -np.inf])
def test_a_margin_is_a_finite_number(tmp_path, value):
    frame = pd.DataFrame(
        {
            "pair_id": ["a", "b"],
            "score_chosen": [1.0, 1.0],
            "score_rejected": [0.0, 0.0],
            "margin": [1.0, value],
            "scorer": "s",
            "scorer_hash": "h",
            "digest": "d",
        }
    )
    with pytest.raises(UserError, match="column `margin`, row 1"):
        write_table(frame, tmp_path / "m.parquet", MARGINS)


def margins():
    return margin_rows(["a", "b", "c"], [1.0, 2.5, -1.0], [0.0, 3.0, 0.5], scorer="s", scorer_hash="h")


@pytest.mark.parametrize(
    "change",
    [
        lambda f: f.assign(pair_id=f["pair_id"].iloc[[1, 0, 2]].to_numpy()),
        lambda f: f.assign(
            **{c: f[c].iloc[[0, 2, 1]].to_numpy() for c in ("score_chosen", "score_rejected", "margin")}
        ),
        lambda f: f.assign(digest=f["digest"].iloc[[1, 2, 0]].to_numpy()),
        lambda f: f.assign(margin=f["margin"] + [0.0, 0.25, 0.0]),
        lambda f: f.assign(scorer="t"),
        lambda f: f.assign(scorer_hash="i"),
    ],
    ids=["pair_id", "scores", "digest", "margin", "scorer", "scorer_hash"],
)
def test_margins_of_other_pairs_are_refused(tmp_path, change):
    path = tmp_path / "m.parquet"
    write_table(margins(), path, MARGINS)
    pq.write_table(pa.Table.from_pandas(change(margins()), schema=MARGINS.schema(), preserve_index=False), path)
    with pytest.raises(UserError, match=r"margins were changed or moved between pairs"):
        read_table(path, MARGINS)


def test_a_completion_of_another_prompt_is_refused(tmp_path):
    prompts = [[{"role": "user", "content": text}] for text in ("one", "two")]
    frame = pd.DataFrame(
        {
            "pair_id": [id_of_pair(prompts[0], "x", "y"), id_of_pair(prompts[1], "v", "w")],
            "prompt_id": ["p", "q"],
            "prompt": prompts,
            "chosen": ["x", "v"],
            "rejected": ["y", "w"],
            "chosen_ended": True,
            "rejected_ended": True,
            "split": "train",
            "source": "s",
            "score_chosen": None,
            "score_rejected": None,
        }
    )
    write_table(frame, tmp_path / "p.parquet", PAIRS)
    assert len(read_table(tmp_path / "p.parquet", PAIRS)) == 2
    for moved in (frame.assign(rejected=["w", "y"]), frame.assign(prompt=prompts[::-1])):
        with pytest.raises(UserError, match=r"2 of 2 rows, the first is row 0 .*a text was changed or moved"):
            write_table(moved, tmp_path / "moved.parquet", PAIRS)
    assert not (tmp_path / "moved.parquet").exists()


def test_a_failed_write_leaves_the_old_file(tmp_path):
    path = tmp_path / "value.json"
    write_json(path, {"a": 1})
    with pytest.raises(ValueError, match="not JSON compliant"):
        write_json(path, {"a": float("nan")})

    def fail():
        with atomic_path(path) as temporary:
            temporary.write_text("half")
            raise OSError("disk full")

    with pytest.raises(OSError, match="disk full"):
        fail()
    assert read_json(path) == {"a": 1}
    assert [file.name for file in tmp_path.iterdir()] == ["value.json"]


def test_a_failed_folder_leaves_the_old_one(tmp_path):
    with atomic_folder(tmp_path / "weights") as folder:
        (folder / "a").write_text("1")

    def fail():
        with atomic_folder(tmp_path / "weights") as folder:
            (folder / "a").write_text("2")
            raise OSError("killed")

    with pytest.raises(OSError, match="killed"):
        fail()
    assert (tmp_path / "weights" / "a").read_text() == "1"
    assert [file.name for file in tmp_path.iterdir()] == ["weights"]


def test_broken_json_is_named(tmp_path):
    (tmp_path / "a.json").write_text('{"a": ')
    (tmp_path / "a.jsonl").write_text('{"a": 1}\n{"a"\n')
    with pytest.raises(UserError, match=r"a\.json: not valid JSON"):
        read_json(tmp_path / "a.json")
    with pytest.raises(UserError, match=r"a\.jsonl, line 2"):
        read_jsonl(tmp_path / "a.jsonl")
    write_jsonl(tmp_path / "b.jsonl", [{"b": 2, "a": "ü"}])
    assert (tmp_path / "b.jsonl").read_text() == '{"a": "ü", "b": 2}\n'


def test_identity_depends_on_content_alone():
    assert content_id({"a": 1, "b": [2]}) == content_id({"b": [2], "a": 1})
    assert content_id("ab", "c") != content_id("a", "bc")
    assert seed_for("data_order", "imdb", 0) == seed_for("data_order", "imdb", 0)
    assert seed_for("data_order", "imdb", 0) != seed_for("data_order", "imdb", 1)
    one, other = stream(0, "label", "p"), stream(0, "label", "q")
    first = one.random()
    assert other.random() != first
    assert stream(0, "label", "p").random() == first


def rounds() -> pd.DataFrame:
    """One round in which prompt a was labelled and prompt b was not."""
    frame = pd.DataFrame(
        {"prompt_id": ["a", "a", "b", "b"], "sample_id": [0, 1, 0, 1], "selected": [True, True, False, False]}
    )
    return frame.assign(
        round=1,
        rng_key="seed0/round1/pair0",
        text_hash="t",
        n_tokens=3,
        ended=True,
        log_prob=-1.0,
        **dict.fromkeys(("entropy", "entropy_per_token", "margin"), np.nan),
        label=[1, 0, None, None],
    )


@pytest.mark.parametrize(
    ("change", "rows"),
    [
        (lambda f: f.assign(label=[1, 1, None, None]), 2),
        (lambda f: f.assign(label=[1, None, None, None]), 1),
        (lambda f: f.assign(label=[1, 0, 1, None]), 1),
        (lambda f: f.assign(prompt_id=["a", "c", "b", "b"]), 2),
    ],
)
def test_a_labelled_pair_has_two_answers_to_one_prompt(tmp_path, change, rows):
    write_table(rounds(), tmp_path / "rounds.parquet", ROUNDS)
    with pytest.raises(UserError, match=f"{rows} of 4 rows.*two labelled answers"):
        write_table(change(rounds()), tmp_path / "rounds.parquet", ROUNDS)
