"""What every kind of preference training logs of an optimiser step, under the same names."""

import torch

from marginbench.methods.base import PairBatch, PairLoss, log_ratio_margin
from marginbench.methods.registry import Method


@torch.no_grad()
def pair_quantities(method: Method, batch: PairBatch, result: PairLoss) -> dict[str, float]:
    """Means over the pairs of a batch: implicit reward margin (beta x nats) and accuracy, log-probabilities (nats), and
    what the method itself logs."""
    margin = log_ratio_margin(batch)
    values = {
        "reward_margin": getattr(method.params, "beta", 1.0) * margin,
        "reward_accuracy": (margin > 0).float(),
        "logp_chosen": batch.chosen_logp,
        "logp_rejected": batch.rejected_logp,
        **result.logs,
    }
    return {name: value.double().mean().item() for name, value in values.items()}
