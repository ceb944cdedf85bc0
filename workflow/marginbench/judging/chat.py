"""Chat completions of a local judge: a request in, an HTTP status and an OpenAI-shaped body out."""

import threading
import time
from typing import Any

from marginbench.identity import content_id
from marginbench.judging.backends import Backend, log_probs
from marginbench.judging.prompts import LABELS, read_back


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
            shown = read_back(request["messages"])
        except ValueError as error:
            return error_body(400, str(error))
        with self._lock:
            values = log_probs(self._backend, *shown)
            tokens_in = sum(self._backend.count(str(message.get("content", ""))) for message in request["messages"])
        ranked = [
            {"token": label, "logprob": value, "bytes": list(label.encode())}
            for value, label in sorted(zip(values, LABELS, strict=True), reverse=True)
        ]
        choice: dict[str, Any] = {
            "index": 0,
            "finish_reason": "stop",
            "message": {"role": "assistant", "content": ranked[0]["token"], "refusal": None},
            "logprobs": None,
        }
        if request.get("logprobs"):
            choice["logprobs"] = {"content": [{**ranked[0], "top_logprobs": ranked[:top]}], "refusal": None}
        return 200, {
            "id": "chatcmpl-" + content_id(self.name, request["messages"]),
            "object": "chat.completion",
            "created": int(time.time()),
            "model": self.name,
            "choices": [choice],
            "usage": {"prompt_tokens": tokens_in, "completion_tokens": 1, "total_tokens": tokens_in + 1},
        }


def error_body(status: int, message: str) -> tuple[int, dict[str, Any]]:
    """An error as the OpenAI protocol words it, with its HTTP status."""
    kind = "not_found_error" if status == 404 else "invalid_request_error" if status < 500 else "server_error"
    return status, {"error": {"message": message, "type": kind, "param": None, "code": None}}
