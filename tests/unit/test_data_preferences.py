"""Preference datasets: containers, layouts, problems counted with their rows, splits by prompt."""

import gzip
import io
import json

import pandas as pd
import pytest
from data_builders import file_corpus, preference_rows
from hypothesis import given, settings
from hypothesis import strategies as st
from marginbench.data.corpora import evaluation_prompts, parse_corpus, read_corpus
from marginbench.data.pairs import pairs_from_corpus
from marginbench.data.preferences import read_preferences
from marginbench.data.splits import draw, share_of_prompts
from marginbench.errors import UserError
from marginbench.records import PAIRS, TEXTS, check_table
from marginbench.study import Dataset, HubCorpus

USER, ANSWER = {"role": "user", "content": "question 0?"}, {"role": "assistant", "content": "good"}


def jsonl(rows) -> bytes:
    return b"".join(json.dumps(row).encode() + b"\n" for row in rows)


def parquet(rows) -> bytes:
    buffer = io.BytesIO()
    pd.DataFrame(rows).to_parquet(buffer)
    return buffer.getvalue()


def read_rows(tmp_path, rows, **options):
    (tmp_path / "pairs.jsonl").write_bytes(jsonl(rows))
    return read_preferences(file_corpus(tmp_path / "pairs.jsonl", **options))


def counts(report) -> dict[str, int]:
    return {kind: entry["count"] for kind, entry in report["problems"].items() if entry["count"]}


@pytest.mark.parametrize("zipped", [False, True])
@pytest.mark.parametrize(
    ("ending", "encode"), [("jsonl", jsonl), ("json", lambda rows: json.dumps(rows).encode()), ("parquet", parquet)]
)
def test_every_container_gives_the_same_pairs(tmp_path, ending, encode, zipped):
    rows = [*preference_rows(5), {"prompt": "naïve 日本?", "chosen": "ä\u2028b", "rejected": "ö"}]
    raw = encode(rows)
    path = tmp_path / f"my.pairs.{ending}{'.gz' if zipped else ''}"
    path.write_bytes(gzip.compress(raw) if zipped else raw)
    frame, report = read_preferences(file_corpus(path))
    assert frame["chosen"].tolist() == [row["chosen"] for row in rows]
    assert frame["prompt"].tolist() == [[{"role": "user", "content": row["prompt"]}] for row in rows]
    assert (report["rows"], report["usable"], counts(report)) == (6, 6, {})


def test_a_byte_order_mark_and_blank_lines_do_no_harm(tmp_path):
    (tmp_path / "p.jsonl").write_bytes(b"\xef\xbb\xbf" + jsonl(preference_rows(2)).replace(b"\n", b"\r\n\r\n"))
    frame, report = read_preferences(file_corpus(tmp_path / "p.jsonl"))
    assert frame["source_row"].tolist() == [0, 2]
    assert counts(report) == {}


@pytest.mark.parametrize(
    "row",
    [
        {"prompt": "question 0?", "chosen": "good", "rejected": "bad"},
        {"prompt": [USER], "chosen": "good", "rejected": [{"role": "assistant", "content": "bad"}]},
        {"prompt": [USER], "chosen": [USER, ANSWER], "rejected": [USER, {"role": "assistant", "content": "bad"}]},
        {"prompt": "question 0?", "chosen": [USER, ANSWER], "rejected": [USER, {"from": "gpt", "value": "bad"}]},
        {"prompt": "question 0?", "chosen": [USER, ANSWER], "rejected": "bad"},
    ],
)
def test_prompts_and_answers_as_strings_or_messages_mean_the_same(tmp_path, row):
    frame, _ = read_rows(tmp_path, [row])
    assert frame.loc[0, ["prompt", "chosen", "rejected"]].tolist() == [[USER], "good", "bad"]


def test_a_prompt_that_only_the_answers_carry(tmp_path):
    row = {"chosen": [USER, ANSWER], "rejected": [USER, {"role": "assistant", "content": "bad"}]}
    frame, _ = read_rows(tmp_path, [row], columns={"prompt": None})
    assert frame.at[0, "prompt"] == [USER]


def test_plain_format_gives_text_prompts_and_keeps_the_space(tmp_path):
    frame, _ = read_rows(tmp_path, [{"prompt": "It was", "chosen": " good", "rejected": " bad"}], format="plain")
    assert frame.loc[0, ["prompt", "chosen"]].tolist() == [[{"role": "text", "content": "It was"}], " good"]


HH = "\n\nHuman: Hi\n\nAssistant: Hello\n\nHuman: Name a bird.\nA small one.\n\nAssistant:"


@pytest.mark.parametrize(
    ("text_format", "prompt", "answers"),
    [
        (
            "chat",
            [
                {"role": "user", "content": "Hi"},
                {"role": "assistant", "content": "Hello"},
                {"role": "user", "content": "Name a bird.\nA small one."},
            ],
            ["A wren.", "A wombat."],
        ),
        ("plain", [{"role": "text", "content": HH}], [" A wren.", " A wombat."]),
    ],
)
def test_hh_prompt_ends_with_the_last_shared_assistant(tmp_path, text_format, prompt, answers):
    row = {"chosen": HH + " A wren.", "rejected": HH + " A wombat."}
    frame, _ = read_rows(tmp_path, [row], layout="hh", format=text_format)
    assert frame.loc[0, ["prompt", "chosen", "rejected"]].tolist() == [prompt, *answers]


def test_sharegpt_conversations_with_a_system_turn(tmp_path):
    row = {
        "conversations": [{"from": "system", "value": "Be brief."}, {"from": "human", "value": "Hi"}],
        "chosen": {"from": "gpt", "value": "Hello"},
        "rejected": {"from": "gpt", "value": "No"},
    }
    frame, _ = read_rows(tmp_path, [row], layout="sharegpt")
    assert [m["role"] for m in frame.at[0, "prompt"]] == ["system", "user"]
    assert frame.loc[0, ["chosen", "rejected"]].tolist() == ["Hello", "No"]


GOOD = preference_rows(1)[0]
OTHER = {"role": "user", "content": "another question"}
BAD_ROWS = {
    "identical": ({**GOOD, "rejected": GOOD["chosen"]}, "identical_answers", {}),
    "empty prompt": ({**GOOD, "prompt": "  "}, "empty_text", {}),
    "empty answer": ({**GOOD, "chosen": "\n"}, "empty_text", {}),
    "missing key": ({"prompt": "a", "chosen": "b"}, "missing_column", {}),
    "null": ({**GOOD, "rejected": None}, "missing_value", {}),
    "number": ({**GOOD, "chosen": 3}, "wrong_type", {}),
    "list for a prompt": ({**GOOD, "prompt": []}, "wrong_type", {}),
    "unknown role": ({**GOOD, "prompt": [{"role": "robot", "content": "x"}]}, "wrong_type", {}),
    "prompt of the assistant": ({**GOOD, "prompt": [USER, ANSWER]}, "wrong_type", {}),
    "answer of the user": ({**GOOD, "chosen": [USER]}, "wrong_type", {}),
    "two prompts": ({**GOOD, "chosen": [USER, ANSWER], "rejected": [OTHER, ANSWER]}, "different_prompts", {}),
    "answer to another prompt": (
        {"prompt": "asked", "chosen": [OTHER, ANSWER], "rejected": "bad"},
        "different_prompts",
        {},
    ),
    "two prompts that only the answers carry": (
        {"prompt": "", "chosen": [USER, ANSWER], "rejected": [OTHER, {"role": "assistant", "content": "bad"}]},
        "different_prompts",
        {"columns": {"prompt": None}},
    ),
    "half a surrogate": ({**GOOD, "chosen": "\ud800 x"}, "not_utf8", {}),
    "many messages as plain text": ({**GOOD, "prompt": [USER, ANSWER, USER]}, "wrong_type", {"format": "plain"}),
    "a list, not an object": ([1, 2], "wrong_type", {}),
}


def _as_messages(row):
    """The same row with the prompt repeated before both answers."""
    before = {"role": "user", "content": row["prompt"]}
    return {side: [before, {"role": "assistant", "content": row[side]}] for side in ("chosen", "rejected")}


@pytest.mark.parametrize("name", BAD_ROWS)
def test_a_bad_row_is_dropped_counted_and_placed(tmp_path, name):
    row, kind, options = BAD_ROWS[name]
    rows = [*(_as_messages(good) if "columns" in options else good for good in preference_rows(3)[1:]), row]
    frame, report = read_rows(tmp_path, rows, **options)
    assert len(frame) == 2
    assert counts(report) == {kind: 1}
    assert report["problems"][kind]["lines"] == [3]
    with pytest.raises(UserError, match=r"on_bad_rows: refuse.*line 3") as caught:
        read_rows(tmp_path, rows, on_bad_rows="refuse", **options)
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize(
    ("chosen", "rejected", "kind"),
    [
        (HH + " A.", HH.replace("Hello", "Go away") + " B.", "different_prompts"),
        (HH + " A.", "\n\nHuman: Something else\n\nAssistant: B.", "different_prompts"),
        (HH + " A.", HH + " B.\n\nHuman: More\n\nAssistant: C.", "different_prompts"),
        (HH + " A.", HH + " A.", "identical_answers"),
        (HH + " A.", HH, "empty_text"),
        (HH + " A.", "No transcript", "wrong_type"),
        (HH + " A.", HH + " B.\n\nHuman: More", "wrong_type"),
        (HH + " A.", ["a"], "wrong_type"),
        (HH + " A.", "", "empty_text"),
    ],
)
def test_hh_transcripts_that_are_no_pair(tmp_path, chosen, rejected, kind):
    good = {"chosen": HH + " A wren.", "rejected": HH + " A wombat."}
    frame, report = read_rows(tmp_path, [good, {"chosen": chosen, "rejected": rejected}], layout="hh")
    assert len(frame) == 1
    assert counts(report) == {kind: 1}


def test_repeated_pairs_are_kept_once_and_contradictory_ones_not_at_all(tmp_path):
    a, b, c = preference_rows(3)
    swapped = {**b, "chosen": b["rejected"], "rejected": b["chosen"]}
    frame, report = read_rows(tmp_path, [a, b, a, swapped, c, b, a])
    assert frame["source_row"].tolist() == [0, 4]
    assert report["problems"]["duplicate_pair"]["lines"] == [3, 7]
    assert report["problems"]["contradictory_pair"]["lines"] == [2, 4, 6]


def test_ratings_are_read_and_contradictions_kept_and_reported(tmp_path):
    values = [(2, 1), (1, 2.5), (1, 1), ("3", 1), (float("nan"), 1), (True, 0), (10**400, 1), (None, 1)]
    rows = [{**row, "a": a, "b": b} for row, (a, b) in zip(preference_rows(8), values, strict=True)]
    frame, report = read_rows(tmp_path, rows, columns={"score_chosen": "a", "score_rejected": "b"})
    assert frame[["score_chosen", "score_rejected"]].to_numpy().tolist() == [[2, 1], [1, 2.5], [1, 1]]
    want = {"rating_not_a_number": 4, "missing_value": 1, "rating_contradicts_label": 1, "rating_tie": 1}
    assert counts(report) == want
    assert report["problems"]["rating_contradicts_label"]["lines"] == [2]
    assert report["problems"]["rating_contradicts_label"]["kept"]


def test_contradicting_ratings_alone_refuse_nothing(tmp_path):
    rows = [{**row, "a": 1, "b": 2} for row in preference_rows(2)]
    columns = {"score_chosen": "a", "score_rejected": "b"}
    frame, _ = read_rows(tmp_path, rows, columns=columns, on_bad_rows="refuse")
    assert len(frame) == 2


def test_at_most_twenty_places_are_listed(tmp_path):
    rows = [*preference_rows(2), *[{**GOOD, "chosen": ""}] * 30]
    _, report = read_rows(tmp_path, rows)
    assert report["problems"]["empty_text"]["count"] == 30
    assert report["problems"]["empty_text"]["lines"] == list(range(3, 23))


@given(n=st.integers(2, 60), fraction=st.floats(0.01, 0.99), seed=st.integers(0, 10**6), order=st.randoms())
@settings(max_examples=60, deadline=None)
def test_a_share_of_prompts_is_never_empty_never_all_and_no_matter_of_order(n, fraction, seed, order):
    prompts = [f"p{i}" for i in range(n)] * 2
    share = share_of_prompts(prompts, fraction, "x", seed)
    assert 0 < len(share) < n
    assert abs(len(share) - fraction * n) <= 1
    order.shuffle(prompts)
    assert share_of_prompts(prompts, fraction, "x", seed) == share


@given(n=st.integers(0, 40), small=st.integers(0, 20), seed=st.integers(0, 10**6))
@settings(max_examples=60, deadline=None)
def test_a_smaller_draw_is_the_beginning_of_a_larger_one(n, small, seed):
    ids = [str(i) for i in range(n)]
    everything = draw(ids, None, "x", seed)
    assert sorted(everything) == sorted(ids)
    assert draw(ids[::-1], small, "x", seed) == everything[:small]


@given(
    per_prompt=st.lists(st.integers(1, 4), min_size=6, max_size=40),
    eval_fraction=st.floats(0.2, 0.6),
    holdout=st.floats(0.05, 0.6),
    seed=st.integers(0, 10**6),
    max_pairs=st.none() | st.integers(4, 30),
)
@settings(max_examples=25, deadline=None)
def test_splits_are_by_prompt_and_evaluation_prompts_are_never_trained_on(
    tmp_path_factory, per_prompt, eval_fraction, holdout, seed, max_pairs
):
    rows = [row for i, n in enumerate(per_prompt) for row in _rows_of(i, n)]
    path = tmp_path_factory.mktemp("split") / "p.jsonl"
    path.write_bytes(jsonl(rows))
    corpus = file_corpus(path, eval_fraction=eval_fraction, max_pairs=max_pairs)
    try:
        pairs, report = pairs_from_corpus(corpus, Dataset(corpus="c"), holdout, seed)
        texts, _ = read_corpus(corpus, seed + 1)  # seeds differ when only pairs are drawn anew
    except UserError as error:
        assert "impossible split" in str(error)  # noqa: PT017 - few prompts: refused, not mended
        return
    check_table(pairs, PAIRS, "pairs")
    check_table(texts, TEXTS, "texts")
    sides = {name: set(group["prompt_id"]) for name, group in pairs.groupby("split")}
    assert set(sides) == {"train", "holdout"}
    assert not sides["train"] & sides["holdout"]
    prompts = {role: {p[0]["content"] for p in group["prompt"]} for role, group in texts.groupby("role")}
    trained = {p[0]["content"] for p in pairs["prompt"]} | prompts["sft"]
    assert set(prompts) == {"eval", "perplexity", "prompt", "sft"}
    assert not prompts["eval"] & prompts["perplexity"]
    assert not (trained | prompts["prompt"]) & (prompts["eval"] | prompts["perplexity"])
    if max_pairs is None:
        everything, _ = read_preferences(corpus)
        assert set(pairs["prompt_id"]) | evaluation_prompts(everything, corpus) == set(everything["prompt_id"])
    else:
        assert len(pairs) == min(max_pairs, report["training_pairs"])


@pytest.mark.parametrize("max_pairs", [None, 12])
def test_prompts_are_those_of_the_training_pairs_once_each(tmp_path, max_pairs):
    rows = preference_rows(20, 3)
    (tmp_path / "p.jsonl").write_bytes(jsonl(rows))
    corpus = file_corpus(tmp_path / "p.jsonl", max_pairs=max_pairs)
    pairs, _ = pairs_from_corpus(corpus, Dataset(corpus="c"), 0.25, 0)
    texts, report = read_corpus(corpus, 0)
    prompts = texts[texts["role"] == "prompt"]
    asked = [prompt[0]["content"] for prompt in prompts["prompt"]]
    assert sorted(asked) == sorted({prompt[0]["content"] for prompt in pairs["prompt"]})
    assert report["roles"]["prompt"] == len(asked) > 4
    first = {(row["prompt"], row["chosen"]) for row in rows}
    assert set(zip(asked, prompts["completion"], strict=True)) <= first, "the text that followed in the source"
    assert texts["text_id"].is_unique


def _rows_of(prompt: int, n: int):
    return [{"prompt": f"q{prompt}", "chosen": f"good {k}", "rejected": f"bad {k}"} for k in range(n)]


def test_the_order_of_the_file_changes_no_split(tmp_path):
    rows = preference_rows(30, 2)
    frames = []
    for name, ordered in (("a", rows), ("b", rows[::-1])):
        (tmp_path / name).mkdir()
        (tmp_path / name / "p.jsonl").write_bytes(jsonl(ordered))
        corpus = file_corpus(tmp_path / name / "p.jsonl", max_pairs=20)
        pairs, _ = pairs_from_corpus(corpus, Dataset(corpus="c"), 0.3, 1)
        texts, _ = read_corpus(corpus, 1)
        frames.append((pairs.set_index("pair_id")["split"].to_dict(), set(texts["text_id"])))
    assert frames[0] == frames[1]


def test_pairs_of_a_corpus_are_complete_answers_with_their_ratings(tmp_path):
    rows = [{**row, "a": 4, "b": 1} for row in preference_rows(20)]
    (tmp_path / "p.jsonl").write_bytes(jsonl(rows))
    corpus = file_corpus(tmp_path / "p.jsonl", columns={"score_chosen": "a", "score_rejected": "b"})
    pairs, report = pairs_from_corpus(corpus, Dataset(corpus="c"), 0.25, 0)
    assert pairs["chosen_ended"].all()
    assert pairs["rejected_ended"].all()
    assert set(pairs["source"]) == {"p.jsonl"}
    assert (pairs["score_chosen"] - pairs["score_rejected"]).tolist() == [3.0] * 18
    assert report["label_agreement"] == 1.0
    assert report["splits"] == {"holdout": 5, "train": 13}


@pytest.mark.parametrize("key", [{"tier": "high"}, {"label_noise": "none"}])
def test_a_tier_needs_a_ground_truth(tmp_path, key):
    (tmp_path / "p.jsonl").write_bytes(jsonl(preference_rows(20)))
    with pytest.raises(UserError, match="needs a corpus with a ground truth"):
        pairs_from_corpus(file_corpus(tmp_path / "p.jsonl"), Dataset(corpus="c", **key), 0.25, 0)


@pytest.fixture
def offline_datasets(monkeypatch, tmp_path):
    """`datasets` without a network and with a cache of its own."""
    datasets = pytest.importorskip("datasets")
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_OFFLINE", True)
    monkeypatch.setattr(datasets.config, "HF_HUB_OFFLINE", True)
    monkeypatch.setattr(datasets.config, "HF_DATASETS_CACHE", tmp_path / "cache")
    return datasets


def hub(**changes):
    return parse_corpus({"source": "hub", "id": "some/dataset", "revision": "main", **changes})


@pytest.mark.slow
def test_a_hub_dataset_read_from_a_local_mirror(tmp_path, offline_datasets):
    (tmp_path / "mirror").mkdir()
    rows = [
        {**row, "prompt": [{"role": "user", "content": row["prompt"]}], "a": 2.0, "b": 1.0}
        for row in preference_rows(12)
    ]
    (tmp_path / "mirror" / "train.jsonl").write_bytes(jsonl([*rows, rows[0]]))
    (tmp_path / "mirror" / "test.jsonl").write_bytes(jsonl(rows[:3]))
    corpus = hub(id=str(tmp_path / "mirror"), columns={"score_chosen": "a", "score_rejected": "b"})
    assert isinstance(corpus, HubCorpus)
    frame, report = read_preferences(corpus)
    assert counts(report) == {"duplicate_pair": 1}
    assert report["problems"]["duplicate_pair"]["rows"] == [12]
    assert frame["prompt"].tolist() == [row["prompt"] for row in rows]
    assert frame["score_chosen"].tolist() == [2.0] * 12
    assert len(read_preferences(hub(id=str(tmp_path / "mirror"), split="test"))[0]) == 3
    pairs, _ = pairs_from_corpus(corpus, Dataset(corpus="c"), 0.25, 0)
    check_table(pairs, PAIRS, "pairs")
    with pytest.raises(UserError, match="split nonsense") as caught:
        read_preferences(hub(id=str(tmp_path / "mirror"), split="nonsense"))
    assert "\n" not in str(caught.value)


@pytest.mark.slow
def test_a_hub_that_can_not_be_reached_is_one_line(offline_datasets):
    with pytest.raises(
        UserError, match=r"dataset some/dataset \(revision main, split train\) can't be loaded"
    ) as caught:
        read_preferences(hub())
    assert "\n" not in str(caught.value)
