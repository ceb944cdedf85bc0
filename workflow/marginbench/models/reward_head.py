"""A causal model with a scalar head in place of its vocabulary: built, saved, loaded with every weight accounted for.

The library's own sequence classifier looks for the last token that is not the pad token. Where pad and end token are
one (SmolLM2), it reads an answer that ended one token too early. Here the last position of the attention mask is read.
"""

from collections.abc import Sequence
from typing import Any

import pandas as pd
import torch
from peft import PeftModel
from safetensors import safe_open
from torch import Tensor, nn
from transformers import AutoConfig, AutoModelForSequenceClassification, PreTrainedModel, PreTrainedTokenizerBase
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


def head_from_words(
    model: PreTrainedModel,
    start: Manifest,
    tokenizer: PreTrainedTokenizerBase,
    better: Sequence[str],
    worse: Sequence[str],
) -> None:
    """Set the head to the mean output embedding of the better words minus that of the worse ones, in place.

    The score of a text is then how much likelier the start finds a better word than a worse one as the next token, in
    nats. With a few hundred noisy labels a random head learns nothing; this one begins with what the model knows.
    Raises UserError for a word that is not one token.
    """
    embedding = _output_embedding(model, start)

    def mean(words: Sequence[str]) -> Tensor:
        rows = []
        for word in words:
            ids = tokenizer.encode(word, add_special_tokens=False)
            if len(ids) != 1:
                raise UserError(
                    f"reward_model.head_words: `{word}` is {len(ids)} tokens of this tokenizer; choose a word of one "
                    "token (most need their leading space)"
                )
            rows.append(embedding[ids[0]])
        return torch.stack(rows).mean(0)

    with torch.no_grad():
        getattr(model, HEAD).weight.copy_((mean(better) - mean(worse)).unsqueeze(0))


def _output_embedding(model: PreTrainedModel, start: Manifest) -> Tensor:
    """The start's output embedding, (vocabulary, width); the input embedding where the two are tied."""
    for file in sorted(start.weights_dir.glob("*.safetensors")):
        with safe_open(file, "pt") as weights:
            if "lm_head.weight" in weights.keys():  # noqa: SIM118 - not a mapping
                return weights.get_tensor("lm_head.weight").float()
    return model.get_input_embeddings().weight.detach().float()


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


def reward_sequences(
    tokens: pd.DataFrame, side: str, max_length: int | None = None, cue_ids: Sequence[int] = ()
) -> list[list[int]]:
    """Prompt, answer and cue ids of one side ("chosen" or "rejected") of PAIR_TOKENS, in file order.

    At most `max_length` tokens: the answer is cut, never the cue.
    """
    room = None if max_length is None else max_length - len(cue_ids)
    if room is not None and room < 1:
        raise UserError(f"reward_model.cue fills max_length {max_length}; raise reward_model.max_length")
    return [
        [*map(int, prompt), *map(int, answer)][:room] + list(map(int, cue_ids))
        for prompt, answer in zip(tokens["prompt_ids"], tokens[f"{side}_ids"], strict=True)
    ]


@torch.inference_mode()
def reward_scores(
    model: PreTrainedModel | PeftModel,
    sequences: Sequence[Sequence[int]],
    pad_id: int,
    batch_size: int = 32,
    progress: Progress = quiet,
) -> list[float]:
    """Score of every token sequence (prompt + answer), in input order.

    Equal sequences are scored once (an answer may stand in several pairs); batches are sorted by length.
    """
    asked = [tuple(map(int, ids)) for ids in sequences]
    sequences = list(dict.fromkeys(asked))
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
    known = dict(zip(sequences, scores, strict=True))
    return [known[ids] for ids in asked]
