"""Chat completions of a local judge: a request in, an HTTP status and an OpenAI-shaped body out."""

import threading
import time
from typing import Any

from marginbench.identity import content_id
from marginbench.judging.backends import Backend, arena_reply, log_probs, rating_reply
from marginbench.judging.prompts import LABELS, Asked, read_back


class JudgeModel:
    """A backend with the name that it answers to: `{judge id}@{version}`; the version covers weights and prompt."""

    def __init__(self, judge_id: str, backend: Backend, prompt_sha256: str) -> None:
        self.judge_id = judge_id
        self.name = f"{judge_id}@{content_id(backend.weights_hash, prompt_sha256)}"
        self._backend = backend
        self._lock = threading.Lock()

    def complete(self, request: Any) -> tuple[int, dict[str, Any]]:
        """HTTP status and body for one chat-completions request."""
        if not isinstance(request, dict) or not isinstance(request.get("messages"), list):
            return error_body(400, "the body must be a JSON object with a list `messages`")
        if request.get("model") not in (self.name, self.judge_id):
            return error_body(404, f"model {request.get('model')!r} is not served here; known: {self.name}")
        if not all(isinstance(message, dict) for message in request["messages"]):
            return error_body(400, "every message must be a JSON object")
        top = request.get("top_logprobs") or 0
        if not isinstance(top, int) or not 0 <= top <= 20:
            return error_body(400, f"top_logprobs must be an integer from 0 to 20, not {top!r}")
        try:
            asked = read_back(request["messages"])
        except ValueError as error:
            return error_body(400, str(error))
        with self._lock:
            content, logprobs = self._answer(asked, top if request.get("logprobs") else None)
            tokens_in = sum(self._backend.count(str(message.get("content", ""))) for message in request["messages"])
            tokens_out = 1 if asked.kind == "pairwise" else self._backend.count(content)
        choice: dict[str, Any] = {
            "index": 0,
            "finish_reason": "stop",
            "message": {"role": "assistant", "content": content, "refusal": None},
            "logprobs": logprobs,
        }
        return 200, {
            "id": "chatcmpl-" + content_id(self.name, request["messages"]),
            "object": "chat.completion",
            "created": int(time.time()),
            "model": self.name,
            "choices": [choice],
            "usage": {
                "prompt_tokens": tokens_in,
                "completion_tokens": tokens_out,
                "total_tokens": tokens_in + tokens_out,
            },
        }

    def _answer(self, asked: Asked, top: int | None) -> tuple[str, dict[str, Any] | None]:
        """The reply's text and, for a choice between labels, its log-probs with the `top` likeliest tokens."""
        if asked.kind == "arena":
            return arena_reply(self._backend, asked.question, *asked.answers), None
        if asked.kind == "rating":
            return rating_reply(self._backend, asked.question, *asked.answers), None
        values = log_probs(self._backend, asked.question, *asked.answers)
        ranked = [
            {"token": label, "logprob": value, "bytes": list(label.encode())}
            for value, label in sorted(zip(values, LABELS, strict=True), reverse=True)
        ]
        if top is None:
            return ranked[0]["token"], None
        return ranked[0]["token"], {"content": [{**ranked[0], "top_logprobs": ranked[:top]}], "refusal": None}


def error_body(status: int, message: str) -> tuple[int, dict[str, Any]]:
    """An error as the OpenAI protocol words it, with its HTTP status."""
    kind = "not_found_error" if status == 404 else "invalid_request_error" if status < 500 else "server_error"
    return status, {"error": {"message": message, "type": kind, "param": None, "code": None}}
