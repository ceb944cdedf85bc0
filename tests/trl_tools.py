"""Stock TRL trainers on tokenised pairs, and what one optimiser step of a trainer leaves behind."""

from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import pandas as pd
import torch
from datasets import Dataset
from marginbench.methods.registry import load_method
from marginbench.models.loading import load_model, load_tokenizer
from marginbench.study import Optimisation
from marginbench.training.optimisation import trainer_arguments
from marginbench.training.preference import train_policy
from torch import Tensor
from transformers import TrainerCallback

ANSWERS = ("chosen", "rejected")


def random_tokens(n: int, prompt: tuple[int, int] = (3, 9), answer: tuple[int, int] = (2, 20)) -> pd.DataFrame:
    """PAIR_TOKENS rows of random ids, prompts and answers with lengths in the given half-open ranges."""
    draw = np.random.default_rng(5)

    def ids(low: int, high: int) -> list[int]:
        return draw.integers(5, 200, draw.integers(low, high)).tolist()

    rows = [(f"pair{i:02d}", "train", ids(*prompt), ids(*answer), ids(*answer)) for i in range(n)]
    return pd.DataFrame(rows, columns=["pair_id", "split", "prompt_ids", "chosen_ids", "rejected_ids"])


def token_rows(tokens: pd.DataFrame) -> list[dict[str, list[int]]]:
    """Rows as TRL's collator of pairs reads them."""
    columns = ["prompt_ids", "chosen_ids", "rejected_ids"]
    return [dict(zip(columns, map(list, row), strict=True)) for row in tokens[columns].itertuples(index=False)]


def with_sequences(row: Mapping[str, list[int]]) -> dict[str, Any]:
    """What the tokenisation of TRL's CPO and ORPO trainers makes of a pair: whole sequences, labels on the answer."""
    found: dict[str, Any] = {"prompt_input_ids": row["prompt_ids"]}
    for side in ANSWERS:
        answer = row[f"{side}_ids"]
        sequence = row["prompt_ids"] + answer
        found[f"{side}_input_ids"] = sequence
        found[f"{side}_attention_mask"] = [1] * len(sequence)
        found[f"{side}_labels"] = [-100] * len(row["prompt_ids"]) + answer
    return found


def tokenised(trainer: type) -> type:
    """A stock trainer, its loss untouched, that takes rows with token ids and reference log-probabilities as given."""
    as_given = {
        "_prepare_dataset": lambda self, rows, *_: rows,
        "_precompute_ref_logps": lambda self, rows, *_: rows,
        "tokenize_row": lambda self, row: with_sequences(row),
    }
    own = {name: method for name, method in as_given.items() if hasattr(trainer, name)}
    return type(f"{trainer.__name__}Tokenised", (trainer,), own)


class Step(NamedTuple):
    """Loss of an optimiser batch, and its gradient by name of the weight."""

    loss: float
    gradient: dict[str, Tensor]


def combined(*parts: tuple[float, Step]) -> Step:
    """The weighted sum of steps."""
    names = parts[0][1].gradient
    return Step(
        sum(weight * step.loss for weight, step in parts),
        {name: sum(weight * step.gradient[name] for weight, step in parts) for name in names},
    )


class Gradient(TrainerCallback):
    """Keeps the gradient of the last optimiser step."""

    def on_pre_optimizer_step(self, args: Any, state: Any, control: Any, model: torch.nn.Module, **kwargs: Any) -> None:
        self.found = {name: weight.grad.clone() for name, weight in model.named_parameters()}


def stock_step(
    trainer: type, config: Callable, manifest: Path, rows: Sequence[dict], opt: Optimisation, out: Path, **given: Any
) -> Step:
    """One step of a stock trainer over rows, in their order."""
    arguments = trainer_arguments(opt, n_examples=len(rows), seed=0, output_dir=out)
    gradient = Gradient()
    run = tokenised(trainer)(
        model=load_model(manifest),
        args=config(**arguments, max_length=opt.max_length, train_sampling_strategy="sequential", **given),
        train_dataset=Dataset.from_list(list(rows)),
        processing_class=load_tokenizer(manifest),
        callbacks=[gradient],
    )
    run.train()
    [loss] = [entry["loss"] for entry in run.state.log_history if "loss" in entry]
    return Step(loss, gradient.found)


def own_step(
    name: str,
    params: Mapping[str, Any],
    manifest: Path,
    tokens: pd.DataFrame,
    reference: pd.DataFrame,
    opt: Optimisation,
    out: Path,
) -> Step:
    """One step of ours over pairs, whose order is `training_order(opt, range(len(tokens)), "pairs", 0)`."""
    gradient = Gradient()
    log = train_policy(
        method=load_method(name, params),
        start_manifest=manifest,
        tokens=tokens,
        reference=reference,
        opt=opt,
        dataset_id="pairs",
        model_id="toy",
        seed=0,
        out_dir=out,
        callbacks=(gradient,),
    )
    [loss] = log.loc[log["quantity"] == "loss", "value"]
    return Step(loss, gradient.found)
