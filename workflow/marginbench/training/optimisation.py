"""From a study's optimiser settings to the trainer's arguments: one place for every kind of training."""

import math
import os
from collections import Counter
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch

from marginbench.errors import UserError
from marginbench.study import Optimisation


def steps_per_epoch(opt: Optimisation, n_examples: int) -> int:
    """Optimiser steps in one pass: full batches only, the last partial one is dropped.

    A partial batch would be a step of another size, and batch statistics would differ from step to step. Never is
    everything dropped: fewer examples than one batch is a UserError.
    """
    steps = n_examples // opt.batch_size
    if steps == 0:
        raise UserError(
            f"training: batch_size {opt.batch_size} is more than the {n_examples} examples there are; "
            f"set batch_size to at most {max(n_examples, 1)}, or make more pairs"
        )
    return steps


def optimiser_steps(opt: Optimisation, n_examples: int) -> int:
    """Optimiser steps of a whole run: floor(epochs x full batches per pass), at least 1 unless epochs is 0."""
    if opt.epochs == 0:
        return 0
    return max(1, math.floor(opt.epochs * steps_per_epoch(opt, n_examples) + 1e-9))


def processes() -> int:
    """Processes that train together: what accelerate or torchrun started, else 1."""
    return int(os.environ.get("WORLD_SIZE", "1"))


def process_index() -> int:
    """Number of this process, from 0; only number 0 writes files."""
    return int(os.environ.get("RANK", "0"))


def accumulation_steps(opt: Optimisation, count: int) -> int:
    """Micro-batches of each of `count` processes in an optimiser step.

    Processes x micro-batches x their size = batch_size, always: hardware changes no batch. UserError where it can't.
    """
    steps, left = divmod(opt.batch_size, opt.micro_batch_size * count)
    if left:
        share = opt.batch_size // count
        mend = (
            f"set micro_batch_size to a divisor of {share}"
            if opt.batch_size % count == 0
            else f"choose a number of processes that divides {opt.batch_size}"
        )
        raise UserError(
            f"training: {count} processes with micro_batch_size {opt.micro_batch_size} do not make up "
            f"batch_size {opt.batch_size}; {mend}"
        )
    return steps


def schedule_factor(opt: Optimisation, step: int, steps: int) -> float:
    """Learning rate at a step (from 0) as a share of the peak: linear warm-up, then the schedule's shape.

    The same numbers as `transformers`' schedulers give (tests/unit/test_training_optimisation.py).
    """
    warmup = math.ceil(opt.warmup_fraction * steps)
    if step < warmup:
        return step / max(1, warmup)
    progress = (step - warmup) / max(1, steps - warmup)
    if opt.schedule == "constant":
        return 1.0
    if opt.schedule == "linear":
        return max(0.0, 1.0 - progress)
    return max(0.0, 0.5 * (1.0 + math.cos(math.pi * progress)))


def phase_factors(opt: Optimisation, phases: Sequence[int] | np.ndarray) -> list[float]:
    """Learning rate of every optimiser step as a share of the peak, every phase with a schedule of its own.

    Args:
        phases: number of the phase of every step, shape (steps,). The steps of a phase need not be next to each other.
    """
    phases = [int(phase) for phase in phases]
    total, done = Counter(phases), Counter()
    factors = []
    for phase in phases:
        factors.append(schedule_factor(opt, done[phase], total[phase]))
        done[phase] += 1
    return factors


def trainer_arguments(
    opt: Optimisation, *, n_examples: int, seed: int, output_dir: str | Path, shared: bool = False, **extra: Any
) -> dict[str, Any]:
    """Keyword arguments for `transformers.TrainingArguments` and its TRL subclasses.

    Args:
        opt: the study's settings.
        n_examples: examples (or pairs) in one pass.
        seed: seed of the trainer's own randomness (dropout); data order and initialisation have their own streams.
        output_dir: where checkpoints go.
        shared: whether this kind of training can be shared out among processes; else several are a UserError.
        extra: further arguments; they win.

    The number of steps is fixed (`max_steps`) by `optimiser_steps`. The CPU is used only where no GPU is visible. bf16,
    gradient checkpointing and reporting to services are off unless asked for. Every step is logged, and a loss that is
    not finite is shown as it is.
    """
    if processes() > 1 and not shared:
        raise UserError(
            f"training: started as {processes()} processes (WORLD_SIZE), but only policies can be trained by several; "
            "start it without a launcher"
        )
    steps = optimiser_steps(opt, n_examples)
    on_gpu = torch.cuda.is_available()
    schedule = {"constant": "constant_with_warmup", "linear": "linear", "cosine": "cosine"}[opt.schedule]
    arguments = {
        "output_dir": str(output_dir),
        "max_steps": steps,
        "per_device_train_batch_size": opt.micro_batch_size,
        "gradient_accumulation_steps": accumulation_steps(opt, processes()),
        "learning_rate": opt.learning_rate,
        "lr_scheduler_type": schedule,
        "warmup_steps": math.ceil(opt.warmup_fraction * steps),
        "weight_decay": opt.weight_decay,
        "max_grad_norm": opt.max_grad_norm,
        "optim": "adamw_torch",
        "seed": seed,
        "bf16": opt.precision == "bf16",
        "fp16": False,
        "gradient_checkpointing": opt.gradient_checkpointing,
        "use_cpu": not on_gpu,
        "dataloader_pin_memory": on_gpu,
        "dataloader_num_workers": 0,
        "dataloader_drop_last": True,
        "logging_strategy": "steps",
        "logging_steps": 1,
        "logging_first_step": True,
        "logging_nan_inf_filter": False,
        "save_strategy": "no",
        "eval_strategy": "no",
        "report_to": [],
        "disable_tqdm": True,
    }
    return {**arguments, **extra}
