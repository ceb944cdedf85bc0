"""Log-probabilities of given answers: the reference's side of the KL estimate that costs no sampling of its own."""

from collections.abc import Sequence

import torch
from torch import Tensor
from transformers import PreTrainedModel

from marginbench.generation.engine import token_log_probs
from marginbench.job import Progress, quiet


def _batch_log_probs(
    model: PreTrainedModel,
    prompts: Sequence[Sequence[int]],
    answers: Sequence[Sequence[int]],
    pad_id: int,
    temperature: float,
) -> Tensor:
    """Prompts are padded on the left and answers on the right, so that one slice of the logits covers all answers."""
    before, after = max(map(len, prompts)), max(map(len, answers))
    tokens = torch.full((len(prompts), before + after), pad_id)
    mask = torch.zeros_like(tokens)
    for row, (prompt, answer) in enumerate(zip(prompts, answers, strict=True)):
        tokens[row, before - len(prompt) : before + len(answer)] = torch.tensor([*prompt, *answer])
        mask[row, before - len(prompt) : before + len(answer)] = 1
    tokens, mask = tokens.to(model.device), mask.to(model.device)
    positions = (mask.cumsum(-1) - 1).clamp_(min=0)
    logits = model(
        input_ids=tokens, attention_mask=mask, position_ids=positions, use_cache=False, logits_to_keep=after + 1
    ).logits[:, -after - 1 : -1]
    chosen = token_log_probs(logits, tokens[:, before:], temperature)
    return chosen.double().masked_fill(~mask[:, before:].bool(), 0.0).sum(-1).cpu()


@torch.inference_mode()
def answer_log_probs(
    model: PreTrainedModel,
    prompts: Sequence[Sequence[int]],
    answers: Sequence[Sequence[int]],
    *,
    pad_id: int,
    temperature: float,
    batch_size: int = 16,
    progress: Progress = quiet,
) -> list[float]:
    """Summed log-probability of every answer after its prompt under logits / temperature, nats, for each row.

    All tokens of an answer count, its end token included. Raises ValueError at temperature 0, where there is none.
    """
    if temperature <= 0:
        raise ValueError("a log-probability at temperature 0 is not defined")
    order = sorted(range(len(prompts)), key=lambda row: -(len(prompts[row]) + len(answers[row])))
    found = [0.0] * len(prompts)
    for first in range(0, len(order), batch_size):
        rows = order[first : first + batch_size]
        values = _batch_log_probs(
            model, [prompts[row] for row in rows], [answers[row] for row in rows], pad_id, temperature
        )
        for row, value in zip(rows, values.tolist(), strict=True):
            found[row] = value
        progress(first + len(rows), len(order), "log-ratios")
    return found
