"""The loss of a method on pairs given as numbers: `marginbench loss`. The same function as in training, in float64.

The numbers come as `{"batches": [{column: [one number per pair], ...}, ...]}`. A method's plan (weights, hard pairs, a
permutation of margins) is made from the margins of all batches together, as in training from those of all pairs; state
goes from batch to batch. An order that the method would train in is not applied: batches are taken as they stand.
"""

import json
import math
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch

from marginbench.errors import UserError, nearest
from marginbench.methods.base import PairBatch, PairLoss
from marginbench.methods.registry import Method

LOGP_COLUMNS = ("chosen_logp", "rejected_logp", "ref_chosen_logp", "ref_rejected_logp")
LENGTH_COLUMNS = ("chosen_len", "rejected_len")
COLUMNS = (*LOGP_COLUMNS, *LENGTH_COLUMNS, "margin")
OTHER_KEYS = ("kept", "pair_ids")


class _Pairs(PairBatch):
    """A batch that names a column when it is read and was not given."""

    def __getattribute__(self, name: str) -> Any:
        value = super().__getattribute__(name)
        if value is None and name in COLUMNS:
            raise UserError(f"column `{name}` is missing, and the method reads it; add it to every batch")
        return value


def read_batches(path: str | Path) -> list[dict[str, list]]:
    """The batches of a file, checked.

    Raises:
        UserError: no such file, not JSON, not of this shape, unknown column, unequal lengths, a value that is not a
            finite number, a length below 1.
    """
    path = Path(path)
    try:
        content = json.loads(path.read_text(encoding="utf-8"))
    except FileNotFoundError as error:
        raise UserError(f"{path}: no such file; name a JSON file of pairs") from error
    except (OSError, UnicodeDecodeError) as error:
        raise UserError(f"{path}: cannot be read: {error}; name a JSON file of pairs") from error
    except json.JSONDecodeError as error:
        raise UserError(f"{path}: line {error.lineno}: not JSON: {error.msg}") from error
    if not isinstance(content, dict) or set(content) != {"batches"} or not isinstance(content["batches"], list):
        raise UserError(f'{path}: must be {{"batches": [{{"chosen_logp": [...], ...}}, ...]}}')
    if not content["batches"]:
        raise UserError(f"{path}: `batches` is empty; give at least one")
    try:
        return [_check(batch, f"batches[{i}]") for i, batch in enumerate(content["batches"])]
    except UserError as error:
        raise UserError(f"{path}: {error}") from error


def _check(batch: Any, where: str) -> dict[str, list]:
    if not isinstance(batch, dict):
        raise UserError(f"{where}: must be an object of columns")
    known = (*COLUMNS, *OTHER_KEYS)
    for name, values in batch.items():
        at = f"{where}.{name}"
        if name not in known:
            raise UserError(f"{at}: unknown column; {nearest(name, known)}")
        if not isinstance(values, list) or (not values and name != "kept"):
            raise UserError(f"{at}: must be a list with one value per pair")
        for i, value in enumerate(values if name in COLUMNS else []):
            if isinstance(value, bool) or not isinstance(value, int | float) or not math.isfinite(value):
                raise UserError(f"{at}[{i}] = {value!r}: must be a finite number")
            if name in LENGTH_COLUMNS and value < 1:
                raise UserError(f"{at}[{i}] = {value!r}: an answer has at least 1 token")
    if "chosen_logp" not in batch:
        raise UserError(f"{where}: column `chosen_logp` is missing")
    pairs = len(batch["chosen_logp"])
    for name in (*COLUMNS, "pair_ids"):
        if name in batch and len(batch[name]) != pairs:
            raise UserError(f"{where}.{name}: {len(batch[name])} values, but chosen_logp has {pairs}; make them equal")
    ids = batch.get("pair_ids", [])
    if not all(isinstance(value, str) for value in ids) or len(set(ids)) < len(ids):
        raise UserError(f"{where}.pair_ids: must be different strings")
    kept = batch.get("kept")
    if kept is not None:
        whole = all(isinstance(i, int) and not isinstance(i, bool) and 0 <= i < pairs for i in kept)
        if not kept or not whole or len(set(kept)) < len(kept):
            raise UserError(f"{where}.kept: must be different positions from 0 to {pairs - 1}, at least one")
    return batch


def evaluate(
    method: Method, batches: Sequence[Mapping[str, Sequence[Any]]], dtype: torch.dtype = torch.float64, seed: int = 0
) -> list[dict[str, Any]]:
    """What a method makes of optimiser batches.

    Args:
        method: the method, parameters bound.
        batches: as `read_batches` returns them.
        dtype: precision of the tensors; training has float32.
        seed: training seed, for methods that draw; the step is the number of the batch, from 1.

    Returns:
        For every batch `loss`, `per_pair`, what the method logs (a list where it is per pair), and `kept` where only
        some pairs count. `per_pair` covers all pairs, `loss` is the mean over those that count.

    Raises:
        UserError: a column that the method reads is missing, `kept` for a method that draws nothing, a loss that is
            not finite, or a filter by margin in a method of whole batches (leave those pairs out instead).
    """
    sizes = [len(batch["chosen_logp"]) for batch in batches]
    margins = None
    if method.needs.margins:
        for i, batch in enumerate(batches):
            if "margin" not in batch:
                raise UserError(f"batches[{i}]: column `margin` is missing; method `{method.name}` needs margins")
        margins = method.margins_seen(np.concatenate([np.asarray(b["margin"], dtype=np.float64) for b in batches]))
    plan = method.plan(margins)
    if plan.keep is not None and method.needs.whole_batch:
        raise UserError(
            f"method `{method.name}`: a filter by margin changes its batches; leave the pairs out and set keep=all"
        )
    state, results, start = method.initial_state(), [], 0
    for i, (batch, size) in enumerate(zip(batches, sizes, strict=True)):
        part = slice(start, start + size)
        start += size
        tensors: dict[str, Any] = {
            name: torch.tensor(batch[name], dtype=dtype) if name in batch else None for name in COLUMNS
        }
        if margins is not None:
            tensors["margin"] = torch.tensor(margins[part], dtype=dtype)
        pairs = _Pairs(
            **tensors,
            columns={name: torch.tensor(np.asarray(v)[part], dtype=dtype) for name, v in plan.columns.items()},
            pair_ids=list(batch.get("pair_ids", [f"pair{j}" for j in range(size)])),
            seed=seed,
            step=i + 1,
            kept=batch.get("kept"),
        )
        try:
            found = method.loss(pairs, state)
        except UserError as error:
            raise UserError(f"batches[{i}]: {error}") from error
        if found.kept is None and "kept" in batch:
            raise UserError(f"batches[{i}].kept: method `{method.name}` draws nothing; remove it")
        kept = found.kept if plan.keep is None else np.flatnonzero(plan.keep[part]).tolist()
        results.append(_result(found, kept, f"batches[{i}]"))
        state = found.state
    return results


def _result(found: PairLoss, kept: Sequence[int] | None, where: str) -> dict[str, Any]:
    per_pair = found.per_pair.detach()
    if not torch.isfinite(per_pair).all():
        worst = int((~torch.isfinite(per_pair)).int().argmax())
        raise UserError(f"{where}: the loss of pair {worst} is {per_pair[worst].item()}; check its log-probabilities")
    counted = per_pair if kept is None else per_pair[list(kept)]
    result = {"loss": counted.mean().item() if len(counted) else None, "per_pair": per_pair.tolist()}
    for name, value in found.logs.items():
        if not torch.isfinite(value.double()).all():
            raise UserError(f"{where}: `{name}` is not finite; check the log-probabilities")
        result[name] = value.detach().tolist()  # of a tensor without dimensions: the number
    return result if kept is None else {**result, "kept": list(kept)}
