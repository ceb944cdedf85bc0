"""Style control on made-up judgments: what it removes, each group alone, where its counts come from."""

import json

import numpy as np
import pytest
from arena_tools import counts, two_games, v20_row, write_lines
from marginbench import cli
from marginbench.benchmarks.arena_formats import read_answers
from marginbench.benchmarks.arena_hard import score_games
from marginbench.benchmarks.arena_markdown import markdown_counts, style_counts, token_counter
from marginbench.benchmarks.arena_scores import to_battles
from marginbench.benchmarks.arena_style import differences, fit
from marginbench.errors import UserError
from marginbench.identity import stream
from scipy.optimize import brentq
from scipy.special import expit

N = 400


def judged(quality, mean_tokens, love_of_length):
    """Games and answers of models whose log-odds are quality + love_of_length * difference in length."""
    random = stream("test", "arena_style", love_of_length)
    answers = {"base": {f"q{i}": counts(300, int(random.integers(4))) for i in range(N)}}
    games = []
    for model, q in quality.items():
        answers[model] = {}
        for i in range(N):
            tokens = int(mean_tokens[model] * np.exp(0.4 * random.standard_normal()))
            answers[model][f"q{i}"] = counts(tokens, int(random.integers(4)), int(random.integers(6)), i % 3)
            p = expit(q + love_of_length * (tokens - 300) / (tokens + 300))
            won = random.random(2) < p
            games += two_games(model, f"q{i}", "B>A" if won[0] else "A>B", "A>B" if won[1] else "B>A")
    return games, answers


@pytest.mark.parametrize("version", ["v0.1", "v2.0"])
def test_a_judge_that_loves_length_is_seen_through(version):
    quality, tokens = {"terse": 0.3, "wordy": -0.3}, {"terse": 200, "wordy": 700}
    games, answers = judged(quality, tokens, 4.0)
    result = score_games(games, version, ["length"], answers)
    terse, wordy = (result["models"][name] for name in ("terse", "wordy"))
    assert wordy["score"] > terse["score"] + 10
    assert wordy["style_score"] < terse["style_score"]
    assert result["style"]["reversals"] == [["wordy", "terse"]]
    assert result["style"]["coefficients"]["token_len"] > 0.5
    # At equal style only the quality is left; at the pool's average both are lifted by what the pool is longer.
    for name, model in (("terse", terse), ("wordy", wordy)):
        assert model["style_score_equal"] == pytest.approx(100 * expit(quality[name]), abs=8)
        assert model["style_ci_low"] < model["style_score"] < model["style_ci_high"]
    assert result["style"]["mean_difference"]["token_len"] > 0.05
    assert wordy["style_score"] > wordy["style_score_equal"] + 2


def test_no_reversal_where_the_judge_looks_at_quality_alone():
    games, answers = judged({"terse": 0.3, "wordy": -0.3}, {"terse": 200, "wordy": 700}, 0.0)
    result = score_games(games, "v2.0", ["length", "markdown"], answers)
    assert result["style"]["reversals"] == []
    assert abs(result["style"]["coefficients"]["token_len"]) < 0.2


@pytest.mark.parametrize("version", ["v0.1", "v2.0"])
def test_each_group_alone(version):
    games, answers = judged({"a": 0.0, "b": 0.2}, {"a": 200, "b": 400}, 2.0)
    found = {
        tuple(groups): score_games(games, version, groups, answers)
        for groups in (["length"], ["markdown"], ["length", "markdown"])
    }
    assert [len(result["style"]["features"]) for result in found.values()] == [1, 3, 4]
    assert len({result["models"]["a"]["style_score"] for result in found.values()}) == 3
    raw = found["markdown",]["models"]["a"]
    assert raw["style_score"] == pytest.approx(raw["score"], abs=2)  # markdown was not looked at


@pytest.mark.parametrize("version", ["v0.1", "v2.0"])
def test_bradley_terry_is_the_weighted_mean_of_each_model(version):
    """Joint fit of three models without features; v0.1's penalty only shrinks towards a half."""
    games, _ = judged({"a": -1.0, "b": 0.2, "c": 1.5}, {"a": 200, "b": 300, "c": 400}, 1.0)
    battles, _ = to_battles(games, version)
    codes = battles["model"].map({"a": 0, "b": 1, "c": 2}).to_numpy()
    y = battles["y"].to_numpy()
    found = 100 * expit(fit(codes, np.empty((len(y), 0)), y, np.ones(len(y)), version).log_odds)
    means = 100 * battles.groupby("model")["y"].mean().to_numpy()
    if version == "v2.0":
        assert found == pytest.approx(means, abs=1e-6)
    else:
        assert (abs(found - 50) < abs(means - 50)).all()
        assert found == pytest.approx(means, abs=0.5)


@pytest.mark.parametrize("version", ["v0.1", "v2.0"])
def test_a_model_that_wins_everything_and_features_that_never_vary(version):
    answers = {name: {f"q{i}": counts(100) for i in range(20)} for name in ("base", "m")}
    games = [game for i in range(20) for game in two_games("m", f"q{i}", "B>>A", "A>>B")]
    result = score_games(games, version, ["length", "markdown"], answers)
    assert result["models"]["m"]["style_score"] > 99.5
    assert set(result["style"]["coefficients"].values()) == {0.0}
    json.dumps(result, allow_nan=False)


def test_the_penalty_of_v01_by_hand():
    """One model, four battles of which it wins three: the root of the penalised likelihood's derivative.

    theta for the model and -theta for the baseline; every battle counts twice, so
    2 ln 10 (3 - 4 sigmoid(2 ln 10 theta)) = theta. v2.0 has no penalty.
    """
    y, nothing, ones = np.array([1.0, 1, 1, 0]), np.empty((4, 0)), np.ones(4)
    scale = np.log(10)
    theta = brentq(lambda t: 2 * scale * (3 - 4 * expit(2 * scale * t)) - t, 0, 1, xtol=1e-12)
    codes = np.zeros(4, dtype=int)
    assert fit(codes, nothing, y, ones, "v0.1").log_odds[0] == pytest.approx(2 * scale * theta, abs=1e-6)
    assert fit(codes, nothing, y, ones, "v2.0").log_odds[0] == pytest.approx(np.log(3), abs=1e-6)


def test_differences_by_hand():
    ours, theirs = np.array([[30.0, 2, 0, 4]]), np.array([[9.0, 0, 1, 4]])
    assert differences(ours, theirs, "v0.1") == pytest.approx(np.array([[21 / 40, 2 / 3, -1 / 2, 0]]))
    a, b = np.array([2, 0, 4]) / 31, np.array([0, 1, 4]) / 10
    assert differences(ours, theirs, "v2.0") == pytest.approx(np.array([[21 / 39, *((a - b) / (a + b + 1))]]))
    assert (differences(np.zeros((1, 4)), np.zeros((1, 4)), "v2.0") == 0).all()


def test_markdown_by_hand():
    code = "```py\n# code\n- code\n**code**\n```\n"
    text = f"# One\n### Three\n#no header\n1. a\n  - b\n* c\n**bold** __bold__ ** no\n{code}"
    found = markdown_counts(text)
    assert {kind: n for kind, n in found["header_count"].items() if n} == {"h1": 1, "h3": 1}
    assert found["list_count"] == {"ordered": 1, "unordered": 2}
    assert found["bold_count"] == {"**": 1, "__": 1}


def answer_v01(question, text, **turn):
    return {
        "question_id": question, "answer_id": "a", "model_id": "m",
        "choices": [{"index": 0, "turns": [{"content": text, **turn}]}],
    }  # fmt: skip


def answer_v20(question, text, **metadata):
    content = [{"role": "user", "content": "?"}, {"role": "assistant", "content": {"answer": text}}]
    return {"uid": question, "ans_id": "a", "model": "m", "messages": content, "metadata": metadata}


def test_counts_are_recorded_or_made(tmp_path):
    recorded = {"header_count": {"h1": 7}, "list_count": {"ordered": 1, "unordered": 2}, "bold_count": {"**": 0}}
    rows = [
        answer_v01("old", "- a", token_len=5),
        {**answer_v01("older", "- a"), "conv_metadata": {"token_len": 6, **recorded}},
        answer_v20("new", "# a", token_len=8, **recorded),
        answer_v20("bare", "one two"),
    ]
    write_lines(tmp_path / "m.jsonl.gz", rows)
    facts = read_answers(tmp_path, ["m"])["m"]
    found = {question: style_counts(facts[question], question, None) for question in ("old", "older", "new")}
    assert found == {"old": (5, 0, 1, 0), "older": (6, 7, 3, 0), "new": (8, 7, 3, 0)}
    assert style_counts(facts["bare"], "bare", lambda text: len(text.split())) == (2, 0, 0, 0)
    with pytest.raises(UserError, match="bare: `token_len` is not recorded"):
        style_counts(facts["bare"], "bare", None)


def test_no_encoding_is_fetched(tmp_path, monkeypatch):
    """With an empty cache the answer is that there is no counter; nothing is asked of a network."""
    load, registry = pytest.importorskip("tiktoken.load"), pytest.importorskip("tiktoken.registry")
    asked = []
    monkeypatch.setenv("TIKTOKEN_CACHE_DIR", str(tmp_path))
    monkeypatch.setattr(load, "read_file", lambda path: asked.append(path))
    monkeypatch.setattr(registry, "ENCODINGS", {})
    assert token_counter("v2.0") is None
    assert asked == []
    assert list(tmp_path.iterdir()) == []


def test_answers_that_are_missing_or_twice_there(capsys, tmp_path):
    file = write_lines(tmp_path / "j.jsonl", [v20_row("q1", "A>B", "A>B"), v20_row("q2", "A>B", "A>B")])
    folder = tmp_path / "answers"
    options = ["score", "arena-hard", "--version", "v2.0", "--baseline", "base", str(file), "--answers", str(folder)]

    def error(groups="length"):
        assert cli.main([*options, "--style", groups]) == 2
        return capsys.readouterr().err

    assert "is not a folder of answer files" in error()
    folder.mkdir()
    mine = [answer_v20(q, "text", token_len=3) for q in ("q1", "q2")]
    write_lines(folder / "m.jsonl", mine)
    assert "no file holds answers of base" in error()
    write_lines(folder / "base.jsonl", [{**row, "model": "base"} for row in mine[:1]])
    assert "answers of base: question q2 is not among them" in error()
    write_lines(folder / "base.jsonl", [{**row, "model": "base"} for row in [*mine, mine[0]]])
    assert "base.jsonl, line 3: base has answered question q1 before" in error()
    write_lines(folder / "base.jsonl", [{**row, "model": "base", "messages": []} for row in mine])
    assert "base.jsonl, line 1: no answer where the official format has it" in error()
    write_lines(folder / "base.jsonl", [{**row, "model": "base"} for row in mine])
    assert "style control of `colour` is not known; choose from length, markdown" in error("length,colour")
    assert cli.main([*options, "--style", "length, markdown"]) == 0
