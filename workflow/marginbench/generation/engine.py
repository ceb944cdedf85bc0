"""The transformers engine: batched sampling in which no answer depends on what else is in the batch.

`model.generate` draws from one global random stream, so an answer changes with batch size, order and neighbours. Here
every answer has a stream of its own, keyed by (prompt, sample, seed), with one uniform number for each position; the
token is read off the cumulative distribution. Policies that are asked the same prompts see the same random numbers,
which pairs their answers. What remains is float rounding: padding may move a logit by about 1e-6.
"""

import time
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any, Literal

import numpy as np
import torch
import transformers
from torch import Tensor
from transformers import DynamicCache, GenerationConfig, PreTrainedModel, PreTrainedTokenizerBase

from marginbench.identity import stream
from marginbench.job import Progress, quiet
from marginbench.models.template import check_single_bos, end_token_id
from marginbench.study import Decoding


@dataclass(frozen=True)
class Prompt:
    """A tokenised prompt; `prompt_id` keys its random streams."""

    prompt_id: str
    token_ids: Sequence[int]


@dataclass(frozen=True)
class Generated:
    """One answer. `token_ids` holds every sampled token, the end token included; `n_tokens` does not count it.

    `log_prob` is that of all sampled tokens under logits / temperature, nats, before top_k and top_p; None for greedy
    answers, and where a server does not tell it.
    """

    prompt_id: str
    sample: int
    token_ids: list[int]
    text: str
    n_tokens: int
    finish_reason: Literal["stop", "length"]
    log_prob: float | None = field(default=None, compare=False)  # rounding, which padding moves, makes no other answer


def stop_ids(config: GenerationConfig | None, tokenizer: PreTrainedTokenizerBase) -> list[int]:
    """Tokens that end an answer: the tokenizer's EOS, those of the generation config, the template's end of turn."""
    found = {tokenizer.eos_token_id, end_token_id(tokenizer, "chat")}
    configured = getattr(config, "eos_token_id", None)
    found.update(configured if isinstance(configured, list | tuple) else [configured])
    return sorted(token for token in found if token is not None)


def choose_tokens(
    logits: Tensor, uniforms: Tensor, temperature: float, top_p: float, top_k: int | None = None
) -> Tensor:
    """Next token of each row by inverting its cumulative distribution at the row's uniform number.

    logits (rows, vocabulary), uniforms (rows,) in [0, 1). Temperature 0 takes the most likely token. With top_k the k
    likeliest tokens are kept (Fan et al. 2018), and those that tie with the last of them, so that no order of the
    vocabulary decides. With top_p < 1 the smallest set of the kept tokens whose share of their mass reaches top_p stays
    (Holtzman et al. 2020). This order and the ties are transformers' and vLLM's.
    """
    if temperature == 0:
        return logits.argmax(-1)
    scaled = logits.float() / temperature
    if top_k is not None and top_k < scaled.shape[-1]:
        scaled = scaled.masked_fill(scaled < scaled.topk(top_k, dim=-1).values[:, -1:], float("-inf"))
    probabilities = torch.softmax(scaled, dim=-1)
    if top_p < 1:
        ordered, order = probabilities.sort(dim=-1, descending=True, stable=True)
        before = ordered.cumsum(-1) - ordered
        ordered = ordered.masked_fill(before >= top_p, 0.0)
        probabilities = torch.zeros_like(probabilities).scatter_(-1, order, ordered)
    # float64: a float32 sum over a large vocabulary loses the last tokens' mass to rounding.
    cumulative = probabilities.cumsum(-1, dtype=torch.float64)
    target = uniforms.double().to(cumulative.device)[:, None] * cumulative[:, -1:]
    # right=True: the first token whose cumulative mass exceeds the target, so tokens of zero mass are never taken.
    return torch.searchsorted(cumulative, target, right=True).squeeze(-1).clamp_(max=logits.shape[-1] - 1)


def token_log_probs(logits: Tensor, tokens: Tensor, temperature: float) -> Tensor:
    """Log-probability of a token under logits / temperature, nats, float32. logits (..., vocabulary), tokens (...)."""
    scaled = logits.float() / temperature
    return scaled.gather(-1, tokens[..., None]).squeeze(-1) - scaled.logsumexp(-1)


def _left_padded(prompts: list[Sequence[int]], pad_id: int, device: torch.device) -> tuple[Tensor, Tensor]:
    width = max(len(ids) for ids in prompts)
    tokens = [[pad_id] * (width - len(ids)) + list(ids) for ids in prompts]
    mask = [[0] * (width - len(ids)) + [1] * len(ids) for ids in prompts]
    return torch.tensor(tokens, device=device), torch.tensor(mask, device=device)


def _sample_batch(
    model: PreTrainedModel,
    prompts: list[Sequence[int]],
    noise: Tensor,
    decoding: Decoding,
    pad_id: int,
    stops: list[int],
) -> list[tuple[list[int], float | None]]:
    """Sampled tokens of each prompt, the end token included, with their log-probability; noise is (prompts, tokens)."""
    tokens, mask = _left_padded(prompts, pad_id, model.device)
    positions = (mask.cumsum(-1) - 1).clamp_(min=0)
    cache = DynamicCache(config=model.config)
    rows = torch.arange(len(prompts))
    answers: list[list[int]] = [[] for _ in prompts]
    totals = [0.0] * len(prompts)
    done: set[int] = set()
    for step in range(decoding.max_new_tokens):
        output = model(
            input_ids=tokens,
            attention_mask=mask,
            position_ids=positions,
            past_key_values=cache,
            use_cache=True,
            logits_to_keep=1,
        )
        logits = output.logits[:, -1]
        chosen = choose_tokens(logits, noise[rows, step], decoding.temperature, decoding.top_p, decoding.top_k)
        log_probs = token_log_probs(logits, chosen, decoding.temperature or 1.0)
        for row, token, log_prob in zip(rows.tolist(), chosen.tolist(), log_probs.tolist(), strict=True):
            if row not in done:
                answers[row].append(token)
                totals[row] += log_prob
                if token in stops:
                    done.add(row)
        alive = torch.tensor([row not in done for row in rows.tolist()])
        if not alive.any():
            break
        tokens, positions = chosen[:, None], positions[:, -1:] + 1
        mask = torch.cat([mask, mask.new_ones(len(mask), 1)], dim=-1)
        if alive.sum() <= len(rows) // 2:  # copying the cache pays only when many rows go
            keep = alive.nonzero().squeeze(-1)
            rows, keep = rows[keep], keep.to(mask.device)
            tokens, positions, mask = tokens[keep], positions[keep], mask[keep]
            cache.batch_select_indices(keep)
    return [(ids, total if decoding.temperature else None) for ids, total in zip(answers, totals, strict=True)]


@torch.inference_mode()
def generate(
    model: PreTrainedModel,
    tokenizer: PreTrainedTokenizerBase,
    prompts: Sequence[Prompt],
    decoding: Decoding,
    seed: int,
    progress: Progress = quiet,
) -> list[Generated]:
    """Answer every prompt `decoding.samples_per_prompt` times; returned in input order, samples of a prompt together.

    Longest prompts go first, so that a batch too large for the memory fails at once. Greedy answers (temperature 0)
    draw nothing. The model is left in the mode (train or eval) that it came in.
    """
    for prompt in prompts:
        check_single_bos(prompt.token_ids, tokenizer)
    jobs = [(prompt, sample) for prompt in prompts for sample in range(decoding.samples_per_prompt)]
    order = sorted(range(len(jobs)), key=lambda index: -len(jobs[index][0].token_ids))
    stops = stop_ids(model.generation_config, tokenizer)
    results: dict[int, Generated] = {}
    was_training = model.training
    model.eval()
    start, made = time.monotonic(), 0
    try:
        for first in range(0, len(order), decoding.batch_size):
            batch = order[first : first + decoding.batch_size]
            noise = np.stack(
                [
                    stream("sampling", jobs[index][0].prompt_id, jobs[index][1], seed).random(decoding.max_new_tokens)
                    for index in batch
                ]
            )
            sampled = _sample_batch(
                model,
                [jobs[index][0].token_ids for index in batch],
                torch.from_numpy(noise),
                decoding,
                tokenizer.pad_token_id,
                stops,
            )
            for index, (token_ids, log_prob) in zip(batch, sampled, strict=True):
                prompt, sample = jobs[index]
                results[index] = finished(prompt.prompt_id, sample, token_ids, log_prob, stops, tokenizer)
                made += len(token_ids)
            progress(len(results), len(jobs), f"{made / max(time.monotonic() - start, 1e-9):.0f} tok/s")
    finally:
        model.train(was_training)
    return [results[index] for index in range(len(jobs))]


def finished(
    prompt_id: str,
    sample: int,
    token_ids: list[int],
    log_prob: float | None,
    stops: list[int],
    tokenizer: PreTrainedTokenizerBase,
) -> Generated:
    """An answer from its sampled tokens, the end token included where there is one: text, length, finish reason."""
    ended = token_ids[-1] in stops
    body = token_ids[:-1] if ended else token_ids
    text = tokenizer.decode(body, skip_special_tokens=True, clean_up_tokenization_spaces=False)
    return Generated(prompt_id, sample, token_ids, text, len(body), "stop" if ended else "length", log_prob)


def engine_facts() -> dict[str, Any]:
    """Name and versions of the engine, as they are written beside every answer."""
    return {"name": "transformers", "version": transformers.__version__, "torch": torch.__version__.split("+")[0]}
