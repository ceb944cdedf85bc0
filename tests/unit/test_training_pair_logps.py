"""The forward: sums of the right log-probabilities over the right tokens."""

from pathlib import Path

import pytest
import torch
from marginbench.models.loading import load_model
from marginbench.models.lora import add_adapter
from marginbench.study import Lora
from marginbench.training.batches import PairCollator
from marginbench.training.pair_logps import pair_log_probs, prepare_log_probs

ROWS = [
    {"row": 0, "prompt_ids": [5, 6, 7], "chosen_ids": [8, 9], "rejected_ids": [10, 11, 12, 13]},
    {"row": 1, "prompt_ids": [20], "chosen_ids": [21, 22, 23], "rejected_ids": [24]},
]


def _by_hand(model: torch.nn.Module, prompt: list[int], answer: list[int]) -> torch.Tensor:
    """The same sum from plain logits of the one unpadded sequence."""
    ids = torch.tensor([prompt + answer])
    log_probs = model(input_ids=ids).logits[0].log_softmax(-1)
    return sum(log_probs[len(prompt) + i - 1, token] for i, token in enumerate(answer))


@pytest.mark.parametrize("adapter", [False, True])
def test_sums_equal_plain_logits(toy_model: Path, adapter: bool) -> None:
    model = load_model(toy_model)
    if adapter:
        model = add_adapter(model, Lora(rank=4, alpha=8), seed=1).eval()
        for name, parameter in model.named_parameters():
            if "lora_B" in name:
                parameter.data.normal_(std=0.05, generator=torch.Generator().manual_seed(0))
    with torch.no_grad():
        expected = [
            [_by_hand(model, row["prompt_ids"], row[side]) for row in ROWS] for side in ("chosen_ids", "rejected_ids")
        ]
        prepare_log_probs(model)
        prepare_log_probs(model)
        found = pair_log_probs(model, PairCollator(0).torch_call(ROWS))
    torch.testing.assert_close(found.chosen_logp, torch.stack(expected[0]), rtol=0, atol=1e-4)
    torch.testing.assert_close(found.rejected_logp, torch.stack(expected[1]), rtol=0, atol=1e-4)
    assert found.chosen_len.tolist() == [2, 3]
    assert found.rejected_len.tolist() == [4, 1]


def test_pad_token_does_not_matter(toy_model: Path) -> None:
    model = load_model(toy_model)
    prepare_log_probs(model)
    with torch.no_grad():
        a, b = (pair_log_probs(model, PairCollator(pad).torch_call(ROWS)) for pad in (0, 9))
    assert torch.equal(a.chosen_logp, b.chosen_logp)
    assert torch.equal(a.rejected_logp, b.rejected_logp)


def test_the_head_computes_nothing_but_log_probabilities(toy_model: Path) -> None:
    """Also after TRL has put its own head on, which measures entropy and more."""
    from trl.trainer.utils import add_fused_lm_head

    model = load_model(toy_model)
    add_fused_lm_head(model, outputs=("log_probs", "entropy", "mean_logits", "is_top1"))
    prepare_log_probs(model)
    ids = torch.tensor([[5, 6, 7, 8]])
    out = model(input_ids=ids, labels=ids, fused_lm_head=True)
    assert out.entropy is None
    assert out.is_top1 is None
    assert out.log_probs.shape == (1, 3)
