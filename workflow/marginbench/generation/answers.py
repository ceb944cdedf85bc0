"""Answers of a policy, with the log-ratio to the model that its training started from: one record for each answer."""

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pandas as pd

from marginbench.data.messages import Messages, plain_text
from marginbench.errors import UserError
from marginbench.generation.engine import Prompt
from marginbench.generation.policy import Policy
from marginbench.identity import content_id
from marginbench.job import Progress, quiet
from marginbench.models.template import Format, encode_prompt
from marginbench.study import Decoding


@dataclass(frozen=True)
class Conversation:
    """What is answered: the messages so far, the last of them to be answered, in the question's turn (from 1)."""

    question_id: str
    messages: Messages
    turn: int = 1

    @property
    def prompt_id(self) -> str:
        """Key of the random streams; every turn draws its own."""
        return self.question_id if self.turn == 1 else f"{self.question_id}/turn{self.turn}"


def answer_conversations(
    policy: Policy,
    conversations: Sequence[Conversation],
    format: Format,
    decoding: Decoding,
    generation_id: str,
    bench: str,
    seed: int,
    progress: Progress = quiet,
) -> list[dict[str, Any]]:
    """One record for each sampled answer, conversations in their order, samples of a conversation together.

    A later turn is a call of its own, whose messages hold the answers to the turns before it. `kl` is
    `Policy.log_ratios` on the sampled tokens, the end token included: its mean is an unbiased estimate of the KL
    divergence of the two distributions that are sampled from. Raises ValueError for a turn that is asked twice.
    """
    if len({conversation.prompt_id for conversation in conversations}) < len(conversations):
        raise ValueError("a turn of a question is asked twice and would be answered from the same random numbers")
    prompts = [
        Prompt(conversation.prompt_id, encode_prompt(policy.tokenizer, conversation.messages, format))
        for conversation in conversations
    ]
    answers, engine = policy.generate(prompts, decoding, seed, progress)
    asked = [pair for pair in zip(conversations, prompts, strict=True) for _ in range(decoding.samples_per_prompt)]
    kls = policy.log_ratios([prompt for _, prompt in asked], answers, decoding, progress)
    # Who samples is told by `engine`; an address is no part of what an answer is.
    settings, weights = decoding.model_dump(exclude={"server"}), policy.manifest.weights_hash
    return [
        {
            "answer_id": content_id("answer", prompt.prompt_id, answer.text, settings, weights, seed, answer.sample),
            "question_id": conversation.question_id,
            "turn": conversation.turn,
            "bench": bench,
            "generation": generation_id,
            "prompt_text": plain_text(conversation.messages),
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
        for (conversation, prompt), answer, kl in zip(asked, answers, kls, strict=True)
    ]


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
    """Records of `answer_conversations` for the first `n_prompts` rows of role `eval`, in file order.

    Raises UserError when there are fewer prompts than asked for.
    """
    rows = texts[texts["role"] == "eval"].head(n_prompts)
    if len(rows) < n_prompts:
        raise UserError(
            f"benchmark {bench} asks for {n_prompts} prompts, but the corpus keeps {len(rows)} for evaluation; "
            "lower benchmarks.*.prompts or raise eval_prompts"
        )
    asked = [
        Conversation(text_id, list(messages)) for text_id, messages in zip(rows["text_id"], rows["prompt"], strict=True)
    ]
    policy = Policy(policy_manifest)
    return answer_conversations(policy, asked, format, decoding, generation_id, bench, seed, progress)
