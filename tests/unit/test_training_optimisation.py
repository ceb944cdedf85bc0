"""Steps, arguments and data order."""

import numpy as np
import pytest
import torch
from marginbench.errors import UserError
from marginbench.study import Optimisation
from marginbench.training.batches import training_order
from marginbench.training.optimisation import optimiser_steps, trainer_arguments
from trl import DPOConfig


def _opt(**changes: object) -> Optimisation:
    return Optimisation(**{"batch_size": 4, "micro_batch_size": 2, **changes})


@pytest.mark.parametrize(
    ("epochs", "n", "steps"),
    [(1, 8, 2), (1, 11, 2), (2, 11, 4), (0.5, 16, 2), (0.1, 8, 1), (0, 8, 0), (0, 1, 0), (1.5, 8, 3), (3, 4, 3)],
)
def test_steps(epochs: float, n: int, steps: int) -> None:
    assert optimiser_steps(_opt(epochs=epochs), n) == steps


def test_mixdpo_steps_of_ultrafeedback() -> None:
    """61,135 pairs in batches of 160: 382 steps, the last partial batch dropped (papers-mixdpo, section 3)."""
    assert optimiser_steps(_opt(batch_size=160, micro_batch_size=10), 61_135) == 382


def test_fewer_pairs_than_a_batch() -> None:
    with pytest.raises(UserError, match="batch_size 4 is more than the 3 examples"):
        optimiser_steps(_opt(), 3)


def test_arguments(tmp_path) -> None:
    opt = _opt(epochs=2, warmup_fraction=0.25, schedule="linear", learning_rate=2e-4)
    config = DPOConfig(**trainer_arguments(opt, n_examples=23, seed=7, output_dir=tmp_path, save_total_limit=2))
    assert (config.max_steps, config.warmup_steps, config.gradient_accumulation_steps) == (10, 3, 2)
    assert (config.bf16, config.fp16, config.gradient_checkpointing) == (False, False, False)
    assert config.use_cpu != torch.cuda.is_available()
    assert config.report_to == []
    assert config.save_total_limit == 2
    assert DPOConfig(**trainer_arguments(_opt(precision="bf16"), n_examples=8, seed=7, output_dir=tmp_path)).bf16


def test_order_depends_on_dataset_and_seed_only() -> None:
    opt = _opt(epochs=3)
    order = training_order(opt, range(11), "d", 0)
    assert order.shape == (24,)
    epochs = order.reshape(3, 8)
    for epoch in epochs:  # a pass: no pair twice, the partial batch dropped
        assert len(set(epoch.tolist())) == 8
    assert not np.array_equal(epochs[0], epochs[1])
    np.testing.assert_array_equal(order, training_order(opt, range(11), "d", 0))
    np.testing.assert_array_equal(order[:8], training_order(_opt(epochs=1), range(11), "d", 0))
    np.testing.assert_array_equal(order, training_order(_opt(epochs=3, micro_batch_size=4), range(11), "d", 0))
    assert not np.array_equal(order, training_order(opt, range(11), "d", 1))
    assert not np.array_equal(order, training_order(opt, range(11), "e", 0))


def test_a_fixed_order_is_repeated() -> None:
    order = training_order(_opt(epochs=2), [4, 2, 0, 3, 1], "d", 0, fixed=True)
    assert order.tolist() == [4, 2, 0, 3] * 2


def test_zero_epochs_train_nothing() -> None:
    assert training_order(_opt(epochs=0), range(3), "d", 0).tolist() == []
