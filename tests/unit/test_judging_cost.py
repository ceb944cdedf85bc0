"""Predicted cost: counted by hand on small cases; what is known is free; the command prints it before anything runs."""

import json
from pathlib import Path
from types import SimpleNamespace

import pytest
from marginbench.cli import main
from marginbench.dag.checks import load_studies, read_yaml
from marginbench.judging.cost import OFFICIAL, Estimate, estimate, predict, study_estimates, table, tokens
from marginbench.judging.spec import load_judges

ROOT = Path(__file__).parents[2]
JUDGES = load_judges(ROOT / "resources" / "judges.yaml")


def dear(name, **changes):
    """A judge at 10 and 30 dollars for a million tokens."""
    spec = JUDGES[name]
    price = {"input_per_million": 10, "output_per_million": 30, "date": "2026-11-23"}
    return type(spec).model_validate({**spec.model_dump(), "price": price, **changes})


def study(judges, **benchmarks):
    """The default study (one dataset, model and generation) with other judges and benchmarks."""
    (default,) = load_studies(read_yaml(ROOT / "config.yaml"), [], JUDGES).values()
    return default.model_copy(update={"judges": judges, **({"benchmarks": benchmarks} if benchmarks else {})})


def said(text, role="user"):
    return [{"role": role, "content": text}]


def test_a_token_is_four_characters():
    assert [tokens("x" * n) for n in (0, 1, 4, 5, 8)] == [0, 1, 1, 2, 2]


def test_known_calls_are_free():
    spec = dear("sentiment_half_b_rating", typical_tokens=20)
    calls = {"a": said("x" * 400), "b": said("x" * 4000), "c": said("x" * 40) + said("x" * 41)}
    found = estimate(spec, calls, known={"b"}, benchmark="mt_bench")
    price, most = (121 * 10 + 2 * 20 * 30) / 1e6, (121 * 10 + 2 * 100 * 30) / 1e6
    assert found[:6] == ("sentiment_half_b_rating", "mt_bench", 3, 1, 121, 40)
    assert found[6:] == pytest.approx((price, most))
    assert estimate(spec, calls, known=calls)[2:] == (3, 3, 0, 0, 0.0, 0.0)


def test_the_prediction_of_calls_adds_up_to_the_estimate():
    spec = dear("gpt_4_1_ranking_mixdpo")
    messages = {str(i): said("x" * i) for i in range(30)}
    total = sum(predict(spec, {"messages": shown}) for shown in messages.values())
    assert total == pytest.approx(estimate(spec, messages).price)


def test_a_study_counts_every_method_seed_and_prompt():
    made = study(["sentiment_half_b"])
    (found,) = study_estimates(made, JUDGES)
    (decoding,) = made.generations.values()
    (corpus,) = made.corpora.values()
    runs = sum(len(made.seeds_of(method)) for method in made.methods)
    prompts = made.benchmarks["in_domain"].prompts if isinstance(made.benchmarks, dict) else corpus.eval_prompts
    asked = runs * prompts * len(made.models) * len(made.datasets) * decoding.samples_per_prompt
    template = tokens(JUDGES["sentiment_half_b"].template())
    shown = template + 2 * corpus.prompt_words + 2 * decoding.max_new_tokens
    assert (found.calls, found.tokens_in) == (asked, asked * shown)
    both = {**JUDGES, "sentiment_half_b": dear("sentiment_half_b", order="both")}
    assert study_estimates(made, both)[0].calls == 2 * asked


def test_official_benchmarks():
    judges = {**JUDGES, "arena": dear("qwen_2_5_32b_arena_v20_own_prompt", id="arena")}
    judges |= {"weighted": dear("qwen_2_5_32b_weighted", id="weighted"), "rating": dear("sentiment_half_b_rating")}
    made = study(
        ["weighted", "arena", "rating"],
        alpaca_eval=SimpleNamespace(judges=None, prompts=None),
        arena_hard=SimpleNamespace(judges=["arena"], prompts=10, version="v2.0", questions="some file"),
        mt_bench=SimpleNamespace(judges=None, prompts=None),
    )
    found = {estimate.benchmark: estimate for estimate in study_estimates(made, judges)}
    runs = len(made.seeds) + sum(len(made.seeds_of(method)) for method in made.methods)  # the start is judged here
    (decoding,) = made.generations.values()
    answer, times = decoding.max_new_tokens, runs * len(made.models) * len(made.datasets)
    assert found["alpaca_eval"].calls == times * 805
    template = tokens(judges["weighted"].template())
    assert found["alpaca_eval"].tokens_in == times * 805 * (template + 41 + 512 + answer)
    assert found["arena_hard"].calls == times * 10 * 2
    assert found["arena_hard"].tokens_out == found["arena_hard"].calls * 900
    assert found["arena_hard"].price_at_most > found["arena_hard"].price
    assert found["mt_bench"].calls == times * 160
    one, two = (tokens(judges["rating"].template(part)) for part in ("turn_1", "turn_2"))
    both = one + two + 3 * (OFFICIAL["mt_bench"].question + answer)
    assert found["mt_bench"].tokens_in == times * 80 * both


def test_the_table_has_a_sum():
    lines = table([Estimate("a", "x", 1000, 10, 5, 6, 1.5, 2.0), Estimate("b", "y", 1, 0, 5, 6, 0.25, 1.0)]).split("\n")
    assert lines[0].split()[:4] == ["judge", "benchmark", "calls", "known"]
    assert lines[-1].split() == ["total", "1,001", "10", "10", "12", "$1.75", "$3.00"]
    assert {len(line) for line in lines} == {len(lines[0])}


def test_the_command(capsys):
    assert main(["cost", "small", "--json"]) == 0
    printed = json.loads(capsys.readouterr().out)
    assert printed["study"] == "small"
    assert printed["judges"][0]["calls"] > 0
    assert main(["cost", str(ROOT / "studies" / "small.yaml")]) == 0
    output = capsys.readouterr()
    assert output.out.startswith("judge")
    assert "upper estimate" in output.err
    assert main(["cost", "smal"]) == 2
    assert "did you mean `small`" in capsys.readouterr().err
