"""Where a judge answers: its address, its name and version in keys, and one request there with retries.

Retries are tenacity's around single requests of the `openai` client, not the client's own: each try has a time limit
of its own, a 200 that is no JSON is tried again too, waiting ends at once when the run stops, and full jitter spreads
64 waiting slots where the client's 25 % would not.
"""

import asyncio
import datetime
import email.utils
import json
import os
from typing import Any
from urllib.parse import urlsplit

import openai
import tenacity

from marginbench.errors import UserError
from marginbench.judging.prompts import Messages
from marginbench.judging.spec import JudgeSpec

LONGEST_WAIT_S = 300.0
"""A server that asks to be left alone for longer than this is not waited for: the call is lost for this run."""

REFUSED = (401, 402, 403, 404)
"""Statuses of a wrong key, an empty account or a wrong model name: asking again would change nothing."""

SHORTEST_SECRET = 12
"""A shorter key (`EMPTY`, as vLLM's examples have it) is a placeholder, and may be a word of a judge's text."""

_backoff = tenacity.wait_random_exponential(multiplier=1, max=60)


class Lost(Exception):
    """No completion. `transient`: asking again may bring one; `wait_s`: what the server's Retry-After asks for."""

    def __init__(self, reason: str, transient: bool = True, wait_s: float | None = None) -> None:
        super().__init__(reason)
        self.transient, self.wait_s = transient, wait_s

    @property
    def again(self) -> bool:
        """Whether it is worth another try in this run."""
        return self.transient and (self.wait_s or 0.0) <= LONGEST_WAIT_S


def address(spec: JudgeSpec, base_url: str | None) -> str:
    """The URL that is asked: the running local server's, the entry's, or the `openai` package's default."""
    if spec.kind == "local_server" and base_url is None:
        raise UserError(f"judge `{spec.id}`: a local_server judge is asked at the address of its running server")
    return base_url or spec.base_url or os.environ.get("OPENAI_BASE_URL") or "https://api.openai.com/v1"


def endpoint_name(spec: JudgeSpec, base_url: str | None) -> str:
    """The endpoint as it stands in keys: without a local server's port, and without anything secret in a URL."""
    if spec.kind == "local_server":
        return f"local_server:{spec.backend}"
    url = urlsplit(address(spec, base_url))
    return f"openai:{url.hostname}{'' if url.port is None else f':{url.port}'}{url.path.rstrip('/')}"


class Endpoint:
    """An open connection to a judge; use as `async with`. UserError where the key of a remote judge is missing."""

    def __init__(self, spec: JudgeSpec, base_url: str | None, stopped: asyncio.Event) -> None:
        self._spec, self._stopped, self._name = spec, stopped, endpoint_name(spec, base_url)
        if spec.kind == "local_server":
            # A proxy from the environment must not come between us and loopback, and no real key may reach it.
            http_client, self._secret, key = openai.DefaultAsyncHttpxClient(trust_env=False), "", "local"
        else:
            http_client, self._secret = None, os.environ.get(spec.api_key_env, "")
            key = self._secret
            if not key:
                raise UserError(
                    f"judge `{spec.id}`: the environment variable {spec.api_key_env} is not set; export the key"
                )
        self._client = openai.AsyncOpenAI(
            base_url=address(spec, base_url),
            api_key=key,
            http_client=http_client,
            timeout=spec.timeout_s,
            max_retries=0,
        )

    async def __aenter__(self) -> "Endpoint":
        return self

    async def __aexit__(self, *exception: object) -> None:
        await self._client.close()

    async def version(self) -> str:
        """The judge's version: the dated model name, or the name under which a local server answers."""
        if self._spec.kind == "openai":
            return model_version(self._spec)
        try:
            names = [model.id async for model in self._client.with_options(max_retries=2).models.list()]
        except openai.OpenAIError as error:
            raise UserError(
                f"judge `{self._spec.id}`: its server at {self._client.base_url} does not answer: {self._line(error)}"
            ) from error
        mine = [name for name in names if name.startswith(f"{self._spec.id}@")]
        if len(mine) != 1:
            served = ", ".join(names) or "nothing"
            raise UserError(f"judge `{self._spec.id}`: the server at {self._client.base_url} serves {served}")
        return mine[0]

    async def ask(self, model: str, messages: Messages) -> dict[str, Any]:
        """The body of a chat completion.

        Raises Lost where there is none after all tries, UserError where the judge refuses as such (key, model name).
        """
        retrying = tenacity.AsyncRetrying(
            retry=tenacity.retry_if_exception(lambda error: isinstance(error, Lost) and error.again),
            wait=_pause,
            stop=tenacity.stop_any(
                tenacity.stop_after_attempt(self._spec.max_retries + 1), lambda state: self._stopped.is_set()
            ),
            sleep=self._sleep,
            reraise=True,
        )
        return await retrying(self._once, model, messages)

    async def _once(self, model: str, messages: Messages) -> dict[str, Any]:
        spec = self._spec
        try:
            # The client's own limit is one between two bytes, which a trickling server never meets.
            async with asyncio.timeout(spec.timeout_s):
                # The package's call for any path: `completions.create` checks the types of every request again, and
                # reading replies into its models takes as long.
                reply = await self._client.post(
                    "/chat/completions", cast_to=str, body={"model": model, "messages": messages, **spec.request()}
                )
            body = json.loads(self._hide(reply))
        except openai.APIStatusError as error:
            line = self._line(error)
            if error.status_code in REFUSED or error.code == "insufficient_quota":
                raise UserError(f"judge `{spec.id}`: {self._name} refuses: {line}") from None
            transient = error.status_code in (408, 409, 429) or error.status_code >= 500
            raise Lost(f"{type(error).__name__}: {line}", transient, retry_after(error.response.headers)) from None
        except (TimeoutError, openai.APITimeoutError):
            raise Lost(f"no answer within {spec.timeout_s:g} s") from None
        except openai.APIConnectionError as error:
            raise Lost(f"{type(error).__name__}: {self._line(error.__cause__ or error)}") from None
        except openai.OpenAIError as error:
            raise Lost(f"{type(error).__name__}: {self._line(error)}", transient=False) from None
        except ValueError as error:
            raise Lost(f"the reply is not JSON ({self._line(error)})") from None
        if not isinstance(body, dict):
            raise Lost("the reply is not a JSON object")
        return body

    async def _sleep(self, seconds: float) -> None:
        try:
            await asyncio.wait_for(self._stopped.wait(), seconds)
        except TimeoutError:
            return

    def _hide(self, text: str) -> str:
        return text.replace(self._secret, "[key]") if len(self._secret) >= SHORTEST_SECRET else text

    def _line(self, error: BaseException) -> str:
        return self._hide(" ".join(str(error).split()))[:300]


def model_version(spec: JudgeSpec) -> str:
    """Version of a judge that is already there: its dated model name."""
    return f"{spec.model} ({spec.model_date})"


def retry_after(headers: Any) -> float | None:
    """Seconds that a reply asks to wait (`retry-after-ms`, `retry-after` in seconds or as a date), or None."""
    for name, unit in (("retry-after-ms", 1000.0), ("retry-after", 1.0)):
        value = headers.get(name)
        try:
            return max(0.0, float(value) / unit)
        except (TypeError, ValueError):
            continue
    try:
        then = email.utils.parsedate_to_datetime(headers.get("retry-after"))
        return max(0.0, (then - datetime.datetime.now(datetime.UTC)).total_seconds())
    except (TypeError, ValueError):
        return None


def _pause(state: tenacity.RetryCallState) -> float:
    """What the server asks for and up to a tenth more, else exponential with full jitter."""
    lost = state.outcome.exception() if state.outcome else None
    if isinstance(lost, Lost) and lost.wait_s is not None:
        return lost.wait_s + tenacity.wait_random(0.0, 0.1 + 0.1 * lost.wait_s)(state)
    return float(_backoff(state))
