"""A causal model with a scalar head in place of its vocabulary: built, saved, loaded with every weight accounted for.

The library's own sequence classifier looks for the last token that is not the pad token. Where pad and end token are
one (SmolLM2), it reads an answer that ended one token too early. Here the last position of the attention mask is read.
"""

from collections.abc import Sequence
from typing import Any

import torch
from peft import PeftModel
from safetensors import safe_open
from torch import Tensor, nn
from transformers import AutoConfig, AutoModelForSequenceClassification, PreTrainedModel
from transformers.modeling_outputs import SequenceClassifierOutputWithPast

from marginbench.errors import UserError
from marginbench.job import Progress, quiet
from marginbench.models.loading import attach_adapter, check_loaded, hush
from marginbench.models.manifest import Manifest

HEAD = "score"


class MaskPooling:
    """Forward of a sequence classifier that reads the score at the last attended position of every row."""

    def forward(
        self, input_ids: Tensor, attention_mask: Tensor, use_cache: bool = False, **ignored: Any
    ) -> SequenceClassifierOutputWithPast:
        """Scores of shape (rows, 1); input_ids and attention_mask are (rows, positions), padded on either side."""
        hidden = getattr(self, self.base_model_prefix)(
            input_ids=input_ids, attention_mask=attention_mask, use_cache=False
        ).last_hidden_state
        positions = torch.arange(attention_mask.shape[1], device=attention_mask.device)
        last = (positions * attention_mask.long()).argmax(-1)
        pooled = hidden[torch.arange(len(hidden), device=hidden.device), last]
        return SequenceClassifierOutputWithPast(logits=self.score(pooled))


def _classifier(folder: object, missing: tuple[str, ...]) -> PreTrainedModel:
    hush()
    try:
        config = AutoConfig.from_pretrained(folder, local_files_only=True, num_labels=1)
        model, report = AutoModelForSequenceClassification.from_pretrained(
            folder,
            config=config,
            dtype=torch.float32,
            use_safetensors=True,
            local_files_only=True,
            output_loading_info=True,
            ignore_mismatched_sizes=True,
        )
    except (OSError, ValueError) as error:
        raise UserError(f"{folder}: no reward model can be built on it ({str(error).splitlines()[0]})") from error
    check_loaded(report, str(folder), allowed=missing)
    if not missing and report["unexpected_keys"]:
        left = sorted(report["unexpected_keys"])[0]
        raise UserError(f"{folder}: holds the weight {left}, for which the reward model has no place; train it again")
    if not isinstance(getattr(model, HEAD, None), nn.Linear):
        raise UserError(f"{folder}: {type(model).__name__} has no linear `{HEAD}` head; choose another architecture")
    model.__class__ = type(type(model).__name__, (MaskPooling, type(model)), {})
    return model


def new_reward_model(start: Manifest, seed: int) -> PreTrainedModel:
    """The start's body with a fresh scalar head, normal with deviation 1/sqrt(width + 1) (Stiennon et al. 2020).

    `seed` is a value of `identity.seed_for`; the global random state is left alone.
    """
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        model = _classifier(start.weights_dir, missing=(f"{HEAD}.weight",))
        head = getattr(model, HEAD)
        nn.init.normal_(head.weight, std=(head.in_features + 1) ** -0.5)
    return model


def load_reward_model(manifest: Manifest) -> PreTrainedModel | PeftModel:
    """A trained reward model in eval mode. Raises UserError when any weight of head or adapter is missing or left over.

    A head that silently stayed random gives margins that look like margins; so nothing here is allowed to be new.
    """
    if manifest.kind != "reward_model" or manifest.base is None:
        raise UserError(f"{manifest.path}: is a {manifest.kind}, not a reward model; give the reward model's manifest")
    if not (manifest.weights_dir / "adapter_config.json").is_file():
        return _classifier(manifest.weights_dir, missing=()).eval()
    file = manifest.weights_dir / "adapter_model.safetensors"
    with safe_open(file, "pt") as weights:
        if not any(name.endswith(f"{HEAD}.weight") for name in weights.keys()):  # noqa: SIM118 - not a mapping
            raise UserError(f"{file}: the reward head `{HEAD}.weight` is missing; train the reward model again")
    model = _classifier(manifest.base.weights_dir, missing=(f"{HEAD}.weight",))
    return attach_adapter(model, manifest)


@torch.inference_mode()
def reward_scores(
    model: PreTrainedModel | PeftModel,
    sequences: Sequence[Sequence[int]],
    pad_id: int,
    batch_size: int = 32,
    progress: Progress = quiet,
) -> list[float]:
    """Score of every token sequence (prompt + answer), in input order; batches are sorted by length."""
    order = sorted(range(len(sequences)), key=lambda row: -len(sequences[row]))
    scores = [0.0] * len(sequences)
    was_training = model.training
    model.eval()
    for first in range(0, len(order), batch_size):
        rows = order[first : first + batch_size]
        width = len(sequences[rows[0]])
        tokens = [list(sequences[row]) + [pad_id] * (width - len(sequences[row])) for row in rows]
        mask = [[1] * len(sequences[row]) + [0] * (width - len(sequences[row])) for row in rows]
        device = model.device
        output = model(
            input_ids=torch.tensor(tokens, device=device), attention_mask=torch.tensor(mask, device=device)
        ).logits
        for row, value in zip(rows, output.squeeze(-1).float().tolist(), strict=True):
            scores[row] = value
        progress(first + len(rows), len(order), "scored")
    model.train(was_training)
    return scores
