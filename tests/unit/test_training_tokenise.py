"""Pairs to token ids: end tokens, cutting, and what is dropped and counted."""

from pathlib import Path

import pandas as pd
import pytest
from marginbench.errors import UserError
from marginbench.models.loading import load_tokenizer
from marginbench.models.template import encode_prompt
from marginbench.records import PAIR_TOKENS, check_table
from marginbench.training.tokenise import tokenise_pairs


def _pairs(*rows: tuple[str, str, str, bool, bool]) -> pd.DataFrame:
    return pd.DataFrame(
        [
            {
                "pair_id": f"pair{i}",
                "prompt_id": prompt,
                "prompt": [{"role": "text", "content": prompt}],
                "chosen": chosen,
                "rejected": rejected,
                "chosen_ended": chosen_ended,
                "rejected_ended": rejected_ended,
                "split": "train",
            }
            for i, (prompt, chosen, rejected, chosen_ended, rejected_ended) in enumerate(rows)
        ]
    )


@pytest.fixture(scope="module")
def tokenizer(toy_model: Path):
    return load_tokenizer(toy_model)


def test_ids_and_end_tokens(tokenizer) -> None:
    tokens, report = tokenise_pairs(_pairs(("a film", " good", " bad", True, False)), tokenizer, "plain", 64)
    check_table(tokens, PAIR_TOKENS, "tokens")
    row = tokens.iloc[0]
    assert row["prompt_ids"] == encode_prompt(tokenizer, [{"role": "text", "content": "a film"}], "plain")
    assert row["chosen_ids"][-1] == tokenizer.eos_token_id
    assert tokenizer.decode(row["chosen_ids"][:-1]) == " good"
    assert tokenizer.decode(row["rejected_ids"]) == " bad"
    longest = len(row["prompt_ids"]) + max(len(row["chosen_ids"]), len(row["rejected_ids"]))
    assert (report["kept"], report["longest"], report["cut_chosen"]) == (1, longest, 0)


def test_long_answers_are_cut_without_an_end_token(tokenizer) -> None:
    pairs = _pairs(("a film", " good" * 30, " bad", True, True))
    tokens, report = tokenise_pairs(pairs, tokenizer, "plain", 20)
    row = tokens.iloc[0]
    assert len(row["prompt_ids"]) + len(row["chosen_ids"]) == 20
    assert tokenizer.eos_token_id not in row["chosen_ids"]
    assert (report["cut_chosen"], report["cut_rejected"]) == (1, 0)


def test_pairs_that_teach_nothing_are_dropped_and_counted(tokenizer) -> None:
    pairs = _pairs(
        ("a film", " good", " bad", False, False),
        ("a film " * 20, " good", " bad", False, False),
        ("a film", "", " bad", False, False),
        ("a film", " the same start" * 5 + " x", " the same start" * 5 + " y", False, False),
    )
    tokens, report = tokenise_pairs(pairs, tokenizer, "plain", 20)
    assert tokens["pair_id"].tolist() == ["pair0"]
    counts = {key: report[key] for key in report if key.startswith("dropped")}
    assert counts == {"dropped_long_prompt": 1, "dropped_empty_answer": 1, "dropped_equal_answers": 1}
    assert report["pairs"] == 4


def test_nothing_left_is_an_error(tokenizer) -> None:
    with pytest.raises(
        UserError, match=r"none of 1 pairs is left \(dropped_long_prompt 1\); raise max_length \(now 4\)"
    ):
        tokenise_pairs(_pairs(("a film " * 20, " good", " bad", False, False)), tokenizer, "plain", 4)
