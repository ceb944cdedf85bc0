"""`marginbench judge calibrate`: stored outputs judged again by a served judge, ranked beside published scores."""

import json

import pytest
import yaml
from judge_tools import remote
from marginbench.cli import main
from marginbench.judging.prompts import read_back
from openai_server import Reply, completion, serving

INSTRUCTIONS = [f"Tell me about number {i}" for i in range(6)]
MODELS = {"strong": 3, "good": 2, "fair": 1, "poor": 0}


def behave(request, n):
    """A judge that likes the answer with more stars."""
    _, _, (first, second) = read_back(request["messages"])
    lead = second.count("*") - first.count("*")
    tops = {"M": -0.01, "m": -5.0} if lead > 0 else {"M": -5.0, "m": -0.01} if lead < 0 else {"M": -0.7, "m": -0.7}
    return Reply(completion("M", tops))


def outputs(folder, model, stars):
    rows = [{"instruction": i, "output": f"{model} {'*' * stars}", "generator": model} for i in INSTRUCTIONS]
    path = folder / f"{model}.json"
    path.write_text(json.dumps(rows))
    return str(path)


@pytest.fixture
def command(tmp_path, monkeypatch):
    monkeypatch.setenv("OPENAI_API_KEY", "a-key-for-tests")
    with serving(behave) as (url, server):
        entry = remote(url).model_dump(mode="json", exclude={"id"})
        (tmp_path / "judges.yaml").write_text(yaml.safe_dump({"remote": entry}))
        files = [outputs(tmp_path, model, 2 * stars) for model, stars in MODELS.items()]
        published = tmp_path / "published.csv"
        published.write_text("model,score\nstrong,40\ngood,30\nfair,20\npoor,10\nabsent,1\n")
        options = ["--judges", str(tmp_path / "judges.yaml"), "--ledger", str(tmp_path / "ledger.sqlite")]
        options += ["--published", str(published), "--reference", outputs(tmp_path, "base", 3)]
        yield ["judge", "calibrate", "remote", *files, *options], server, tmp_path


def test_models_are_ranked_beside_their_published_scores(command, capsys):
    line, server, _ = command
    assert main(line) == 0
    found = json.loads(capsys.readouterr().out)
    assert found["spearman"] == pytest.approx(0.894427191)  # strong and good both win, fair and poor both lose
    assert found["n"] == 4
    assert found["win_rates"]["strong"] == found["win_rates"]["good"] > 99
    assert found["win_rates"]["poor"] < 1
    assert len(server.seen) == 4 * len(INSTRUCTIONS)
    assert main([*line, "--prompts", "3"]) == 0  # all of it is in the ledger
    assert len(server.seen) == 4 * len(INSTRUCTIONS)


def test_what_cannot_be_ranked_is_refused_in_one_line(command, capsys):
    line, server, folder = command
    (folder / "published.csv").write_text("model,score\nstrong,40\n")
    assert main(line) == 2
    assert "no published score of good" in capsys.readouterr().err
    (folder / "published.csv").write_text("name,score\nstrong,40\n")
    assert main(line) == 2
    assert "columns model,score" in capsys.readouterr().err
    twice = [line[3], *line[3:]]
    (folder / "published.csv").write_text("model,score\nstrong,40\n")
    assert main([*line[:3], *twice]) == 2
    assert "strong is there twice" in capsys.readouterr().err
    assert server.seen == []  # nothing was paid for
