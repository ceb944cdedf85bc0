"""Steps, arguments and data order."""

import numpy as np
import pytest
import torch
from marginbench.errors import UserError
from marginbench.methods.base import Plan
from marginbench.study import Optimisation
from marginbench.training.batches import training_order
from marginbench.training.inputs import phases_of_steps
from marginbench.training.optimisation import optimiser_steps, phase_factors, schedule_factor, trainer_arguments
from transformers import get_scheduler
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


@pytest.mark.parametrize("schedule", ["constant", "linear", "cosine"])
@pytest.mark.parametrize("warmup", [0.0, 0.1, 0.34])
def test_schedule_is_that_of_transformers(schedule: str, warmup: float, tmp_path) -> None:
    opt = _opt(schedule=schedule, warmup_fraction=warmup, epochs=3)
    config = DPOConfig(**trainer_arguments(opt, n_examples=40, seed=0, output_dir=tmp_path))
    optimiser = torch.optim.SGD([torch.zeros(1, requires_grad=True)], lr=1.0)
    theirs = get_scheduler(
        config.lr_scheduler_type, optimiser, num_warmup_steps=config.warmup_steps, num_training_steps=config.max_steps
    )
    for step in range(config.max_steps):
        assert schedule_factor(opt, step, config.max_steps) == pytest.approx(theirs.get_last_lr()[0], abs=1e-12)
        optimiser.step()
        theirs.step()


def test_schedule_vector_of_mixdpo() -> None:
    """The released recipe: the mixed step is 335, the steps with hard pairs have 0.39 % of the summed learning rate."""
    opt = _opt(batch_size=160, micro_batch_size=160, schedule="cosine", warmup_fraction=0.1)
    order = np.arange(382 * 160)
    plan = Plan(phase=(np.arange(61_135) >= 61_135 - 7387).astype(int))
    phases = phases_of_steps(plan, order, 160)
    first = int(np.argmax(phases))
    assert (len(phases), first, int(phases.sum())) == (382, 335, 47)
    shared = [schedule_factor(opt, step, 382) for step in range(382)]
    assert shared[first] == pytest.approx(0.045617357, rel=1e-7)
    assert sum(shared[first:]) / sum(shared) == pytest.approx(0.003885256, rel=1e-6)
    own = phase_factors(opt, phases)
    assert own[:335] == [schedule_factor(opt, step, 335) for step in range(335)]
    assert own[335:] == [schedule_factor(opt, step, 47) for step in range(47)]
    assert max(own[335:]) == pytest.approx(1.0)
    assert phase_factors(opt, [0, 1, 0, 1]) == [schedule_factor(opt, i, 2) for i in (0, 0, 1, 1)]
    assert phases_of_steps(Plan(), order, 160) is None


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
