"""The local judge server: the protocol's errors, independence of load, and a process that never outlives its run."""

import os
import signal
import subprocess
import sys
import time
import urllib.request
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest
from judging_tools import SHIPPED, CountingBackend, item, judge, post, served
from marginbench.errors import UserError
from marginbench.judging.chat import JudgeModel
from marginbench.judging.client import judge_pairs
from marginbench.judging.prompts import Shown, fill
from marginbench.judging.server import check_loopback, local_server, main, serve
from marginbench.judging.spec import load_judges


def request(answer=" good!", **changes):
    messages = fill(judge().template(), Shown("A film", " dull.", answer))
    return {"model": "sentiment_half_b", "messages": messages, "logprobs": True, "top_logprobs": 2, **changes}


def alive(pid):
    try:
        os.kill(pid, 0)
    except ProcessLookupError:
        return False
    return Path(f"/proc/{pid}/stat").read_text().rsplit(")", 1)[1].split()[0] != "Z"


def gone(pid, seconds=10):
    deadline = time.monotonic() + seconds
    while alive(pid) and time.monotonic() < deadline:
        time.sleep(0.05)
    return not alive(pid)


def test_the_reply_has_the_protocols_shape():
    with served() as url:
        status, body = post(f"{url}/chat/completions", request())
        again = post(f"{url}/chat/completions", request())[1]
        plain = post(f"{url}/chat/completions", request(logprobs=False))[1]
    assert status == 200
    top = body["choices"][0]["logprobs"]["content"][0]["top_logprobs"]
    assert [entry["token"] for entry in top] == ["M", "m"]
    assert top[0]["logprob"] > top[1]["logprob"]
    assert body["choices"][0]["message"]["content"] == "M"
    assert body["model"].startswith("sentiment_half_b@")
    assert body["usage"]["total_tokens"] == body["usage"]["prompt_tokens"] + 1
    assert again["choices"] == body["choices"]
    assert plain["choices"][0]["logprobs"] is None


class Scores(CountingBackend):
    """Scores a text by the number it ends with."""

    def score(self, text):
        return float(text.split()[-1])


def replies(judge_id, fields, part="prompt"):
    spec = load_judges(SHIPPED)[judge_id]
    model = JudgeModel(judge_id, Scores(), spec.prompt_sha256)
    status, body = model.complete({"model": judge_id, "messages": spec.messages(fields, part), **spec.request()})
    assert status == 200
    assert body["choices"][0]["logprobs"] is None
    assert body["usage"]["completion_tokens"] > 1
    return body["choices"][0]["message"]["content"]


@pytest.mark.parametrize(
    ("a", "b", "label"),
    [
        ("1", "1.49", "[[A=B]]"),
        ("1", "1.5", "[[B>A]]"),
        ("0.5", "0", "[[A>B]]"),
        ("0", "1.99", "[[B>A]]"),
        ("0", "2", "[[B>>A]]"),
        ("3", "-1", "[[A>>B]]"),
    ],
)
def test_an_arena_verdict_is_the_difference_of_scores_in_words(a, b, label):
    text = replies("sentiment_half_b_arena", {"question": "Film ", "answer_a": f" {a}", "answer_b": f" {b}"})
    assert text.endswith(label)
    assert text.count("[") == 2


def test_a_rating_rises_with_the_score():
    texts = [
        replies("sentiment_half_b_rating", {"question": "Film", "answer": f" {x}"}, "turn_1") for x in range(-9, 10)
    ]
    ratings = [float(text.rsplit("[[", 1)[1].removesuffix("]]")) for text in texts]
    assert ratings == sorted(ratings)
    assert (ratings[0], ratings[9], ratings[-1]) == (1.0, 5.5, 10.0)
    two = {"question_1": "q", "answer_1": " 9", "question_2": "q", "answer_2": " 0"}
    assert replies("sentiment_half_b_rating", two, "turn_2").endswith("[[5.5]]")


@pytest.mark.parametrize(
    ("body", "status", "words"),
    [
        (request(model="gpt-9"), 404, "'gpt-9' is not served here"),
        (b"{not json", 400, "not JSON"),
        (b"\xff\xfe", 400, "not JSON"),
        ([1], 400, "list `messages`"),
        (request(messages="hello"), 400, "list `messages`"),
        (request(messages=["hello"]), 400, "JSON object"),
        (request(messages=[{"role": "user", "content": "hi"}]), 400, "one JSON line"),
        (request(messages=[{"role": "user", "content": "{}\n[]"}]), 400, "one JSON line"),
        (request(top_logprobs=99), 400, "top_logprobs"),
        (request(top_logprobs="five"), 400, "top_logprobs"),
        (request(answer=" boom"), 500, "boom"),
    ],
)
def test_a_bad_request_is_a_json_error_and_the_server_lives(body, status, words):
    with served() as url:
        got, reply = post(f"{url}/chat/completions", body)
        assert post(f"{url}/chat/completions", request())[0] == 200
    assert got == status
    assert words in reply["error"]["message"]


def test_other_paths():
    with served() as url:
        assert post(f"{url}/embeddings", {})[0] == 404
        with urllib.request.urlopen(url.removesuffix("/v1") + "/health", timeout=10) as reply:
            assert reply.status == 200


def test_verdicts_do_not_depend_on_what_is_in_flight():
    bodies = [request(answer=f" good {'!' * (i % 5)} {i}") for i in range(48)]

    def ask(url, workers):
        with ThreadPoolExecutor(workers) as pool:
            replies = pool.map(lambda body: post(f"{url}/chat/completions", body)[1], bodies)
            return [reply["choices"][0]["logprobs"] for reply in replies]

    with served() as url:
        assert ask(url, 1) == ask(url, 16)


@pytest.mark.parametrize("host", ["0.0.0.0", "::", "10.0.0.1", "example.org"])
def test_only_loopback(host, capsys):
    with pytest.raises(UserError, match="loopback only"):
        check_loopback(host)
    assert main(["--judge", "sentiment_half_b", "--classifier", "x", "--host", host]) == 2
    assert capsys.readouterr().err.count("\n") == 1


def test_a_port_that_is_taken():
    with served() as url, pytest.raises(UserError, match="cannot listen"):
        serve(None, int(url.split(":")[2].split("/")[0]))


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (["--judge", "nobody", "--classifier", "x"], "judge `nobody` is not known"),
        (["--judge", "sentiment_half_b", "--model", "x"], "needs --classifier"),
        (["--judge", "sentiment_half_b", "--classifier", "/no/such/file"], "/no/such/file does not exist"),
    ],
)
def test_the_command_refuses_in_one_line(arguments, words, capsys):
    assert main(arguments) == 2
    error = capsys.readouterr().err
    assert words in error
    assert error.count("\n") == 1


@pytest.fixture(scope="module")
def classifier(tmp_path_factory):
    from marginbench.data.classifier import TextClassifier

    texts = ["a wonderful great film", "great acting wonderful", "terrible boring film", "boring waste terrible"] * 3
    path = tmp_path_factory.mktemp("judge") / "classifier.npz"
    TextClassifier.fit(texts, [1, 1, 0, 0] * 3, seed=0).save(path)
    return path


@pytest.mark.slow
def test_a_server_of_its_own_is_stopped_even_when_the_work_fails(classifier, tmp_path):
    log = tmp_path / "judge.log"
    pairs = [item(i, baseline=" terrible", answer=" wonderful") for i in range(4)]
    with local_server(judge(), classifier, log) as url:
        rows = judge_pairs(judge(), url, pairs)
        assert "torch" not in log.read_text(encoding="utf-8")
    assert all(row["preference"] > 1.5 for row in rows)
    pids = []

    def body(url):
        import json

        pids.append(json.loads(log.read_text(encoding="utf-8").splitlines()[0])["pid"])
        assert alive(pids[0])
        raise KeyError("work")

    with pytest.raises(KeyError, match="work"), local_server(judge(), classifier, log) as url:
        body(url)
    assert not alive(pids[0])


@pytest.mark.slow
def test_a_server_that_cannot_start_says_why(tmp_path):
    broken = tmp_path / "classifier.npz"
    broken.write_bytes(b"not a classifier")
    with (
        pytest.raises(UserError, match=r"its server ended with code 2: .*not a saved classifier") as caught,
        local_server(judge(), broken, tmp_path / "judge.log"),
    ):
        pass
    assert "\n" not in str(caught.value)


@pytest.mark.slow
def test_a_server_that_is_too_slow_is_stopped(classifier, tmp_path):
    with (
        pytest.raises(UserError, match="is not ready after"),
        local_server(judge(), classifier, tmp_path / "judge.log", timeout_s=0.01),
    ):
        pass


PARENT = """
import json, sys, time
sys.path.insert(0, sys.argv[3])
from judging_tools import judge
from marginbench.judging.server import local_server
with local_server(judge(), sys.argv[1], sys.argv[2]):
    print(open(sys.argv[2]).readline(), flush=True)
    time.sleep(60)
"""


@pytest.mark.slow
def test_a_server_dies_with_a_killed_parent(classifier, tmp_path):
    import json

    command = [sys.executable, "-c", PARENT, str(classifier), str(tmp_path / "judge.log"), str(Path(__file__).parent)]
    parent = subprocess.Popen(command, stdout=subprocess.PIPE)
    pid = None
    try:
        pid = json.loads(parent.stdout.readline())["pid"]
        assert alive(pid)
        parent.send_signal(signal.SIGKILL)
        parent.wait()
        assert gone(pid)
    finally:
        if pid is not None and alive(pid):
            os.kill(pid, signal.SIGKILL)
        parent.kill()
        parent.wait()
        parent.stdout.close()


@pytest.mark.slow
def test_the_language_model_judge_scores_each_text_alone(toy_model):
    from marginbench.judging.backends import CausalLmBackend, log_probs

    backend = CausalLmBackend(str(toy_model))
    first, second = log_probs(backend, "A film", " was dull.", " was a joy!")
    swapped = log_probs(backend, "A film", " was a joy!", " was dull.")
    assert (second, first) == pytest.approx(swapped, abs=1e-12)
    assert pytest.approx(0.0, abs=1e-5) != backend.score("A film was dull.") - backend.score("A film was a joy!")
    assert CausalLmBackend(str(toy_model)).score("A film was dull.") == backend.score("A film was dull.")
