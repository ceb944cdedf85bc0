"""Log-ratios of policy and reference on sampled answers: the estimate of the KL divergence that costs no sampling."""

from collections.abc import Sequence
from contextlib import nullcontext

import torch
from peft import PeftModel
from torch import Tensor
from transformers import PreTrainedModel

from marginbench.errors import UserError
from marginbench.job import Progress, quiet

Model = PreTrainedModel | PeftModel


def answer_log_probs(
    model: Model, prompts: Sequence[Sequence[int]], answers: Sequence[Sequence[int]], pad_id: int, temperature: float
) -> Tensor:
    """Summed log-probability of each answer after its prompt under logits / temperature, nats, float64, (rows,).

    Prompts are padded on the left and answers on the right, so that one slice of the logits covers all answers.
    """
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
    targets, counted = tokens[:, before:], mask[:, before:].bool()
    scaled = logits.float() / temperature
    chosen = scaled.gather(-1, targets[..., None]).squeeze(-1) - scaled.logsumexp(-1)
    return chosen.double().masked_fill(~counted, 0.0).sum(-1).cpu()


@torch.inference_mode()
def log_ratios(
    policy: Model,
    reference: Model | None,
    prompts: Sequence[Sequence[int]],
    answers: Sequence[Sequence[int]],
    *,
    pad_id: int,
    temperature: float,
    batch_size: int = 16,
    progress: Progress = quiet,
) -> list[float]:
    """log policy(answer | prompt) - log reference(answer | prompt) at the decoding temperature, nats, for each row.

    Answers must have been sampled from the policy at this temperature, all of the distribution kept (top_p 1): then the
    mean is an unbiased estimate of the sequence KL between the two distributions that are sampled from, the end token
    included. With `reference` None the policy must be a PeftModel, whose reference is itself without its adapter.
    """
    if temperature <= 0:
        raise ValueError("a log-ratio at temperature 0 is not defined")
    if reference is None and not isinstance(policy, PeftModel):
        raise UserError("the policy has no adapter to switch off; give the model it was trained from as reference")
    order = sorted(range(len(prompts)), key=lambda row: -(len(prompts[row]) + len(answers[row])))
    ratios = [0.0] * len(prompts)
    for first in range(0, len(order), batch_size):
        rows = order[first : first + batch_size]
        batch = ([prompts[row] for row in rows], [answers[row] for row in rows], pad_id, temperature)
        trained = answer_log_probs(policy, *batch)
        with policy.disable_adapter() if reference is None else nullcontext():
            start = answer_log_probs(policy if reference is None else reference, *batch)
        for row, value in zip(rows, (trained - start).tolist(), strict=True):
            ratios[row] = value
        progress(first + len(rows), len(order), "log-ratios")
    return ratios
