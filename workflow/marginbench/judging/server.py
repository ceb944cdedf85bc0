"""A local judge behind the OpenAI chat-completions protocol, on loopback only.

`http.server` from the standard library does: three routes, one model, a few thousand small requests, and a start in a
fraction of a second without importing a web framework (docs/decisions/0030-judging.md). Requests may overlap; the model
answers one at a time under a lock, so a verdict never depends on what else is in flight.
"""

import argparse
import contextlib
import ipaddress
import json
import os
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

from marginbench.errors import UserError
from marginbench.files import write_json
from marginbench.identity import PACKAGE_ROOT
from marginbench.judging.backends import BACKENDS
from marginbench.judging.chat import JudgeModel, error_body
from marginbench.judging.spec import JudgeSpec, judge_by_id, load_judges

JUDGES = PACKAGE_ROOT.parents[1] / "resources" / "judges.yaml"
OPTIONS = {"classifier": "--classifier", "causal_lm": "--model", "reward_model": "--model"}
"""Option of `judge serve` that names what a backend loads."""

MAX_BODY = 4 * 1024 * 1024
START_TIMEOUT_S = 180.0


class _Handler(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"
    disable_nagle_algorithm = True
    timeout = 120
    server: "JudgeServer"

    def log_message(self, format: str, *args: Any) -> None:
        """Say nothing: the log is for errors."""

    def _send(self, status: int, body: dict[str, Any]) -> None:
        data = json.dumps(body).encode()
        self.send_response(status)
        self.send_header("Content-Type", "application/json")
        self.send_header("Content-Length", str(len(data)))
        if status == 413:
            self.close_connection = True
        self.end_headers()
        with contextlib.suppress(BrokenPipeError, ConnectionResetError):
            self.wfile.write(data)

    def do_GET(self) -> None:
        """`/health` and `/v1/models`."""
        if self.path == "/health":
            self._send(200, {"status": "ok", "model": self.server.model.name})
        elif self.path == "/v1/models":
            entry = {"id": self.server.model.name, "object": "model", "created": 0, "owned_by": "marginbench"}
            self._send(200, {"object": "list", "data": [entry]})
        else:
            self._send(*error_body(404, f"no such path: {self.path}"))

    def do_POST(self) -> None:
        """`/v1/chat/completions`."""
        length = self.headers.get("Content-Length", "")
        if not length.isdigit() or int(length) > MAX_BODY:
            self._send(*error_body(413, f"Content-Length must be given and at most {MAX_BODY}"))
            return
        body = self.rfile.read(int(length))
        if self.path != "/v1/chat/completions":
            self._send(*error_body(404, f"no such path: {self.path}"))
            return
        try:
            request = json.loads(body)
        except ValueError as error:
            self._send(*error_body(400, f"the body is not JSON: {error}"))
            return
        try:
            answer = self.server.model.complete(request)
        except Exception as error:  # the server must outlive one bad request; the caller sees a 500 and may retry
            print(f"error: {type(error).__name__}: {error}", file=sys.stderr, flush=True)
            answer = error_body(500, f"{type(error).__name__}: {error}")
        self._send(*answer)


class JudgeServer(ThreadingHTTPServer):
    """HTTP server of one judge model."""

    daemon_threads = True
    request_queue_size = 256

    def __init__(self, model: JudgeModel, port: int = 0, host: str = "127.0.0.1") -> None:
        self.model = model
        super().__init__((check_loopback(host), port), _Handler)

    @property
    def base_url(self) -> str:
        """What a client is given."""
        return f"http://127.0.0.1:{self.server_address[1]}/v1"


def check_loopback(host: str) -> str:
    """The IPv4 loopback address; UserError for any other host: the server asks nobody for a key."""
    try:
        loopback = host == "localhost" or ipaddress.ip_address(host) == ipaddress.ip_address("127.0.0.1")
    except ValueError:
        loopback = False
    if not loopback:
        raise UserError(f"--host {host}: the judge server answers on loopback only; use 127.0.0.1")
    return "127.0.0.1"


def serve(model: JudgeModel, port: int = 0, host: str = "127.0.0.1") -> JudgeServer:
    """A server that listens already; call `serve_forever`. UserError when the port is taken."""
    try:
        return JudgeServer(model, port, host)
    except OSError as error:
        raise UserError(
            f"--port {port}: cannot listen ({error.strerror}); use another port, or 0 for a free one"
        ) from error


def _exit_with_parent(parent: int) -> None:
    """End this process when its parent has gone: a killed run must not leave its judge behind."""
    while os.getppid() == parent:
        time.sleep(0.5)
    os._exit(1)


def main(argv: list[str] | None = None) -> int:
    """`marginbench judge serve`: serve one judge until stopped; prints where it listens as one JSON line."""
    parser = argparse.ArgumentParser(prog="marginbench judge serve", description=main.__doc__)
    parser.add_argument("--judge", required=True, help="id in the judges file")
    parser.add_argument("--judges", default=str(JUDGES), help="judges file (default: resources/judges.yaml)")
    weights = parser.add_mutually_exclusive_group(required=True)
    weights.add_argument("--classifier", help="saved text classifier, for a `classifier` judge")
    weights.add_argument("--model", help="model manifest, for a `causal_lm` or `reward_model` judge")
    parser.add_argument("--host", default="127.0.0.1", help="loopback only")
    parser.add_argument("--port", type=int, default=0, help="0 takes a free one")
    parser.add_argument("--ready-file", help="written as JSON once the server answers")
    parser.add_argument("--parent-pid", type=int, help="stop when this parent process ends")
    given = parser.parse_args(argv)
    try:
        check_loopback(given.host)
        spec = judge_by_id(load_judges(given.judges), given.judge)
        option = OPTIONS.get(spec.backend or "")
        wanted = {"--classifier": given.classifier, "--model": given.model}.get(option or "")
        if wanted is None:
            raise UserError(f"judge `{spec.id}`: " + (f"needs {option}" if option else "is not a local_server judge"))
        if not Path(wanted).exists():
            raise UserError(f"judge `{spec.id}`: {wanted} does not exist")
        if given.parent_pid is not None:
            threading.Thread(target=_exit_with_parent, args=(given.parent_pid,), daemon=True).start()
        server = serve(JudgeModel(spec.id, BACKENDS[spec.backend](wanted), spec.prompt_sha256), given.port, given.host)
    except UserError as error:
        print(f"marginbench judge serve: error: {error}", file=sys.stderr)
        return 2
    ready = {"base_url": server.base_url, "model": server.model.name, "pid": os.getpid()}
    if given.ready_file:
        write_json(given.ready_file, ready)
    print(json.dumps(ready), flush=True)
    with contextlib.suppress(KeyboardInterrupt):
        server.serve_forever()
    return 0


@contextlib.contextmanager
def local_server(
    spec: JudgeSpec, weights: str | Path, log_path: str | Path, *, timeout_s: float = START_TIMEOUT_S
) -> Iterator[str]:
    """The judge server as a process of its own while the block runs; yields its base URL.

    `weights` is the saved classifier or the model manifest, as the judge's backend asks. The server is stopped when the
    block ends, however it ends, and stops by itself when this process is killed.
    Raises UserError with the last line of the server's log when it does not come up within `timeout_s` seconds.
    """
    if spec.kind != "local_server":
        raise UserError(f"judge `{spec.id}` is of kind {spec.kind}; only local_server judges are started here")
    log_path = Path(log_path)
    log_path.parent.mkdir(parents=True, exist_ok=True)
    option = OPTIONS[str(spec.backend)]
    with tempfile.TemporaryDirectory(prefix="marginbench-judge-") as folder, open(log_path, "wb") as log:
        ready, judges = Path(folder, "ready.json"), Path(folder, "judges.json")
        write_json(judges, {spec.id: spec.model_dump(mode="json", exclude={"id"})})  # JSON is YAML
        command = [sys.executable, "-m", "marginbench.judging.server", "--judge", spec.id, "--judges", str(judges)]
        command += [option, str(weights), "--ready-file", str(ready), "--parent-pid", str(os.getpid())]
        process = subprocess.Popen(command, stdin=subprocess.DEVNULL, stdout=log, stderr=subprocess.STDOUT)
        try:
            yield _wait_until_ready(spec, process, ready, log_path, timeout_s)
        finally:
            process.terminate()
            try:
                process.wait(timeout=5)
            except subprocess.TimeoutExpired:
                process.kill()
                process.wait()


def _wait_until_ready(
    spec: JudgeSpec, process: subprocess.Popen[bytes], ready: Path, log_path: Path, timeout_s: float
) -> str:
    deadline = time.monotonic() + timeout_s
    while not ready.is_file():
        ended = process.poll()
        if ended is not None or time.monotonic() > deadline:
            lines = log_path.read_text(encoding="utf-8", errors="replace").strip().splitlines()
            what = f"ended with code {ended}" if ended is not None else f"is not ready after {timeout_s:g} s"
            raise UserError(
                f"judge `{spec.id}`: its server {what}: {lines[-1] if lines else 'no output'} (log: {log_path})"
            )
        time.sleep(0.05)
    return str(json.loads(ready.read_text(encoding="utf-8"))["base_url"])


if __name__ == "__main__":
    sys.exit(main())
