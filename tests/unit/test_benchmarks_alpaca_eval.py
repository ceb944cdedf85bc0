"""AlpacaEval's files and win rates: our few lines against the package's, and when length control is withheld."""

import copy
import gzip
import json
import math
import statistics

import numpy as np
import pytest
from judging_tools import item
from marginbench import cli
from marginbench.benchmarks import alpaca_eval
from marginbench.benchmarks.alpaca_eval import annotations, pair_items, score
from marginbench.benchmarks.alpaca_files import (
    read_annotations,
    read_model_outputs,
    write_annotations,
    write_model_outputs,
)
from marginbench.benchmarks.alpaca_metrics import win_rates
from marginbench.errors import UserError
from marginbench.identity import stream


def row(preference, i=0, **changes):
    base = {
        "instruction": f"instruction {i}",
        "output_1": "base",
        "generator_1": "sft_start",
        "output_2": "x" * i,
        "generator_2": "dpo",
        "preference": preference,
    }
    return {**base, **changes}


def test_win_rates_by_hand():
    preferences = [1.0, 2.0, 1.5, 1.25, 1.75, 1.9, None, 0.0, *(1.0 + stream("test", i).random() for i in range(40))]
    p = [0.5 if q == 0.0 else q - 1.0 for q in preferences if q is not None]
    result = score([row(q, i) for i, q in enumerate(preferences)])
    wins, losses, draws = (sum(f(x) for x in p) for f in (lambda x: x > 0.5, lambda x: x < 0.5, lambda x: x == 0.5))
    assert result["win_rate"] == pytest.approx(100 * statistics.fmean(p), abs=1e-9)
    assert result["standard_error"] == pytest.approx(100 * statistics.stdev(p) / len(p) ** 0.5, abs=1e-9)
    assert result["discrete_win_rate"] == pytest.approx(100 * (wins + draws / 2) / len(p), abs=1e-9)
    assert [result[key] for key in ("n_wins", "n_wins_base", "n_draws", "n_total", "n_null")] == [
        wins, losses, draws, len(p), 1,
    ]  # fmt: skip
    assert result["avg_length"] == int(statistics.fmean(range(len(preferences))))
    assert win_rates(np.array([math.nan if q is None else q for q in preferences])) == {
        key: pytest.approx(result[key], abs=1e-9) for key in win_rates(np.array([1.5, 2.0]))
    }
    json.dumps(result, allow_nan=False)


def test_a_package_that_counts_otherwise_is_an_error(monkeypatch):
    monkeypatch.setattr(alpaca_eval, "win_rates", lambda q: {**win_rates(q), "win_rate": 50.00001})
    with pytest.raises(UserError, match=r"alpaca_eval gives win_rate 50\.0, our own formula 50\.00001"):
        score([row(1.25), row(1.75, 1)])


def test_one_row_has_no_standard_error():
    assert score([row(1.75)])["standard_error"] is None


def test_length_control_is_withheld_with_a_reason(tmp_path):
    result = score([row(1.5, 1), row(1.2, 2)], gamed=tmp_path / "df_gamed.csv")
    assert result["length_controlled_winrate"] is None
    assert result["lc_reason"].startswith("2 of 2 instructions are not among AlpacaEval 2's 805")


def test_no_preference_at_all_and_a_foreign_file():
    with pytest.raises(UserError, match="none of 2 rows carries a preference"):
        score([row(None), row(None, 1)])
    with pytest.raises(UserError, match="`preference` is missing"):
        score([{k: v for k, v in row(1.5).items() if k != "preference"}])


def judgment(pair, preference, switched=False, reason=None):
    return {
        "answer_ids": [pair["baseline_id"], pair["answer_id"]],
        "judge": "j",
        "judge_version": "j@1",
        "preference": preference,
        "reason": reason,
        "logprobs": None if preference is None else {"m": -0.5, "M": -0.9},
        "raw": None if preference is None else "m",
        "tokens_in": 10,
        "tokens_out": 1,
        "price": 0.25,
        "switched": switched,
    }


def test_annotations_have_the_official_keys_and_the_items_order():
    items = [item(1), item(0), item(2)]
    judgments = [
        judgment(items[1], 1.25),
        judgment(items[0], 1.5, switched=False),
        judgment(items[0], 2.0, switched=True),
        judgment(items[2], None, reason="timeout"),
        judgment(items[2], 2.0, switched=True),
    ]
    rows = annotations(judgments, items, baseline_name="sft_start", method_name="dpo")
    assert [r["instruction"] for r in rows] == ["Film 1", "Film 0", "Film 2"]
    assert [r["preference"] for r in rows] == [1.75, 1.25, None]
    assert (rows[0]["generator_1"], rows[0]["generator_2"]) == ("sft_start", "dpo")
    assert (rows[0]["output_1"], rows[0]["output_2"]) == (" fine.", " good!")
    assert rows[1]["preference_price_per_example"] == 0.25
    top = rows[1]["preference_raw_completion"]["logprobs"]["content"][0]["top_logprobs"]
    assert {entry["token"]: entry["logprob"] for entry in top} == {"m": -0.5, "M": -0.9}
    assert score(rows)["n_null"] == 1
    with pytest.raises(UserError, match="no judgment of answer a1"):
        annotations(judgments[:1], items, baseline_name="a", method_name="b")


def answer(question, text="t", who="m", **changes):
    return {
        "question_id": question,
        "prompt_text": f"p{question}",
        "text": text,
        "answer_id": who + question,
        **changes,
    }


def test_answers_meet_the_baseline_of_the_same_question():
    mine = [answer("2", "two"), answer("1", "one")]
    theirs = [answer("1", "base one", "b"), answer("2", "base two", "b")]
    items = pair_items(mine, theirs)
    assert [(i["question"], i["baseline"], i["answer"], i["baseline_id"], i["answer_id"]) for i in items] == [
        ("p2", "base two", "two", "b2", "m2"),
        ("p1", "base one", "one", "b1", "m1"),
    ]


@pytest.mark.parametrize(
    ("mine", "theirs", "words"),
    [
        ([answer("1"), answer("2")], [answer("1")], "1 questions lack the baseline's answer, first"),
        ([answer("1")], [answer("1"), answer("3")], "lack the method's answer"),
        ([answer("1"), answer("1")], [answer("1")], "answered more than once"),
        ([answer("1")], [answer("1", prompt_text="other")], "asked different texts"),
    ],
)
def test_answers_that_do_not_meet_are_refused(mine, theirs, words):
    with pytest.raises(UserError, match=words):
        pair_items(mine, theirs)


def test_samples_of_one_question_stay_apart():
    mine = [answer("1", f"s{k}", sample=k) for k in range(2)]
    theirs = [answer("1", f"b{k}", sample=k) for k in (1, 0)]
    assert [(i["answer"], i["baseline"]) for i in pair_items(mine, theirs)] == [("s0", "b0"), ("s1", "b1")]


def write(path, value):
    path.write_bytes(value if isinstance(value, bytes) else json.dumps(value).encode())
    return path


ROWS = [row(1.0 + i / 10, i) for i in range(6)]


def changed(**changes):
    rows = copy.deepcopy(ROWS)
    rows[3].update(changes)
    return rows


@pytest.mark.parametrize(
    ("content", "words"),
    [
        (changed(preference=3), "row 3 (from 0): preference 3 is outside 1 to 2"),
        (changed(preference=0.5), "preference 0.5 is outside"),
        (changed(preference="1.5"), "preference is '1.5'; a number"),
        (changed(preference=True), "preference is True"),
        (changed(preference=math.nan), "preference is NaN"),
        (changed(output_2=None), "`output_2` is None; it must be a text"),
        (changed(instruction=5), "`instruction` is 5; it must be a text"),
        (changed(generator_2="other"), "`generator_2` has 2 values, dpo and other"),
        ([*ROWS, ROWS[0]], "1 instructions occur more than once, first 'instruction 0'"),
        ([{"instruction": "x"}], "row 0 (from 0): the key `output_1` is missing"),
        ([["x"]], "not an object"),
        ({"rows": ROWS}, "a JSON list of rows is expected"),
        ([], "a JSON list of rows is expected"),
        (b'{"a": 1}\n{"a": 2}', "not valid JSON"),
        (b"[" * 100_000, "not valid JSON"),
        (gzip.compress(json.dumps(ROWS).encode())[:-20], "damaged or cut short"),
        ([{**r, "preference": None} for r in ROWS], "none of 6 rows carries a preference"),
    ],
)
def test_files_that_cannot_be_right_are_one_line(tmp_path, capsys, content, words):
    assert cli.main(["score", "alpaca-eval", str(write(tmp_path / "annotations.json", content))]) == 2
    printed = capsys.readouterr()
    assert printed.out == ""
    assert words in printed.err
    assert len(printed.err.splitlines()) == 1


def test_annotations_are_read_plain_and_zipped_with_keys_of_other_versions(tmp_path, capsys):
    rows = [
        {**r, "raw_completion": {"text": "m"}, "datasplit": "eval", "annotator": "j", "\ud800": "\ud800"} for r in ROWS
    ]
    plain = write(tmp_path / "a.json", rows)
    zipped = write(tmp_path / "a.json.gz", gzip.compress(json.dumps(rows).encode()))
    assert read_annotations(plain) == read_annotations(zipped) == rows
    assert cli.main(["score", "alpaca-eval", str(zipped)]) == 0
    printed = capsys.readouterr()
    assert json.loads(printed.out)["win_rate"] == pytest.approx(25.0)
    assert printed.err.startswith("no length-controlled win rate: 6 of 6 instructions")


def test_outputs_come_back_as_they_were_written(tmp_path):
    path = tmp_path / "model_outputs.json"
    write_model_outputs(path, [answer("1", "one"), answer("2", "two")], generator="dpo")
    assert read_model_outputs(path) == [
        {"instruction": "p1", "output": "one", "generator": "dpo", "dataset": "in_domain"},
        {"instruction": "p2", "output": "two", "generator": "dpo", "dataset": "in_domain"},
    ]
    with pytest.raises(UserError, match="occur more than once"):
        write_model_outputs(path, [answer("1"), answer("1", sample=1)], generator="dpo")
    with pytest.raises(UserError, match="`output` is None"):
        read_model_outputs(write(tmp_path / "o.json", [{"instruction": "a", "output": None, "generator": "b"}]))


@pytest.mark.parametrize("caching", [True, False])
def test_upstream_scores_our_judgments(tmp_path, caching):
    """From answers and judgments of ours to upstream's numbers: by its own merge, and from the annotations alone."""
    from alpaca_eval import evaluate

    mine, theirs = ([answer(str(i), f"{who} {i}", who) for i in range(8)] for who in ("m", "b"))
    pairs = pair_items(mine, theirs)
    name = "weighted_alpaca_eval_gpt4_turbo"
    judged = [{**judgment(pair, 1.0 + i / 9, switched=bool(i % 2)), "judge": name} for i, pair in enumerate(pairs)]
    rows = annotations(judged, pairs, baseline_name="sft_start", method_name="dpo")
    write_model_outputs(tmp_path / "model_outputs.json", mine, generator="dpo")
    write_model_outputs(tmp_path / "reference.json", theirs, generator="sft_start")
    (tmp_path / name).mkdir()
    write_annotations(tmp_path / name / "annotations.json", rows)
    how = (
        {"caching_path": tmp_path / name / "annotations.json", "output_path": None, "precomputed_leaderboard": None}
        if caching
        else {
            "is_recompute_metrics_only": True,
            "output_path": tmp_path,
            "precomputed_leaderboard": str(write(tmp_path / "board.csv", b",win_rate\ndpo,0.0\n")),
            "caching_path": None,
        }
    )
    board, _ = evaluate(
        model_outputs=str(tmp_path / "model_outputs.json"),
        reference_outputs=str(tmp_path / "reference.json"),
        annotators_config=name,
        fn_metric="get_winrate",
        sort_by="win_rate",
        is_return_instead_of_print=True,
        **how,
    )
    ours = score(rows)
    for key in ("win_rate", "standard_error", "discrete_win_rate", "n_wins", "n_wins_base", "n_draws", "n_total"):
        assert float(board.loc["dpo", key]) == pytest.approx(ours[key], abs=1e-9), key
