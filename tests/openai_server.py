"""A chat-completions server on loopback whose manners a test decides: bare asyncio, cheap enough for a benchmark.

As a process of its own: `python openai_server.py [--delay S] [--log FILE]` answers every request with the same verdict
after a fixed time, prints its port, and logs `bearer`, blank and the beginning of the last message when one arrives.
"""

import argparse
import asyncio
import contextlib
import json
import threading
from collections.abc import Callable, Iterator
from typing import Any, NamedTuple

MODEL = "judge-2026-11-01"


class Reply(NamedTuple):
    """What is sent back after `wait` seconds; `cut` closes the connection half-way, `trickle` sends byte by byte."""

    body: bytes
    status: int = 200
    headers: tuple[tuple[str, str], ...] = ()
    wait: float = 0.0
    cut: bool = False
    trickle: bool = False


Behave = Callable[[dict[str, Any], int], Reply]
"""`behave(request, n)`: the reply to the n-th request (from 0) with this body."""


def completion(text: str | None = "M", tops: dict[str, float] | None = None, **keys: Any) -> bytes:
    """A chat completion; `tops` are the top log-probs of its first token, `keys` overwrite parts of its choice."""
    model = keys.pop("model", MODEL)
    ranked = [{"token": token, "logprob": value, "bytes": None} for token, value in (tops or {}).items()]
    choice = {
        "index": 0,
        "finish_reason": "stop",
        "message": {"role": "assistant", "content": text, "refusal": None},
        "logprobs": {"content": [{**ranked[0], "top_logprobs": ranked}], "refusal": None} if ranked else None,
        **keys,
    }
    usage = {"prompt_tokens": 100, "completion_tokens": 1, "total_tokens": 101}
    body = {"id": "x", "object": "chat.completion", "created": 0, "model": model, "choices": [choice], "usage": usage}
    return json.dumps(body).encode()


GOOD = completion("M", {"M": -0.25, "m": -1.5})


class Server:
    """Counts requests by body; `seen` holds (bearer, request) in the order of arrival."""

    def __init__(self, behave: Behave, log: str | None = None) -> None:
        self._behave = behave
        self._counts: dict[bytes, int] = {}
        self._log = open(log, "a", buffering=1) if log else None  # noqa: SIM115 - open as long as the server
        self.seen: list[tuple[str, dict[str, Any]]] = []

    async def connection(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        """Answer the requests of one connection, one after the other."""
        try:
            while True:
                head = (await reader.readuntil(b"\r\n\r\n")).decode("latin-1")
                headers = dict(line.lower().split(": ", 1) for line in head.split("\r\n")[1:] if line)
                body = await reader.readexactly(int(headers.get("content-length", 0)))
                bearer = headers.get("authorization", "").removeprefix("bearer ")
                count = self._counts.get(body, 0)
                self._counts[body] = count + 1
                request = json.loads(body)
                if self._log:
                    self._log.write(f"{bearer} {request['messages'][-1]['content'][:40]}\n")
                else:
                    self.seen.append((bearer, request))
                reply = self._behave(request, count)
                await asyncio.sleep(reply.wait)
                lines = [f"HTTP/1.1 {reply.status} -", f"content-length: {len(reply.body)}"]
                lines += [f"{name}: {value}" for name, value in (("content-type", "application/json"), *reply.headers)]
                sent = reply.body[: len(reply.body) // 2] if reply.cut else reply.body
                writer.write("\r\n".join([*lines, "", ""]).encode() + (b"" if reply.trickle else sent))
                for byte in sent if reply.trickle else b"":
                    writer.write(bytes([byte]))
                    await asyncio.sleep(0.1)
                await writer.drain()
                if reply.cut:
                    return
        except (asyncio.IncompleteReadError, ConnectionError):
            return
        finally:
            writer.close()

    async def serve(self, ready: Callable[[int], None], port: int = 0) -> None:
        """Listen until cancelled."""
        server = await asyncio.start_server(self.connection, "127.0.0.1", port, backlog=512)
        ready(server.sockets[0].getsockname()[1])
        async with server:
            await server.serve_forever()


@contextlib.contextmanager
def serving(behave: Behave) -> Iterator[tuple[str, Server]]:
    """Base URL and server, on a thread of its own while the block runs."""
    server, up, where = Server(behave), threading.Event(), []
    loop = asyncio.new_event_loop()

    def ready(port: int) -> None:
        where.append(port)
        up.set()

    def work() -> None:
        with contextlib.suppress(asyncio.CancelledError):
            loop.run_until_complete(task)
        for left in asyncio.all_tasks(loop):
            left.cancel()
            with contextlib.suppress(asyncio.CancelledError):
                loop.run_until_complete(left)
        loop.close()

    task = loop.create_task(server.serve(ready))
    thread = threading.Thread(target=work, daemon=True)
    thread.start()
    up.wait(10)
    try:
        yield f"http://127.0.0.1:{where[0]}/v1", server
    finally:
        loop.call_soon_threadsafe(task.cancel)
        thread.join(10)


def main() -> None:
    parser = argparse.ArgumentParser(description=main.__doc__)
    parser.add_argument("--delay", type=float, default=0.05)
    parser.add_argument("--log")
    parser.add_argument("--port", type=int, default=0)
    given = parser.parse_args()
    reply = Reply(GOOD, wait=given.delay)
    server = Server(lambda request, n: reply, given.log)
    with contextlib.suppress(KeyboardInterrupt):
        asyncio.run(server.serve(lambda port: print(port, flush=True), given.port))


if __name__ == "__main__":
    main()
