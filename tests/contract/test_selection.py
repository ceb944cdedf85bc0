"""The contract of a strategy: every file in selection/ is held to it, with no test code of its own."""

import json
import typing
from functools import cache
from typing import Any

import numpy as np
import pandas as pd
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from marginbench.errors import UserError
from marginbench.identity import stream
from marginbench.selection.base import Score
from marginbench.selection.one_shot import select
from marginbench.selection.registry import Strategy, load_strategy, strategy_names
from pydantic import ValidationError
from scipy import stats

NAMES = strategy_names()
EXAMPLES = [(name, index) for name in NAMES for index in range(len(load_strategy(name).examples))]
CASES = [*EXAMPLES, *((name, None) for name in NAMES)]
COLUMNS = ("entropy", "margin", "embedding")


def _sizes(smallest: int) -> st.SearchStrategy[tuple[int, int, int]]:
    """Rows, how many are taken, a seed."""
    return st.integers(smallest, 30).flatmap(
        lambda rows: st.tuples(st.just(rows), st.integers(1, rows), st.integers(0, 10**6))
    )


def _strategy(name: str, index: int | None) -> Strategy:
    """A strategy with the parameters of one of its examples, or as it is."""
    return load_strategy(name) if index is None else load_strategy(name, load_strategy(name).examples[index].params)


def _table(rows: int, seed: int) -> pd.DataFrame:
    """A pool with every column and no ties."""
    draw = np.random.default_rng(seed)
    return pd.DataFrame(
        {
            "prompt_id": [f"prompt{i}" for i in draw.permutation(rows)],
            "entropy": draw.uniform(5, 60, rows),
            "margin": draw.normal(0, 2, rows),
            "embedding": draw.normal(0, 1, (rows, 4)).tolist(),
        }
    )


def _constant(rows: int) -> pd.DataFrame:
    """A pool in which no score tells one prompt from another."""
    ids = [f"prompt{i}" for i in range(rows)]
    return pd.DataFrame({"prompt_id": ids, "entropy": 0.1, "margin": -0.7, "embedding": [[0.1, 0.2, 0.7]] * rows})


@cache
def _draws(name: str, index: int | None) -> bool:
    """Whether the choice depends on the stream."""
    strategy, table = _strategy(name, index), _table(20, 3)
    return len({tuple(select(strategy, table, 4, np.random.default_rng(seed))) for seed in range(5)}) > 1


@pytest.mark.parametrize("name", NAMES)
def test_describes_itself(name: str) -> None:
    strategy = load_strategy(name)
    schema = type(strategy.params).model_json_schema()
    assert schema["additionalProperties"] is False
    for field, info in schema.get("properties", {}).items():
        assert info.get("description"), f"{name}: parameter {field} has no description"
    assert len(strategy.doc.strip()) > 100
    assert "arXiv" in strategy.doc, f"{name}: the docstring must name the paper"
    assert strategy.examples, f"{name}: EXAMPLE is empty"
    assert strategy.loop in ("continual", "accumulate")
    assert isinstance(strategy.resets_policy, bool)


@pytest.mark.parametrize("name", NAMES)
def test_parameters_are_checked_and_frozen(name: str) -> None:
    with pytest.raises(UserError, match="unknown parameter `no_such_key`"):
        load_strategy(name, {"no_such_key": 1})
    params = load_strategy(name).params
    for field in type(params).model_fields:
        with pytest.raises(ValidationError):
            setattr(params, field, getattr(params, field))


@pytest.mark.parametrize(("name", "index"), CASES)
def test_parameters_survive_json(name: str, index: int | None) -> None:
    params = _strategy(name, index).params
    assert load_strategy(name, json.loads(json.dumps(params.model_dump(mode="json"), allow_nan=False))).params == params


@pytest.mark.parametrize(("name", "index"), CASES)
def test_stages_lead_from_the_pool_to_n(name: str, index: int | None) -> None:
    strategy = _strategy(name, index)
    assert strategy.stages
    for n in (1, 3, 16, 64):
        size = strategy.pool_size(n)
        assert size >= n
        for entering in (n, size, size + 7):
            for stage in strategy.stages:
                assert stage.score in typing.get_args(Score)
                assert stage.samples >= 1
                left = stage.keep(entering, n)
                assert isinstance(left, int)
                assert n <= left <= entering
                entering = left
            assert entering == n
        assert strategy.completions(n) >= 2 * n


@pytest.mark.parametrize(("name", "index"), EXAMPLES)
def test_example_holds(name: str, index: int) -> None:
    strategy, case = _strategy(name, index), load_strategy(name).examples[index]
    found = strategy.rank(pd.DataFrame(dict(case.table)), case.n, stream("example", case.seed), case.stage)
    assert found == list(case.expected)


@pytest.mark.parametrize(("name", "index"), CASES)
@given(_sizes(1))
@settings(max_examples=25, deadline=None)
def test_n_different_prompts_of_the_pool_and_the_same_again(
    name: str, index: int | None, sizes: tuple[int, int, int]
) -> None:
    (rows, n, seed), strategy = sizes, _strategy(name, index)
    table = _table(rows, seed)
    before = table.copy(deep=True)
    for stage in range(len(strategy.stages)):
        found = strategy.module.rank(table, n, np.random.default_rng(seed), strategy.params, stage)
        assert isinstance(found, list)
        assert len(found) == len(set(found)) == n
        assert set(found) <= set(table["prompt_id"])
        np.random.seed(seed % 1000)  # a strategy that draws from the global stream is found out
        assert strategy.rank(table, n, np.random.default_rng(seed), stage) == found
        relabelled = table.set_index(pd.Index(range(rows, 0, -1)))  # rows are places, not labels of an index
        assert strategy.rank(relabelled, n, np.random.default_rng(seed), stage) == found
        pd.testing.assert_frame_equal(table, before)


@pytest.mark.parametrize(("name", "index"), CASES)
@given(_sizes(3))  # two points are equally far from their mean: a tie
@settings(max_examples=25, deadline=None)
def test_the_order_of_the_rows_changes_nothing(name: str, index: int | None, sizes: tuple[int, int, int]) -> None:
    (rows, n, seed), strategy = sizes, _strategy(name, index)
    if _draws(name, index):  # held to its distribution by test_without_scores_a_strategy_is_random
        return
    table = _table(rows, seed)
    moved = table.iloc[np.random.default_rng(seed).permutation(rows)]
    for stage in range(len(strategy.stages)):
        rng = np.random.default_rng(0)
        assert strategy.rank(moved, n, rng, stage) == strategy.rank(table, n, rng, stage)


@pytest.mark.parametrize(("name", "index"), CASES)
def test_a_stage_reads_the_score_that_it_declares_and_no_other(name: str, index: int | None) -> None:
    strategy, table, other = _strategy(name, index), _table(30, 1), _table(30, 2)
    for number, stage in enumerate(strategy.stages):
        declared = [] if stage.score == "none" else [stage.score]
        found = strategy.rank(table[["prompt_id", *declared]], 5, np.random.default_rng(0), number)
        mixed = table.assign(**{column: other[column] for column in COLUMNS if column not in declared})
        assert strategy.rank(mixed, 5, np.random.default_rng(0), number) == found
        for column in declared:
            with pytest.raises(UserError, match=f"column `{column}` is missing"):
                strategy.rank(table.drop(columns=column), 5, np.random.default_rng(0), number)
            changed = {
                tuple(
                    strategy.rank(table.assign(**{column: _table(30, k)[column]}), 5, np.random.default_rng(0), number)
                )
                for k in range(4)
            }
            assert len(changed) > 1, f"{name}: stage {number} asks for {column} and does not read it"


@pytest.mark.parametrize(("name", "index"), CASES)
def test_without_scores_the_order_that_is_handed_in_decides(name: str, index: int | None) -> None:
    strategy = _strategy(name, index)
    if _draws(name, index):  # held to its distribution by test_without_scores_a_strategy_is_random
        return
    table = _constant(12).iloc[np.random.default_rng(5).permutation(12)]
    assert select(strategy, table, 5, np.random.default_rng(0)) == table["prompt_id"].tolist()[:5]


@pytest.mark.parametrize(("name", "index"), CASES)
def test_ties_go_to_the_lower_row(name: str, index: int | None) -> None:
    """Two values over many rows (short lists are sorted stably by any sort): prompts of one value are in row order."""
    strategy = _strategy(name, index)
    if _draws(name, index):
        return
    level = np.random.default_rng(5).integers(0, 2, 300)
    columns = {"entropy": level, "margin": 1.0 + level, "embedding": [[float(value)] for value in level]}
    table = pd.DataFrame({"prompt_id": range(300), **columns})
    for stage in range(len(strategy.stages)):
        found = np.array(strategy.rank(table, 250, np.random.default_rng(0), stage))
        for value in (0, 1):
            rows = found[level[found] == value]
            assert rows.tolist() == np.flatnonzero(level == value)[: len(rows)].tolist()


def _uniform(counts: np.ndarray, times: int, taken: int) -> float:
    """p-value of counts of membership in samples of `taken` without replacement being those of uniform ones."""
    size = len(counts)
    variance = times * (taken / size) * (1 - taken / size) * size / (size - 1)
    return float(stats.chi2.sf(np.square(counts - times * taken / size).sum() / variance, size - 1))


@pytest.mark.parametrize(("name", "index"), CASES)
def test_without_scores_a_strategy_is_random(name: str, index: int | None) -> None:
    """The loop hands pools in as seeded permutations; then constant scores must give every prompt the same chance."""
    strategy, table, times = _strategy(name, index), _constant(8), 400
    member, first = np.zeros(8), np.zeros(8)
    for time in range(times):
        pool = table.iloc[stream("contract pool", time).permutation(8)]
        found = [int(value.removeprefix("prompt")) for value in select(strategy, pool, 3, stream("contract", time))]
        member[found] += 1
        first[found[0]] += 1
    assert _uniform(member, times, 3) > 1e-4
    assert _uniform(first, times, 1) > 1e-4


def _spoilt(table: pd.DataFrame, column: str, value: Any) -> pd.DataFrame:
    values = table[column].tolist()
    values[2] = value
    return table.assign(**{column: pd.Series(values, dtype=object if isinstance(value, str | list) else None)})


@pytest.mark.parametrize(("name", "index"), CASES)
def test_a_bad_table_is_refused_in_one_line(name: str, index: int | None) -> None:
    strategy, table = _strategy(name, index), _table(6, 0)
    for number, stage in enumerate(strategy.stages):
        bad = {
            "stands in row": _spoilt(table, "prompt_id", table["prompt_id"][0]),
            "`prompt_id` is missing": table.drop(columns="prompt_id"),
            "5 prompts, but n = 6": table.iloc[:5],
        }
        if stage.score == "embedding":
            bad["row 2 .from 0.: not a list of finite numbers"] = _spoilt(table, "embedding", [0.0, float("nan"), 1, 1])
            bad["row 2 .from 0.: 1 numbers, but row 0 has 4"] = _spoilt(table, "embedding", [0.0])
        elif stage.score != "none":
            bad["row 2 .from 0.: nan is not a finite number"] = _spoilt(table, stage.score, float("nan"))
            bad["row 2 .from 0.: '1.0' is not a finite number"] = _spoilt(table, stage.score, "1.0")
        for message, wrong in bad.items():
            with pytest.raises(UserError, match=message) as raised:
                strategy.module.rank(wrong, 6, np.random.default_rng(0), strategy.params, number)
            assert "\n" not in str(raised.value)
        with pytest.raises(UserError, match="n = 0"):
            strategy.module.rank(table, 0, np.random.default_rng(0), strategy.params, number)
