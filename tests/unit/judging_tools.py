"""A judge server in this process, over a backend whose scores are known."""

import contextlib
import json
import threading
import time
import urllib.error
import urllib.request
from pathlib import Path

from marginbench.judging.chat import JudgeModel
from marginbench.judging.server import serve
from marginbench.judging.spec import load_judges

SHIPPED = Path(__file__).parents[2] / "resources" / "judges.yaml"


def judge(**changes):
    """The quickstart's judge entry with other values."""
    spec = load_judges(SHIPPED)["sentiment_half_b"]
    return type(spec).model_validate({**spec.model_dump(), **changes})


class CountingBackend:
    """Scores a text by its exclamation marks; counts its calls; refuses `boom` and overlapping calls."""

    weights_hash = "counting"

    def __init__(self):
        self.calls = 0
        self._busy = threading.Lock()

    def score(self, text):
        self.calls += 1
        if "boom" in text:
            raise RuntimeError("boom")
        if not self._busy.acquire(blocking=False):
            raise RuntimeError("two calls at once")
        time.sleep(0.001)
        self._busy.release()
        return 0.7 * text.count("!") - 0.01 * len(text)

    def count(self, text):
        return len(text.split())


@contextlib.contextmanager
def served(backend=None, model=None):
    """Base URL of a server on a thread of its own."""
    server = serve(model or JudgeModel("sentiment_half_b", backend or CountingBackend(), judge().prompt_sha256))
    thread = threading.Thread(target=server.serve_forever, args=(0.02,), daemon=True)
    thread.start()
    try:
        yield server.base_url
    finally:
        server.shutdown()
        server.server_close()
        thread.join()


def post(url, body):
    """Status and JSON body of a POST; `body` is JSON-able or raw bytes."""
    data = body if isinstance(body, bytes) else json.dumps(body).encode()
    request = urllib.request.Request(url, data, {"Content-Type": "application/json"})
    opener = urllib.request.build_opener(urllib.request.ProxyHandler({}))
    try:
        with opener.open(request, timeout=10) as reply:
            return reply.status, json.load(reply)
    except urllib.error.HTTPError as error:
        return error.code, json.load(error)


def item(i, baseline=" fine.", answer=" good!", question=None):
    """One pair to be judged."""
    return {
        "question_id": f"q{i}",
        "question": question or f"Film {i}",
        "baseline_id": f"b{i}",
        "baseline": baseline,
        "answer_id": f"a{i}",
        "answer": answer,
    }
