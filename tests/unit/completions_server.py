"""A completions server over a toy model, on loopback: what vLLM sends, and on demand what a broken server sends."""

import contextlib
import json
import threading
from collections.abc import Callable, Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

import torch
from marginbench.models.loading import load_model, load_tokenizer

Mangle = Callable[[dict[str, Any]], dict[str, Any]]


class ToyCompletions:
    """Answers by transformers' own `generate`.

    Attributes:
        name: the served model. bodies: requests in the order in which they came. keys: their Authorization headers.
        faults: what happens to the next requests, in turn: `500`, `cut`, `half`, or a change of the reply.
        told: whether log-probabilities are sent. most: the largest number of requests in flight at a time.
    """

    def __init__(self, manifest: Path, name: str, stops: list[int]) -> None:
        self.model, self.tokenizer, self.name, self.stops = load_model(manifest), load_tokenizer(manifest), name, stops
        self.bodies: list[dict[str, Any]] = []
        self.keys: list[str | None] = []
        self.faults: list[str | Mangle] = []
        self.told, self.flying, self.most = True, 0, 0
        self.lock, self.count = threading.Lock(), threading.Lock()

    @torch.inference_mode()
    def reply(self, body: dict[str, Any]) -> dict[str, Any]:
        """The body of an answer, as vLLM sends it."""
        ids = torch.tensor([body["prompt"]])
        sampling: dict[str, Any] = {"do_sample": False}
        if body["temperature"]:
            torch.manual_seed(body["seed"])
            truncation = {"top_k": max(body["top_k"], 0), "top_p": body["top_p"]}
            sampling = {"do_sample": True, "temperature": body["temperature"], **truncation}
        whole = self.model.generate(
            ids,
            attention_mask=torch.ones_like(ids),
            max_new_tokens=body["max_tokens"],
            eos_token_id=body["stop_token_ids"],
            pad_token_id=0,
            **sampling,
        )
        sampled = whole[0, ids.shape[1] :]
        raw = self.model(whole).logits[0, ids.shape[1] - 1 : -1].log_softmax(-1)
        choice = {
            "index": 0,
            "text": self.tokenizer.decode(sampled, skip_special_tokens=True),
            "finish_reason": "stop" if sampled[-1] in self.stops else "length",
            "token_ids": sampled.tolist(),
            "logprobs": None,
        }
        if body.get("logprobs") and self.told:
            values = raw.gather(-1, sampled[:, None])[:, 0].tolist()
            choice["logprobs"] = {"token_logprobs": values, "tokens": [str(token) for token in sampled.tolist()]}
        usage = {"prompt_tokens": ids.shape[1], "completion_tokens": len(sampled), "total_tokens": whole.shape[1]}
        return {
            "id": "x", "object": "text_completion", "created": 0, "model": body["model"], "choices": [choice],
            "usage": usage,
        }  # fmt: skip


def handler(toy: ToyCompletions) -> type[BaseHTTPRequestHandler]:
    """The routes: models, version, completions."""

    class Handler(BaseHTTPRequestHandler):
        def log_message(self, *_: Any) -> None:
            pass

        def send(self, status: int, body: dict[str, Any], length: int | None = None) -> None:
            data = json.dumps(body).encode()
            self.send_response(status)
            self.send_header("Content-Type", "application/json")
            self.send_header("Content-Length", str(len(data) if length is None else length))
            self.end_headers()
            self.wfile.write(data)

        def do_GET(self) -> None:
            if self.path == "/v1/models":
                model = {"id": toy.name, "object": "model", "created": 0, "owned_by": "toy"}
                return self.send(200, {"object": "list", "data": [model]})
            if self.path == "/version":
                return self.send(200, {"version": "1.2.3"})
            return self.send(404, {"error": "no such route"})

        def do_POST(self) -> None:
            body = json.loads(self.rfile.read(int(self.headers["Content-Length"])))
            with toy.count:
                toy.bodies.append(body)
                toy.keys.append(self.headers["Authorization"])
                toy.flying += 1
                toy.most = max(toy.most, toy.flying)
                fault = toy.faults.pop(0) if toy.faults else None
            with toy.lock:
                reply = {} if isinstance(fault, str) else toy.reply(body)
            if callable(fault):
                reply = fault(reply)
            with toy.count:
                toy.flying -= 1
            if fault == "500":
                return self.send(500, {"error": "out of breath"})
            if fault == "cut":
                return self.connection.close()
            if fault == "half":
                self.close_connection = True
                return self.send(200, {"id": "x"}, length=10_000)
            return self.send(200, reply)

    return Handler


@contextlib.contextmanager
def served(toy: ToyCompletions) -> Iterator[str]:
    """Base URL of a server on threads of its own."""
    server = ThreadingHTTPServer(("127.0.0.1", 0), handler(toy))
    thread = threading.Thread(target=server.serve_forever, args=(0.02,), daemon=True)
    thread.start()
    try:
        yield f"http://127.0.0.1:{server.server_port}/v1"
    finally:
        server.shutdown()
        server.server_close()
        thread.join()
