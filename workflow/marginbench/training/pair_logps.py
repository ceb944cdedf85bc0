"""The forward pass: a batch of pairs in, summed log-probabilities out. A function, so that a faster one can follow."""

from collections.abc import Mapping
from typing import NamedTuple

import torch
from peft import PeftModel
from torch import Tensor, nn
from transformers import PreTrainedModel
from trl.trainer.utils import add_fused_lm_head

_FUSED = "_marginbench_log_probs"


class PairLogps(NamedTuple):
    """Log-probabilities of the answers of a batch, all of shape (pairs,).

    Attributes:
        chosen_logp, rejected_logp: sums over the answer's tokens, nats.
        chosen_len, rejected_len: tokens that were summed over, at least 1.
    """

    chosen_logp: Tensor
    rejected_logp: Tensor
    chosen_len: Tensor
    rejected_len: Tensor


def prepare_log_probs(model: nn.Module) -> None:
    """Give a causal language model (or the base of a PeftModel) TRL's fused head, computing log-probabilities only.

    TRL's trainer asks the head for entropy, mean logit and arg-max of every position too, for its own log; each is one
    more pass over (tokens x vocabulary) numbers, so its head is taken off and put on again without them. The
    log-probabilities are the same, bit for bit (tests/parity). Calling twice changes nothing.
    """
    base = model.get_base_model() if isinstance(model, PeftModel) else model
    if getattr(base, _FUSED, False):
        return
    patched = base.__dict__.get("forward")
    if patched is not None and patched.__func__.__qualname__.startswith("add_fused_lm_head."):
        del base.forward
    add_fused_lm_head(base)
    setattr(base, _FUSED, True)


def pair_log_probs(model: nn.Module, batch: Mapping[str, Tensor]) -> PairLogps:
    """Summed log-probabilities of both answers of every pair.

    Args:
        model: a model that `prepare_log_probs` has been called on (wrapped or not).
        batch: `input_ids`, `attention_mask`, `completion_mask`, each (2 x pairs, length): the chosen answers' rows
            first, then the rejected ones'. The mask is 1 on the answer's tokens. `inputs_embeds`, where present, is
            what the model reads in place of `input_ids` (training.frozen).

    Returns:
        PairLogps with gradients where the model has them.
    """
    completion_mask = batch["completion_mask"]
    labels = batch["input_ids"].masked_fill(completion_mask == 0, -100)
    read = "inputs_embeds" if "inputs_embeds" in batch else "input_ids"
    if read == "inputs_embeds" and isinstance(model, PreTrainedModel | PeftModel):
        log_probs = _from_states(model, batch, labels)
    else:  # a model that shares its gradients with other processes must be called as a whole
        outputs = model(
            **{read: batch[read]},
            attention_mask=batch["attention_mask"],
            use_cache=False,
            labels=labels,
            fused_lm_head=True,
        )
        log_probs = outputs.log_probs
    chosen, rejected = log_probs.sum(dim=1).chunk(2, dim=0)
    chosen_len, rejected_len = completion_mask.sum(dim=1).clamp(min=1.0).chunk(2, dim=0)
    return PairLogps(chosen, rejected, chosen_len, rejected_len)


def _from_states(model: nn.Module, batch: Mapping[str, Tensor], labels: Tensor) -> Tensor:
    """Log-probability of every labelled position, (rows, positions - 1), zero elsewhere, from hidden states.

    The head is applied to the answers' positions only and its result kept for the backward pass, where TRL's fused
    head computes it again to save memory: here the batch is small, or its states would not have been kept.
    """
    causal = model.get_base_model() if isinstance(model, PeftModel) else model
    hidden = causal.base_model(
        inputs_embeds=batch["inputs_embeds"], attention_mask=batch["attention_mask"], use_cache=False
    ).last_hidden_state[:, :-1]
    wanted = labels[:, 1:]
    chosen = wanted != -100
    logits = causal.get_output_embeddings()(hidden[chosen]).float()
    found = -nn.functional.cross_entropy(logits, wanted[chosen], reduction="none")
    return torch.zeros(wanted.shape, dtype=found.dtype, device=found.device).masked_scatter(chosen, found)


def autocast(device: torch.device, precision: str) -> torch.autocast:
    """The precision of the matrix products: bf16 under autocast, or plain fp32."""
    return torch.autocast(device.type, dtype=torch.bfloat16, enabled=precision == "bf16")
