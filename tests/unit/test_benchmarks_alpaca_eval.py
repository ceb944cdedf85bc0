"""AlpacaEval's files and win rates: our few lines against the package's, and when length control is withheld."""

import json
import statistics

import pytest
from judging_tools import item
from marginbench.benchmarks.alpaca_eval import annotations, pair_items, score
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
    json.dumps(result, allow_nan=False)


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
