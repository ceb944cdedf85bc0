"""A batch endpoint on loopback: files, batches, and what a test tells it to answer."""

import json
import socket
import threading
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from urllib.parse import urlsplit


class FakeBatches(ThreadingHTTPServer):
    """`answer(request, n)` -> result fields of the n-th time a custom_id is asked; `finish()` ends what is pending."""

    daemon_threads = True

    def __init__(self, answer, status="completed"):
        super().__init__(("127.0.0.1", 0), _Handler)
        self.answer, self.status, self.hold = answer, status, True
        self.files, self.batches, self.asked, self.drop_created = {}, {}, {}, False
        threading.Thread(target=self.serve_forever, args=(0.02,), daemon=True).start()

    @property
    def base_url(self):
        return f"http://127.0.0.1:{self.server_address[1]}/v1"

    def create(self, body):
        name = f"batch_{len(self.batches)}"
        self.batches[name] = {
            **{"id": name, "object": "batch", "created_at": 0, "status": "in_progress", **body},
            **{"output_file_id": None, "error_file_id": None},
        }
        if not self.hold:
            self.finish()
        return self.batches[name]

    def finish(self):
        for name, batch in self.batches.items():
            if batch["status"] != "in_progress":
                continue
            output, errors = [], []
            for line in self.files[batch["input_file_id"]].splitlines():
                request = json.loads(line)
                key = request["custom_id"]
                self.asked[key] = self.asked.get(key, 0) + 1
                result = self.answer(request, self.asked[key])
                if result is not None:
                    (errors if result.get("error") else output).append(json.dumps({"custom_id": key, **result}))
            for kind, lines in (("output_file_id", output), ("error_file_id", errors)):
                if lines:
                    batch[kind] = f"{kind}_{name}"
                    self.files[batch[kind]] = "\n".join(reversed(lines)) + "\n"
            batch["status"] = self.status


class _Handler(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"
    server: FakeBatches

    def log_message(self, *args):
        pass

    def _send(self, body, status=200):
        data = body.encode() if isinstance(body, str) else json.dumps(body).encode()
        self.send_response(status)
        self.send_header("Content-Type", "application/json")
        self.send_header("Content-Length", str(len(data)))
        self.end_headers()
        self.wfile.write(data)

    def do_GET(self):
        parts = urlsplit(self.path).path.removeprefix("/v1/").split("/")
        if parts[0] == "files":
            self._send(self.server.files[parts[1]])
        elif len(parts) == 1:
            self._send({"object": "list", "data": list(self.server.batches.values())[::-1], "has_more": False})
        else:
            self._send(self.server.batches[parts[1]])

    def do_POST(self):
        body = self.rfile.read(int(self.headers["Content-Length"]))
        if self.headers["Authorization"] != "Bearer sk-canary":
            self._send({"error": {"message": f"bad key {self.headers['Authorization']}"}}, 401)
        elif self.path == "/v1/files":
            text = body[body.index(b'{"custom_id"') : body.rindex(b"}\n") + 1].decode()
            name = f"file_{len(self.server.files)}"
            self.server.files[name] = text
            self._send({"id": name, "object": "file", "purpose": "batch", "bytes": len(text), "filename": "x"})
        else:
            created = self.server.create(json.loads(body))
            if self.server.drop_created:
                self.server.drop_created = False
                self.close_connection = True
                self.connection.shutdown(socket.SHUT_RDWR)
                return
            self._send(created)


def completion(content, model="gpt-5.1-2025-11-13", logprobs=None):
    """A result whose request was answered with this text."""
    choice = {"index": 0, "finish_reason": "stop", "message": {"role": "assistant", "content": content}}
    body = {"id": "c", "object": "chat.completion", "model": model, "choices": [{**choice, "logprobs": logprobs}]}
    return {"response": {"status_code": 200, "body": {**body, "usage": {"prompt_tokens": 100, "completion_tokens": 2}}}}
