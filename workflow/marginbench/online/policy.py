"""The policy of an online run: one model with an adapter; its start is the same model with the adapter off."""

from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager

import numpy as np
import pandas as pd
import torch
from peft import PeftModel, get_peft_model_state_dict, set_peft_model_state_dict
from torch import Tensor

from marginbench.errors import UserError
from marginbench.generation.engine import Prompt, generate
from marginbench.generation.likelihood import answer_log_probs
from marginbench.identity import seed_for
from marginbench.models.loading import load_model, load_tokenizer
from marginbench.models.lora import add_adapter
from marginbench.models.manifest import Manifest
from marginbench.models.template import Format, encode_prompt
from marginbench.online.candidates import Candidate
from marginbench.study import Decoding, Lora, Optimisation


class Policy:
    """A start with a fresh adapter: samples, log-probabilities, embeddings, and the adapter's weights.

    Args:
        start: manifest of the start (kind `model`).
        opt: its tuning must be LoRA without dropout, so that a round leaves no random state behind.
        model_id, seed: what the adapter's initialisation depends on.
        prompts: TEXTS rows; every prompt that is asked is one of these.
        format: `plain` or `chat`.
        room: tokens that an answer may take.
    """

    def __init__(
        self,
        start: Manifest,
        opt: Optimisation,
        model_id: str,
        seed: int,
        prompts: pd.DataFrame,
        format: Format,
        room: int,
    ) -> None:
        if start.kind != "model":
            raise UserError(f"{start.path}: a policy is trained from a whole model, not from an {start.kind}")
        if not isinstance(opt.tuning, Lora) or opt.tuning.dropout:
            raise UserError("online: the reference is the start with the adapter off; use tuning lora with dropout 0")
        self.start, self.tokenizer = start, load_tokenizer(start)
        device = "cuda" if torch.cuda.is_available() else "cpu"
        self.initial_seed = seed_for("initialisation", model_id, seed)
        self.model: PeftModel = add_adapter(load_model(start), opt.tuning, self.initial_seed).to(device).eval()
        self.fresh = self.weights()
        self.batch_size = opt.micro_batch_size * 2
        self.prompts = {
            text_id: Prompt(text_id, encode_prompt(self.tokenizer, messages, format))
            for text_id, messages in zip(prompts["text_id"], prompts["prompt"], strict=True)
        }
        self.longest_prompt = opt.max_length - room

    def fits(self, prompt_id: str) -> bool:
        """Whether a prompt leaves room for an answer within `opt.max_length`, so that it can be trained on."""
        return len(self.prompts[prompt_id].token_ids) <= self.longest_prompt

    @property
    def causal(self) -> torch.nn.Module:
        """The language model with the adapter in its layers."""
        return self.model.get_base_model()

    @contextmanager
    def as_start(self) -> Iterator[None]:
        """The start's weights while the block runs."""
        with self.model.disable_adapter():
            yield

    def weights(self) -> dict[str, Tensor]:
        """A copy of the adapter's weights, by name, on the CPU."""
        found = get_peft_model_state_dict(self.model, save_embedding_layers=False)
        return {name: value.detach().cpu().clone() for name, value in found.items()}

    def set_weights(self, weights: Mapping[str, Tensor]) -> None:
        """Put weights of `weights()` back."""
        set_peft_model_state_dict(self.model, dict(weights))

    def reset(self) -> None:
        """Back to the start: the adapter as it was initialised."""
        self.set_weights(self.fresh)

    def generate(self, prompt_ids: Sequence[str], decoding: Decoding, key: str) -> list[Candidate]:
        """Answers to every prompt, samples of a prompt together; `key` names the streams."""
        asked = [self.prompts[prompt_id] for prompt_id in prompt_ids]
        found = generate(self.causal, self.tokenizer, asked, decoding, seed_for("online", key))
        return [
            Candidate(
                answer.prompt_id,
                answer.sample,
                answer.text,
                tuple(answer.token_ids),
                answer.finish_reason == "stop",
                answer.log_prob,
                key,
            )
            for answer in found
        ]

    def log_probs(self, candidates: Sequence[Candidate], reference: bool, temperature: float = 1.0) -> list[float]:
        """Log-probability of every candidate, end token included, under the policy or the start; nats."""
        prompts = [self.prompts[candidate.prompt_id].token_ids for candidate in candidates]
        answers = [candidate.token_ids for candidate in candidates]
        settings = {"pad_id": self.tokenizer.pad_token_id, "temperature": temperature, "batch_size": self.batch_size}
        if not reference:
            return answer_log_probs(self.causal, prompts, answers, **settings)
        with self.as_start():
            return answer_log_probs(self.causal, prompts, answers, **settings)

    @torch.inference_mode()
    def embed(self, prompt_ids: Sequence[str], candidates: Sequence[Candidate]) -> np.ndarray:
        """Mean hidden state of the start's last layer over prompt and answer, mean over a prompt's candidates.

        Shape (prompts, width). Without candidates the prompts alone are read. The start embeds, so that a text has one
        place in all rounds. One sequence at a time: a vector depends on its own text only.
        """
        texts = [(candidate.prompt_id, candidate.token_ids) for candidate in candidates]
        found: dict[str, list[np.ndarray]] = {}
        with self.as_start():
            for prompt_id, answer in texts or [(prompt_id, ()) for prompt_id in prompt_ids]:
                ids = torch.tensor([[*self.prompts[prompt_id].token_ids, *answer]], device=self.causal.device)
                states = self.causal.base_model(input_ids=ids, use_cache=False).last_hidden_state[0]
                found.setdefault(prompt_id, []).append(states.double().mean(0).cpu().numpy())
        return np.stack([np.mean(found[prompt_id], axis=0) for prompt_id in prompt_ids])
