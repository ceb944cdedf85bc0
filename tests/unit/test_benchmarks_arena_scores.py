"""Arena-Hard's scores by hand: weights, orders, what a null drops, intervals, and every way a file can be wrong."""

import json
import math

import pytest
from arena_tools import two_games, v01_row, v20_row, write_lines
from marginbench import cli
from marginbench.benchmarks.arena_hard import score_games
from marginbench.benchmarks.arena_scores import clustered, to_battles
from marginbench.identity import stream

LABELS = ("A>>B", "A>B", "A=B", "B>A", "B>>A")


def run(capsys, *arguments, version="v2.0", baseline="base"):
    extra = [] if baseline is None else ["--baseline", baseline]
    code = cli.main(["score", "arena-hard", "--version", version, *extra, *map(str, arguments)])
    captured = capsys.readouterr()
    return json.loads(captured.out) if code == 0 else captured.err


def random_games(models, questions):
    random = stream("test", "arena", len(models), questions)
    return [
        game
        for model in models
        for question in range(questions)
        for game in two_games(model, f"q{question}", *(LABELS[i] for i in random.integers(len(LABELS), size=2)))
    ]


# Points of the model and weight, with the baseline as A and with the model as A.
@pytest.mark.parametrize(
    ("label", "as_b", "as_a", "weight"),
    [("A>>B", 0, 1, 3), ("A>B", 0, 1, 1), ("A=B", 0.5, 0.5, 1), ("B>A", 1, 0, 1), ("B>>A", 1, 0, 3)],
)
def test_points_and_weights(label, as_b, as_a, weight):
    battles, counts = to_battles(two_games("m", "q", label, label), "v0.1")
    assert list(battles["y"]) == sorted([as_b] * weight + [as_a] * weight)
    assert counts["m"]["n_battles"] == 2 * weight


@pytest.mark.parametrize(
    ("other", "same"), [("B<<A", "A>>B"), ("B<A", "A>B"), ("B=A", "A=B"), ("A<B", "B>A"), ("A<<B", "B>>A")]
)
def test_v20_knows_ten_labels_and_v01_five(other, same):
    found, expected = (to_battles(two_games("m", "q", label, "A=B"), "v2.0")[0] for label in (other, same))
    assert list(found["y"]) == list(expected["y"])
    battles, counts = to_battles(two_games("m", "q", other, "A=B"), "v0.1")
    assert list(battles["y"]) == [0.5]
    assert (counts["m"]["n_unknown"], counts["m"]["n_null"], counts["m"]["n_games_dropped"]) == (1, 0, 1)


@pytest.mark.parametrize("layout", ["v01", "v20"])
@pytest.mark.parametrize("ending", [".jsonl", ".jsonl.gz"])
def test_what_a_null_drops(capsys, tmp_path, layout, ending):
    row = {"v01": v01_row, "v20": v20_row}[layout]
    rows = [
        row("q1", "A>B", "A>B"), row("q2", None, "A>>B"), row("q3", "B>A", "[[A"), row("q4", None, None),
    ]  # fmt: skip
    if layout == "v20":
        rows[3]["games"] = [None, {"score": None, "judgment": {"answer": ""}, "prompt": []}]
    file = write_lines(tmp_path / f"m{ending}", rows)
    old, new = (run(capsys, file, version=version)["models"]["m"] for version in ("v0.1", "v2.0"))
    # v0.1 keeps q1 (0 and 1), game 2 of q2 (3 x 1) and game 1 of q3 (1); v2.0 keeps q1 alone.
    assert (old["score"], new["score"]) == (pytest.approx(100 * 5 / 6), 50.0)
    names = ("n_null", "n_unknown", "n_games", "n_games_dropped", "n_prompts", "n_prompts_dropped", "n_battles")
    assert [old[name] for name in names] == [3, 1, 4, 4, 3, 1, 6]
    assert [new[name] for name in names] == [3, 1, 2, 6, 1, 3, 2]


def test_clustered_error_by_hand():
    games = (
        two_games("m", "q1", "A>>B", "A>B") + two_games("m", "q2", "B>A", "A>B") + two_games("m", "q3", "A=B", "A=B")
    )
    battles, _ = to_battles(games, "v0.1")
    s, n = (1, 2, 1), (4, 2, 2)
    rate = sum(s) / sum(n)
    variance = 3 / 2 * sum((a - rate * b) ** 2 for a, b in zip(s, n, strict=True)) / sum(n) ** 2
    found = clustered(battles)
    assert found["clustered_se"] == pytest.approx(100 * math.sqrt(variance), abs=1e-9)
    assert found["clustered_ci_low"] == 0.0  # t with two degrees of freedom reaches below
    one = clustered(to_battles(two_games("m", "q1", "A>B", "A>B"), "v0.1")[0])
    assert set(one.values()) == {None}


@pytest.mark.parametrize("version", ["v0.1", "v2.0"])
def test_order_of_files_and_rows_changes_nothing(capsys, tmp_path, version):
    random = stream("test", "arena_order")
    rows = [
        v20_row(f"q{i}", *(LABELS[k] for k in random.integers(5, size=2)), model=m)
        for i in range(30)
        for m in ("a", "b")
    ]
    one = run(capsys, write_lines(tmp_path / "one.jsonl", rows), version=version)
    halves = [write_lines(tmp_path / f"{i}.jsonl", rows[::-1][i::2]) for i in (0, 1)]
    assert run(capsys, *halves, version=version) == one
    assert run(capsys, tmp_path / "0.jsonl", version=version)["models"].keys() < one["models"].keys()
    folder = tmp_path / "both"
    folder.mkdir()
    for half in halves:
        half.rename(folder / half.name)
    assert run(capsys, folder, version=version) == one


def test_intervals_of_v20_belong_to_one_model_and_those_of_v01_to_the_pool():
    games = random_games(["a", "b"], 60)
    alone = [game for game in games if game.model == "a"]
    assert score_games(games, "v2.0")["models"]["a"] == score_games(alone, "v2.0")["models"]["a"]
    both, one = (score_games(some, "v0.1")["models"]["a"] for some in (games, alone))
    assert (both["score"], both["clustered_se"]) == (one["score"], one["clustered_se"])
    assert (both["ci_low"], both["ci_high"]) != (one["ci_low"], one["ci_high"])


def test_official_intervals_have_the_width_of_independent_battles(monkeypatch):
    games = random_games(["a"], 100)
    battles, _ = to_battles(games, "v0.1")
    se = 100 * battles["y"].std() / math.sqrt(len(battles))
    monkeypatch.setattr("marginbench.benchmarks.arena_scores.DRAWS", 4000)
    for version, z in (("v0.1", 1.96), ("v2.0", 1.645)):
        found = score_games(games, version)["models"]["a"]
        assert found["ci_high"] - found["ci_low"] == pytest.approx(2 * z * se, rel=0.07)
        assert found["ci_low"] < found["score"] < found["ci_high"]


def test_categories_have_their_baselines(capsys, tmp_path):
    hard = [v20_row(f"q{i}", "A>B", "A>B", baseline="o3-mini-2025-01-31") for i in range(3)]
    creative = [
        v20_row(f"c{i}", "B>A", "A>B", baseline="gemini-2.0-flash-001", category="creative_writing") for i in range(3)
    ]
    file = write_lines(tmp_path / "m.jsonl", [*creative, *hard])
    result = run(capsys, file, baseline=None)
    assert (result["category"], result["baseline"], result["models"]["m"]["score"]) == (
        "hard_prompt", "o3-mini-2025-01-31", 50.0,
    )  # fmt: skip
    result = run(capsys, file, "--category", "creative_writing", baseline="gemini-2.0-flash-001")
    assert result["models"]["m"]["score"] == 100.0
    assert "line 1: judged against the baseline gemini-2.0-flash-001, not o3-mini" in run(
        capsys, file, "--category", "creative_writing", baseline="o3-mini-2025-01-31"
    )
    for row in hard:
        del row["baseline"]
    assert run(capsys, write_lines(tmp_path / "n.jsonl", hard), baseline=None)["baseline"] == "o3-mini-2025-01-31"


def test_several_judges_and_a_judge_that_is_judged(capsys, tmp_path):
    rows = [v20_row("q", "A>B", "A>B", judge="j1"), v20_row("q", "B>A", "A>B", judge="j2")]
    file = write_lines(tmp_path / "m.jsonl", rows)
    assert f"{file}, line 2: judged by j2, others by j1" in run(capsys, file)
    result = run(capsys, file, "--pool-judges")
    assert (result["models"]["m"]["score"], result["judges"]) == (75.0, ["j1", "j2"])
    file = write_lines(tmp_path / "j.jsonl", [*rows[:1], v20_row("q", "A>B", "A>B", judge="j1", model="j1")])
    assert run(capsys, file)["judges_left_out"] == ["j1"]
    assert set(run(capsys, file, version="v0.1")["models"]) == {"m", "j1"}


GOOD = v20_row("q1", "A>B", "A>B")
BATTLE = {"question_id": "q", "model_a": "base", "model_b": "m", "winner": "model_a"}


@pytest.mark.parametrize(
    ("lines", "message"),
    [
        ([], "{file}: the file is empty"),
        ([GOOD, "{oops"], "{file}, line 2: not valid JSON"),
        ([GOOD, "[1]"], "{file}, line 2: holds a list"),
        ([GOOD, {k: v for k, v in GOOD.items() if k != "games"}], "{file}, line 2: the key `games` is missing"),
        ([{k: v for k, v in GOOD.items() if k != "model"}], "{file}, line 1: the key `model` is missing"),
        ([{"instruction": "?"}], "{file}, line 1: the key `question_id` is missing"),
        ([{**GOOD, "games": [{"score": "A>B"}]}], "{file}, line 1: `games` holds 1 games"),
        ([{**GOOD, "games": [{}, {}]}], "{file}, line 1, game 1: the key `score` is missing"),
        ([{**GOOD, "games": ["A>B", None]}], "{file}, line 1, game 1: is a str"),
        ([{**GOOD, "games": [{"score": 3}, None]}], "{file}, line 1, game 1: `score` is 3"),
        ([GOOD, GOOD], "{file}, line 2: model m was already judged for question q1 ({file}, line 1)"),
        ([GOOD, v20_row("q2", "A>B", "A>B", judge="k")], "{file}, line 2: judged by k, others by j"),
        ([v20_row("q", "A>B", "A>B", baseline="b2")], "{file}, line 1: judged against the baseline b2, not base"),
        ([v20_row("q", "A>B", "A>B", model="base")], "{file}, line 1: base is the baseline itself"),
        ([v20_row("q", None, None)], "model m: none of its 2 games carries a verdict"),
        ([{**BATTLE, "winner": "me"}], "{file}, line 1: `winner` is 'me'"),
        ([{**BATTLE, "model_a": "x"}], "{file}, line 1: the baseline base is not one side of x and m"),
        ([GOOD, BATTLE], "{file}, line 2: battles and judgments together"),
    ],
)
def test_a_wrong_file_is_one_line(capsys, tmp_path, lines, message):
    file = write_lines(tmp_path / "m.jsonl", lines)
    text = run(capsys, file)
    assert text.count("\n") == 1
    assert message.format(file=file) in text


def test_files_that_are_not_there_or_damaged(capsys, tmp_path):
    assert f"{tmp_path / 'no.jsonl'}: can't be read" in run(capsys, tmp_path / "no.jsonl")
    assert "holds no .jsonl" in run(capsys, tmp_path)
    cut = write_lines(tmp_path / "m.jsonl.gz", [GOOD])
    cut.write_bytes(cut.read_bytes()[:-9])
    assert f"{cut}: the gzip file is damaged" in run(capsys, cut)
    (tmp_path / "bytes.jsonl").write_bytes(b'{"uid": "\xff"}\n')
    assert "not UTF-8" in run(capsys, tmp_path / "bytes.jsonl")
    file = write_lines(tmp_path / "m.jsonl", [GOOD])
    assert "--style needs the answers" in run(capsys, file, "--style", "length")
    assert "no judgment is of category math; there are hard_prompt" in run(capsys, file, "--category", "math")


def test_battles_may_hold_the_baseline_on_either_side(capsys, tmp_path):
    turned = {**BATTLE, "model_a": "m", "model_b": "base"}
    file = write_lines(tmp_path / "battles.jsonl", [BATTLE, turned, {**BATTLE, "winner": "tie"}])
    assert run(capsys, file, version="v0.1")["models"]["m"]["score"] == 50.0
    file = write_lines(tmp_path / "battles.jsonl", [turned, turned])
    assert run(capsys, file, version="v0.1")["models"]["m"]["score"] == 100.0
