"""A policy that answers: the weights of a manifest, sampled in this process or by a server that has them."""

from functools import cached_property
from pathlib import Path
from typing import Any

import torch
from transformers import AutoConfig, GenerationConfig, PreTrainedModel

from marginbench.generation.engine import Generated, Prompt, engine_facts, generate, stop_ids
from marginbench.generation.likelihood import answer_log_probs
from marginbench.generation.server_engine import generate_by_server
from marginbench.job import Progress, quiet
from marginbench.models.loading import load_model, load_tokenizer
from marginbench.models.manifest import Manifest, read_manifest, tokenizer_dir
from marginbench.study import Decoding


class Policy:
    """The model of a manifest, loaded when it is first needed: a server that samples needs it for nothing but KL.

    Attributes:
        manifest, tokenizer: of the policy.
    """

    def __init__(self, manifest: str | Path) -> None:
        self.manifest = read_manifest(manifest)
        self.tokenizer = load_tokenizer(self.manifest)

    @cached_property
    def model(self) -> PreTrainedModel:
        """The policy's model with its adapter merged: the same function without the adapter's extra products."""
        model = _placed(self.manifest)
        return model.merge_and_unload() if hasattr(model, "merge_and_unload") else model

    def generate(
        self, prompts: list[Prompt], decoding: Decoding, seed: int, progress: Progress = quiet
    ) -> tuple[list[Generated], dict[str, Any]]:
        """Answers in input order, samples of a prompt together, and name and version of what sampled them."""
        if decoding.server is None:
            return generate(self.model, self.tokenizer, prompts, decoding, seed, progress), engine_facts()
        name = decoding.server.model.replace("{weights_hash}", self.manifest.weights_hash)
        stops = stop_ids(_generation_config(tokenizer_dir(self.manifest)), self.tokenizer)
        return generate_by_server(decoding.server, name, self.tokenizer, stops, prompts, decoding, seed, progress)

    def log_ratios(
        self, prompts: list[Prompt], answers: list[Generated], decoding: Decoding, progress: Progress = quiet
    ) -> list[float | None]:
        """log policy - log start of every answer's sampled tokens at the decoding temperature, nats.

        0 for a model that was trained from nothing here; None where answers were not sampled from the whole softened
        distribution, so that the mean would be no KL. Where the engine told no log-probability, the policy's weights
        are asked in this process.
        """
        if not decoding.exact:
            return [None] * len(answers)
        if self.manifest.base is None:
            return [0.0] * len(answers)
        own = [answer.log_prob for answer in answers]
        if None in own:
            own = self._log_probs(self.model, prompts, answers, decoding, progress)
        start = self._log_probs(_placed(self.manifest.base), prompts, answers, decoding, progress)
        return [one - other for one, other in zip(own, start, strict=True)]

    def _log_probs(
        self,
        model: PreTrainedModel,
        prompts: list[Prompt],
        answers: list[Generated],
        decoding: Decoding,
        progress: Progress,
    ) -> list[float]:
        return answer_log_probs(
            model,
            [prompt.token_ids for prompt in prompts],
            [answer.token_ids for answer in answers],
            pad_id=self.tokenizer.pad_token_id,
            temperature=decoding.temperature,
            progress=progress,
        )


def _placed(manifest: Manifest) -> Any:
    model = load_model(manifest)
    return model.to("cuda") if torch.cuda.is_available() else model


def _generation_config(folder: Path) -> GenerationConfig:
    """That of a model folder, as transformers finds it when it loads the model."""
    try:
        return GenerationConfig.from_pretrained(folder, local_files_only=True)
    except OSError:
        return GenerationConfig.from_model_config(AutoConfig.from_pretrained(folder, local_files_only=True))
