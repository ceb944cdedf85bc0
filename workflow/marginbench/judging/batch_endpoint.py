"""The batch endpoint of an OpenAI-style server, and the folder that remembers what was sent to it."""

import json
import os
import time
from collections.abc import Collection, Container, Iterator, Mapping
from pathlib import Path
from typing import Any

import openai

from marginbench.errors import UserError
from marginbench.files import read_json, write_json
from marginbench.identity import content_id
from marginbench.judging.endpoint import Lost, address
from marginbench.judging.prompts import Messages
from marginbench.judging.spec import JudgeSpec

MAX_REQUESTS = 50_000
"""Requests of one file, at most (OpenAI's limit)."""

MAX_BYTES = 190_000_000
"""Bytes of one file, at most; OpenAI's limit is 200 MB."""

ENDED = ("completed", "failed", "expired", "cancelled")
"""Statuses of a batch that nothing follows."""

URL = "/v1/chat/completions"


class Batches:
    """The batch endpoint, and the folder that remembers what was sent to it."""

    def __init__(self, spec: JudgeSpec, base_url: str | None, folder: Path) -> None:
        self._spec, self._folder = spec, folder
        self._key = os.environ.get(spec.api_key_env, "")
        if not self._key:
            raise UserError(
                f"judge `{spec.id}`: the environment variable {spec.api_key_env} is not set; export the key"
            )
        self._client = openai.OpenAI(
            base_url=address(spec, base_url), api_key=self._key, timeout=spec.timeout_s, max_retries=spec.max_retries
        )

    def __enter__(self) -> "Batches":
        return self

    def __exit__(self, *exception: object) -> None:
        self._client.close()

    def of(self, todo: Container[str]) -> list[dict[str, Any]]:
        """Batches of earlier runs that hold some of these calls; one that was never created is dropped."""
        found = []
        for path in sorted(self._folder.glob("*.json")):
            batch = read_json(path)
            if not any(key in todo for key in batch["keys"]):
                continue
            if batch["id"] is None:
                batch["id"] = self._created(batch["token"])
                if batch["id"] is None:
                    path.unlink()
                    continue
                self._write(batch)
            found.append(batch)
        return found

    def submit(self, asked: Mapping[str, Messages]) -> list[dict[str, Any]]:
        """Send these calls in as few batches as the limits allow; each is remembered before it is created."""
        return [self._create(keys, data) for keys, data in _files(self._spec, asked)]

    def _create(self, keys: list[str], data: bytes) -> dict[str, Any]:
        # A second try of the same calls is another batch, so its token differs; nothing else depends on it.
        batch: dict[str, Any] = {"token": content_id(keys, time.time_ns()), "id": None, "keys": keys}
        self._write(batch)
        try:
            file = self._client.files.create(file=(f"{batch['token']}.jsonl", data), purpose="batch")
            # Never tried again by the client: a creation whose reply got lost would make a second batch.
            created = self._client.with_options(max_retries=0).batches.create(
                input_file_id=file.id,
                endpoint=URL,
                completion_window="24h",
                metadata={"marginbench": batch["token"]},
            )
            batch["id"] = created.id
        except openai.APIConnectionError as error:
            batch["id"] = self._created(batch["token"])
            if batch["id"] is None:
                raise self._refusal(error) from None
        except openai.OpenAIError as error:
            self._path(batch).unlink()  # the server said no, so there is no batch
            raise self._refusal(error) from None
        self._write(batch)
        return batch

    def _created(self, token: str) -> str | None:
        try:
            for batch in self._client.batches.list(limit=100):
                if (batch.metadata or {}).get("marginbench") == token:
                    return batch.id
        except openai.OpenAIError as error:
            raise self._refusal(error) from None
        return None

    def replies(self, batch: Mapping[str, Any]) -> dict[str, dict[str, Any] | Lost] | None:
        """Key -> body of a completion, or why there is none; None while the batch is pending."""
        try:
            found = self._client.batches.retrieve(batch["id"])
            if found.status not in ENDED:
                return None
            files = [name for name in (found.output_file_id, found.error_file_id) if name]
            texts = [self._client.files.content(name).text for name in files]
        except openai.OpenAIError as error:
            raise self._refusal(error) from None
        problems = "; ".join(str(problem.message) for problem in (found.errors.data if found.errors else None) or [])
        ended = Lost(f"its batch ended as {found.status}{': ' * bool(problems)}{self._hide(problems)}")
        replies: dict[str, dict[str, Any] | Lost] = dict.fromkeys(batch["keys"], ended)
        for line in "\n".join(texts).splitlines():
            try:
                result = json.loads(self._hide(line))
                replies[result["custom_id"]] = _reply(result)
            except (ValueError, KeyError, TypeError):
                continue  # a broken line belongs to nobody: its call keeps the reason that is there
        return replies

    def keep(self, batch: Mapping[str, Any], keys: Collection[str]) -> None:
        """Remember a batch for these calls only, of other runs; without any it is forgotten."""
        if keys:
            self._write({**batch, "keys": sorted(keys)})
        else:
            self._path(batch).unlink(missing_ok=True)

    def _path(self, batch: Mapping[str, Any]) -> Path:
        return self._folder / f"{batch['token']}.json"

    def _write(self, batch: Mapping[str, Any]) -> None:
        write_json(self._path(batch), batch)

    def _hide(self, text: str) -> str:
        return text.replace(self._key, "[key]")

    def _refusal(self, error: Exception) -> UserError:
        line = self._hide(" ".join(str(error).split()))[:300]
        return UserError(
            f"judge `{self._spec.id}`: the batch endpoint: {type(error).__name__}: {line}; run again to go on"
        )


def _files(spec: JudgeSpec, asked: Mapping[str, Messages]) -> Iterator[tuple[list[str], bytes]]:
    """Keys and content of each file, within both limits."""
    keys: list[str] = []
    lines: list[bytes] = []
    size = 0
    for key, messages in asked.items():
        body = {"model": spec.model, "messages": messages, **spec.request()}
        request = {"custom_id": key, "method": "POST", "url": URL, "body": body}
        line = json.dumps(request, ensure_ascii=False).encode() + b"\n"
        if keys and (len(keys) == MAX_REQUESTS or size + len(line) > MAX_BYTES):
            yield keys, b"".join(lines)
            keys, lines, size = [], [], 0
        keys.append(key)
        lines.append(line)
        size += len(line)
    if keys:
        yield keys, b"".join(lines)


def _reply(result: dict[str, Any]) -> dict[str, Any] | Lost:
    response = result.get("response") or {}
    body = response.get("body")
    if response.get("status_code") == 200 and isinstance(body, dict):
        return body
    error = result.get("error") or (body or {}).get("error") or {}
    return Lost(" ".join(f"{error.get('code') or response.get('status_code')}: {error.get('message')}".split())[:300])
