"""Published Arena-Hard judgments give the published score, its interval and every stored verdict."""

import gzip
import json
from pathlib import Path

import numpy as np
import pytest
from marginbench import cli
from marginbench.benchmarks.arena_formats import read_answers, read_games
from marginbench.benchmarks.arena_hard import choose
from marginbench.benchmarks.arena_markdown import markdown_counts
from marginbench.benchmarks.arena_scores import to_battles
from marginbench.benchmarks.arena_style import differences, fit
from marginbench.judging.verdict_texts import parse_arena_v01, parse_arena_v20
from scipy.optimize import minimize
from scipy.special import expit

CASES = Path(__file__).parents[2].parent / "shared" / "parity" / "arena_hard"
OFFICIAL = CASES / "v01_official"
BASELINE, MODEL = "gpt-4-0314", "gpt-4-0613"
JUDGMENTS = [f"judgments_{layout}_format/{MODEL}.jsonl.gz" for layout in ("v01", "v20")]

pytestmark = pytest.mark.skipif(not CASES.is_dir(), reason="published judgments (../shared/parity) are not at hand")


def lines(path):
    with gzip.open(path, "rt", encoding="utf-8") as handle:
        return [json.loads(line) for line in handle]


def scored(capsys, *arguments, version="v0.1"):
    assert cli.main(["score", "arena-hard", "--version", version, "--baseline", BASELINE, *map(str, arguments)]) == 0
    return json.loads(capsys.readouterr().out)


@pytest.mark.parametrize("file", ["battles.jsonl.gz", *JUDGMENTS])
def test_published_score(capsys, file):
    result = scored(capsys, OFFICIAL / file)["models"][MODEL]
    expected = json.loads((OFFICIAL / "expected.json").read_text(encoding="utf-8"))[MODEL]
    assert result["score"] == pytest.approx(expected["score"], abs=1e-9)
    assert result["n_battles"] == expected["n_battles"]
    assert result["n_prompts"] == expected["n_prompts"]
    assert result["clustered_se"] == pytest.approx(expected["se_prompt_clustered"], abs=1e-9)
    assert result["ci_low"] == pytest.approx(expected["published"]["q025"], abs=1.0)
    assert result["ci_high"] == pytest.approx(expected["published"]["q975"], abs=1.0)
    assert result["clustered_ci_low"] < result["ci_low"] < result["ci_high"] < result["clustered_ci_high"]


def test_bradley_terry_is_the_weighted_mean():
    battles, _ = to_battles(choose(read_games([OFFICIAL / "battles.jsonl.gz"]), BASELINE), "v0.1")
    y = battles["y"].to_numpy()
    found = fit(np.zeros(len(y), dtype=int), np.empty((len(y), 0)), y, np.ones(len(y)), "v2.0")
    assert 100 * expit(found.log_odds[0]) == pytest.approx(100 * y.mean(), abs=1e-6)


def test_v20_rules_on_the_same_judgments(capsys):
    narrow, wide = (scored(capsys, OFFICIAL / JUDGMENTS[1], version=v)["models"][MODEL] for v in ("v2.0", "v0.1"))
    assert narrow["score"] == wide["score"]
    assert narrow["bootstrap_mean"] == pytest.approx(narrow["score"], abs=0.5)
    assert narrow["ci_high"] - narrow["ci_low"] < wide["ci_high"] - wide["ci_low"]


@pytest.mark.parametrize("file", sorted(CASES.glob("judge_text/*.jsonl.gz")), ids=lambda path: path.name.split("__")[1])
def test_every_stored_verdict(file):
    games = [game for row in lines(file) for game in row["games"]]
    assert len(games) == 20
    assert [parse_arena_v01(game["judgment"]) for game in games] == [game["score"] for game in games]
    # Each of these texts holds one label only, so that the last one is the same.
    assert [parse_arena_v20(game["judgment"]) for game in games] == [game["score"] for game in games]


def test_markdown_counts_are_the_recorded_ones():
    with gzip.open(OFFICIAL / "style_metadata.json.gz") as handle:
        recorded = json.load(handle)
    answers = read_answers(OFFICIAL / "model_answer", [BASELINE, MODEL])
    for model, facts in answers.items():
        assert len(facts) == 500
        for question, answer in facts.items():
            found = {"token_len": answer["token_len"], **markdown_counts(answer["text"])}
            assert found == recorded[model][question]


@pytest.mark.parametrize("version", ["v0.1", "v2.0"])
@pytest.mark.parametrize("groups", ["length", "markdown", "length,markdown"])
def test_style_control_is_at_the_optimum(capsys, version, groups):
    """Against scipy's minimum of the likelihood, written down a second time, from the recorded counts."""
    options = ("--answers", OFFICIAL / "model_answer", "--style", groups)
    document = scored(capsys, OFFICIAL / JUDGMENTS[0], *options, version=version)
    with gzip.open(OFFICIAL / "style_metadata.json.gz") as handle:
        recorded = json.load(handle)
    rows = lines(OFFICIAL / "battles.jsonl.gz")
    counts = {
        who: np.array(
            [
                [v if isinstance(v, int) else sum(v.values()) for v in recorded[who][row["question_id"]].values()]
                for row in rows
            ],
            dtype=float,
        )
        for who in (MODEL, BASELINE)
    }
    columns = {"length": [0], "markdown": [1, 2, 3], "length,markdown": [0, 1, 2, 3]}[groups]
    f = differences(counts[MODEL], counts[BASELINE], version)[:, columns]
    z = (f - f.mean(0)) / f.std(0, ddof=0 if version == "v0.1" else 1)
    y = np.array([{"model_a": 0.0, "model_b": 1.0, "tie": 0.5}[row["winner"]] for row in rows])
    scale, times, penalty = (np.log(10), 2.0, 0.5) if version == "v0.1" else (1.0, 1.0, 0.0)

    def loss(w):
        logits = scale * (w[0] - w[1]) + z @ w[2:]
        return times * np.sum(np.logaddexp(0, logits) - y * logits) + penalty * w @ w

    w = minimize(loss, np.zeros(2 + z.shape[1]), tol=1e-12).x
    odds = scale * (w[0] - w[1])
    equal = odds - w[2:] @ (f.mean(0) / f.std(0, ddof=0 if version == "v0.1" else 1))
    result = document["models"][MODEL]
    assert result["style_score"] == pytest.approx(100 / (1 + np.exp(-odds)), abs=0.01)
    assert result["style_score_equal"] == pytest.approx(100 / (1 + np.exp(-equal)), abs=0.01)
    assert result["style_ci_low"] < result["style_score"] < result["style_ci_high"]
    # Scores hardly feel the standard deviation's divisor, coefficients do: 4e-4 of their size.
    assert list(document["style"]["coefficients"].values()) == pytest.approx(w[2:], rel=1e-4)
    assert document["style"]["pool"] == [MODEL]
    assert len(document["style"]["features"]) == len(columns)
