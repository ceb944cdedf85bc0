"""Answers of one policy to the held-out prompts, with the log-ratio to the model that its training started from."""

from pathlib import Path
from typing import Any

import pandas as pd
import torch

from marginbench.data.messages import plain_text
from marginbench.errors import UserError
from marginbench.generation.engine import Generated, Prompt, engine_facts, generate
from marginbench.generation.likelihood import answer_log_probs
from marginbench.identity import content_id
from marginbench.job import Progress, quiet
from marginbench.models.loading import load_model, load_tokenizer
from marginbench.models.manifest import Manifest, read_manifest
from marginbench.models.template import Format, encode_prompt
from marginbench.study import Decoding


def answer_questions(
    policy_manifest: str | Path,
    texts: pd.DataFrame,
    format: Format,
    decoding: Decoding,
    generation_id: str,
    bench: str,
    seed: int,
    n_prompts: int,
    progress: Progress = quiet,
) -> list[dict[str, Any]]:
    """One record for each sampled answer to the first `n_prompts` rows of role `eval`, in file order.

    `kl` is log policy - log reference on the sampled tokens, the end token included, at the decoding temperature, nats;
    its mean is an unbiased estimate of the KL divergence of the two distributions that are sampled from. It is 0 for a
    model that was trained from nothing here (the SFT start) and null when top_p < 1 or temperature 0, where it would
    not be that estimate. Raises UserError when there are fewer prompts than asked for.
    """
    rows = texts[texts["role"] == "eval"].head(n_prompts)
    if len(rows) < n_prompts:
        raise UserError(
            f"benchmark {bench} asks for {n_prompts} prompts, but the corpus keeps {len(rows)} for evaluation; "
            "lower benchmarks.*.prompts or raise eval_prompts"
        )
    manifest = read_manifest(policy_manifest)
    tokenizer = load_tokenizer(manifest)
    policy = _placed(load_model(manifest))
    if hasattr(policy, "merge_and_unload"):
        policy = policy.merge_and_unload()  # the same function without the adapter's extra products
    prompts = [
        Prompt(text_id, encode_prompt(tokenizer, messages, format))
        for text_id, messages in zip(rows["text_id"], rows["prompt"], strict=True)
    ]
    answers = generate(policy, tokenizer, prompts, decoding, seed, progress)
    repeated = [prompt for prompt in prompts for _ in range(decoding.samples_per_prompt)]
    kls = _kls(manifest, repeated, answers, decoding, tokenizer.pad_token_id, progress)
    prompt_texts = [text for text in map(plain_text, rows["prompt"]) for _ in range(decoding.samples_per_prompt)]
    settings, engine = decoding.model_dump(), engine_facts()
    return [
        {
            "answer_id": content_id(
                "answer", prompt.prompt_id, answer.text, settings, manifest.weights_hash, seed, answer.sample
            ),
            "question_id": prompt.prompt_id,
            "turn": 1,
            "bench": bench,
            "generation": generation_id,
            "prompt_text": prompt_text,
            "text": answer.text,
            "n_tokens": answer.n_tokens,
            "finish_reason": answer.finish_reason,
            "prompt_token_hash": content_id("tokens", [int(token) for token in prompt.token_ids]),
            "decoding": settings,
            "engine": engine,
            "seed": seed,
            "sample": answer.sample,
            "kl": kl,
        }
        for prompt, prompt_text, answer, kl in zip(repeated, prompt_texts, answers, kls, strict=True)
    ]


def _placed(model: Any) -> Any:
    return model.to("cuda") if torch.cuda.is_available() else model


def _kls(
    manifest: Manifest,
    prompts: list[Prompt],
    answers: list[Generated],
    decoding: Decoding,
    pad_id: int,
    progress: Progress,
) -> list[float | None]:
    if decoding.top_p < 1 or decoding.temperature == 0:
        return [None] * len(answers)
    if manifest.base is None:
        return [0.0] * len(answers)
    under_reference = answer_log_probs(
        _placed(load_model(manifest.base)),
        [prompt.token_ids for prompt in prompts],
        [answer.token_ids for answer in answers],
        pad_id=pad_id,
        temperature=decoding.temperature,
        progress=progress,
    )
    return [answer.log_prob - other for answer, other in zip(answers, under_reference, strict=True)]
