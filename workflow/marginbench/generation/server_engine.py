"""The server engine: answers from an OpenAI-compatible completions endpoint (vLLM), with the contract of engine.py.

Prompts go as token ids, so template and BOS stay ours; answers come back as token ids, and their text and end are read
by the same code as those of the transformers engine. Every request has a seed of its own, keyed by (prompt, sample,
seed). Whatever the server would take from a model's generation config (penalties, min-p) is set to nothing.
"""

import asyncio
import os
import time
from collections.abc import Sequence
from typing import Any
from urllib.parse import urlsplit

import openai
from transformers import PreTrainedTokenizerBase

from marginbench.errors import UserError
from marginbench.generation.engine import Generated, Prompt, finished
from marginbench.identity import seed_for
from marginbench.job import Progress, quiet
from marginbench.models.template import check_single_bos
from marginbench.study import Decoding, Server

KEY = "MARGINBENCH_SERVER_KEY"
"""Environment variable with the key of a server that asks for one; a server on loopback is never sent it."""
TIMEOUT_S, MAX_RETRIES = 600.0, 4
LOOPBACK = ("127.0.0.1", "localhost", "::1")


def generate_by_server(
    server: Server,
    name: str,
    tokenizer: PreTrainedTokenizerBase,
    stops: list[int],
    prompts: Sequence[Prompt],
    decoding: Decoding,
    seed: int,
    progress: Progress = quiet,
) -> tuple[list[Generated], dict[str, Any]]:
    """As `engine.generate`, and what answered: name and version of the server, served model.

    `log_prob` is the server's where it tells it and it can only be that of the sampled distribution: at temperature 1
    without truncation (vLLM tells log-probabilities before temperature, unless it is started otherwise).

    Args:
        server: where it is. name: the served model, which must be among those that it lists.
        tokenizer, stops: of the model; the server ends an answer at `stops`.

    Raises:
        UserError: the server is not there or serves another model; a request that failed for good, or a reply that is
            no whole answer to its prompt, named by prompt and sample.
    """
    for prompt in prompts:
        check_single_bos(prompt.token_ids, tokenizer)
    return asyncio.run(_generate(server, name, tokenizer, stops, prompts, decoding, seed, progress))


async def _generate(
    server: Server,
    name: str,
    tokenizer: PreTrainedTokenizerBase,
    stops: list[int],
    prompts: Sequence[Prompt],
    decoding: Decoding,
    seed: int,
    progress: Progress,
) -> tuple[list[Generated], dict[str, Any]]:
    settings: dict[str, Any] = {
        "model": name,
        "max_tokens": decoding.max_new_tokens,
        "temperature": decoding.temperature,
        "top_p": decoding.top_p,
        "presence_penalty": 0.0,
        "frequency_penalty": 0.0,
        "extra_body": {
            "top_k": decoding.top_k or -1,
            "min_p": 0.0,
            "repetition_penalty": 1.0,
            "stop_token_ids": stops,
            "return_token_ids": True,
        },
    }
    if _tells_log_prob(decoding):
        settings["logprobs"] = 1
    slots = asyncio.Semaphore(decoding.batch_size)
    start, made = time.monotonic(), 0

    async def answer(client: openai.AsyncOpenAI, prompt: Prompt, sample: int) -> Generated:
        async with slots:
            at = f"prompt `{prompt.prompt_id}`, sample {sample}: the server at {server.base_url}"
            try:
                reply = await client.completions.create(
                    prompt=list(prompt.token_ids),
                    seed=seed_for("sampling", prompt.prompt_id, sample, seed),
                    **settings,
                )
            except (openai.OpenAIError, ValueError) as error:
                raise UserError(f"{at} gave no answer ({_line(error)}); mend it and run again") from error
        token_ids, log_prob = _read(reply, prompt, name, decoding, stops, at)
        return finished(prompt.prompt_id, sample, token_ids, log_prob, stops, tokenizer)

    async with _client(server) as client:
        facts = await _facts(server, name, client)
        jobs = [(prompt, sample) for prompt in prompts for sample in range(decoding.samples_per_prompt)]
        tasks = [asyncio.ensure_future(answer(client, prompt, sample)) for prompt, sample in jobs]
        try:
            for done, task in enumerate(asyncio.as_completed(tasks), start=1):
                made += len((await task).token_ids)
                progress(done, len(tasks), f"{made / max(time.monotonic() - start, 1e-9):.0f} tok/s")
        finally:
            for task in tasks:
                task.cancel()
            await asyncio.gather(*tasks, return_exceptions=True)
        return [task.result() for task in tasks], facts


def _tells_log_prob(decoding: Decoding) -> bool:
    return decoding.exact and decoding.temperature == 1


def _client(server: Server) -> openai.AsyncOpenAI:
    local = urlsplit(server.base_url).hostname in LOOPBACK
    return openai.AsyncOpenAI(
        base_url=server.base_url,
        api_key="local" if local else os.environ.get(KEY) or "none",
        # A proxy from the environment must not come between us and loopback.
        http_client=openai.DefaultAsyncHttpxClient(trust_env=False) if local else None,
        timeout=TIMEOUT_S,
        max_retries=MAX_RETRIES,
    )


async def _facts(server: Server, name: str, client: openai.AsyncOpenAI) -> dict[str, Any]:
    """What answers, checked to serve the model. A server without `/version` (vLLM's) has the version null."""
    try:
        models = {model.id: model async for model in client.models.list()}
    except (openai.OpenAIError, ValueError) as error:
        raise UserError(
            f"the generation server at {server.base_url} does not answer ({_line(error)}); start it, or mend "
            "generations.*.server.base_url"
        ) from error
    if name not in models:
        raise UserError(
            f"the generation server at {server.base_url} serves {', '.join(models) or 'nothing'}, not `{name}`; start "
            "it with the policy's weights under that name (vLLM: --served-model-name or --lora-modules)"
        )
    address = urlsplit(server.base_url)
    try:
        found = await client.get(f"{address.scheme}://{address.netloc}/version", cast_to=object)
    except (openai.OpenAIError, ValueError):
        found = None
    version = found.get("version") if isinstance(found, dict) else None
    return {"name": "server", "server": models[name].owned_by, "version": version, "model": name}


def _read(
    reply: Any, prompt: Prompt, name: str, decoding: Decoding, stops: list[int], at: str
) -> tuple[list[int], float | None]:
    """Sampled tokens and their log-probability. Raises UserError for what is no whole answer to the prompt."""
    choices = getattr(reply, "choices", None)
    if not choices:
        raise UserError(f"{at} sent a reply without an answer; look into its log and run again")
    if reply.model != name:
        raise UserError(f"{at} answered with `{reply.model}` instead of `{name}`; serve the policy alone and run again")
    choice, usage = choices[0], getattr(reply, "usage", None)
    token_ids = getattr(choice, "token_ids", None)
    if not token_ids:
        raise UserError(f"{at} sent no token ids; use one that knows `return_token_ids` (vLLM from 0.10.2)")
    read = getattr(usage, "prompt_tokens", None)
    if read is not None and read != len(prompt.token_ids):
        raise UserError(f"{at} read {read} tokens, {len(prompt.token_ids)} were sent; let it change no prompt")
    made = getattr(usage, "completion_tokens", None)
    ended, full = token_ids[-1] in stops, len(token_ids) == decoding.max_new_tokens
    whole = {"stop": ended, "length": full}.get(choice.finish_reason, False)
    if not whole or made not in (None, len(token_ids)):
        raise UserError(
            f"{at} broke the answer off after {len(token_ids)} of {decoding.max_new_tokens} tokens (finish_reason "
            f"{choice.finish_reason}, {made} counted); raise its context length, or look into its log"
        )
    told = getattr(getattr(choice, "logprobs", None), "token_logprobs", None) if _tells_log_prob(decoding) else None
    if told is None or None in told:
        return list(token_ids), None
    if len(told) != len(token_ids):
        raise UserError(f"{at} sent {len(told)} log-probabilities for {len(token_ids)} tokens; use another server")
    return list(token_ids), float(sum(told))


def _line(error: Exception) -> str:
    return " ".join(str(error).split())[:300]
