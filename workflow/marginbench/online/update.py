"""The update on labelled pairs: one optimiser and one learning-rate schedule for the whole run, no trainer around it.

The forward pass, the loss and the schedule are those of training/; what a trainer would add (a data loader, an epoch,
a checkpoint of its own) a round has no use for. There is no randomness but the order of the pairs, which has its own
stream, so nothing random has to be saved.
"""

from collections.abc import Iterator, Sequence
from contextlib import contextmanager, nullcontext
from typing import Any

import torch
from torch import Tensor

from marginbench.errors import UserError
from marginbench.identity import stream
from marginbench.methods.base import PairBatch, PairLoss, State
from marginbench.methods.registry import Method
from marginbench.online.candidates import Pair
from marginbench.online.policy import Policy
from marginbench.study import Optimisation
from marginbench.training.batches import PairCollator
from marginbench.training.frozen import FrozenBlocks, fits, frozen_blocks
from marginbench.training.optimisation import processes, schedule_factor
from marginbench.training.pair_logps import PairLogps, autocast, pair_log_probs, prepare_log_probs
from marginbench.training.step_log import pair_quantities

Row = dict[str, Any]
"""A pair as the collator reads it: token ids of prompt and both answers, pair_id, reference log-probabilities."""


def check_method(method: Method, opt: Optimisation) -> None:
    """Raise UserError for a method or a setting that a round cannot serve."""
    if method.needs.margins or method.needs.order:
        raise UserError(
            f"online: method `{method.name}` plans from the margins of all pairs, which do not exist beforehand; "
            "choose one without margins, such as dpo"
        )
    if opt.gradient_checkpointing or processes() > 1:
        raise UserError(
            "online: one process without gradient checkpointing; lower training.micro_batch_size to save memory"
        )


def row_of(pair: Pair, prompt_id: str, prompt_ids: Sequence[int]) -> Row:
    """A pair as it is trained on. Raises ValueError when the prompt is not the one that was answered."""
    for candidate in (pair.chosen, pair.rejected):
        if not prompt_id == pair.prompt_id == candidate.prompt_id:
            raise ValueError(f"an answer to prompt {candidate.prompt_id} was put under prompt {prompt_id}")
    return {
        "row": 0,
        "pair_id": pair.pair_id,
        "prompt_ids": list(map(int, prompt_ids)),
        "chosen_ids": list(pair.chosen.token_ids),
        "rejected_ids": list(pair.rejected.token_ids),
    }


def batches(n: int, batch_size: int, steps: int, axes: Sequence[Any]) -> list[list[int]]:
    """Positions of every step's pairs: passes over all `n`, each in an order of its own, last partial batch dropped."""
    per_pass = n // batch_size
    found = []
    for step in range(steps):
        number, place = divmod(step, per_pass)
        order = stream("online_order", *axes, number).permutation(n)
        found.append(order[place * batch_size : (place + 1) * batch_size].tolist())
    return found


class Updater:
    """Takes optimiser steps on pairs; its state is the step, the method's state and AdamW's moments.

    Args:
        policy: what is trained.
        method: the loss.
        opt: optimiser settings; its `epochs` is not read.
        steps: optimiser steps that the schedule spans.
        seed: training seed.
    """

    def __init__(self, policy: Policy, method: Method, opt: Optimisation, steps: int, seed: int) -> None:
        check_method(method, opt)
        self.policy, self.method, self.opt, self.seed = policy, method, opt, seed
        self.collate = PairCollator(policy.tokenizer.pad_token_id)
        self.step = 0
        prepare_log_probs(policy.model)
        self.trained = {name: p for name, p in policy.model.named_parameters() if p.requires_grad}
        self.device = next(iter(self.trained.values())).device
        self.frozen = frozen_blocks(policy.causal, getattr(opt.tuning, "last_layers", None), opt.precision)
        self.use_frozen: bool | None = None
        self.restart(steps)

    def restart(self, steps: int) -> None:
        """A new optimiser and a new schedule over so many steps; the count of steps goes on."""
        self.first, self.steps = self.step, steps
        self.state: State | None = self.method.initial_state()
        self.optimiser = torch.optim.AdamW(
            self.trained.values(), lr=self.opt.learning_rate, weight_decay=self.opt.weight_decay
        )

    def add_reference(self, rows: Sequence[Row]) -> list[Row]:
        """The same pairs with log-probabilities under the start, `ref_chosen_logp` and `ref_rejected_logp`."""
        found = []
        with torch.no_grad(), self.policy.as_start(), self._blocks(rows) as frozen:
            size = self.opt.micro_batch_size
            for part in (rows[i : i + size] for i in range(0, len(rows), size)):
                logps = self._log_probs(part, frozen)
                for row, chosen, rejected in zip(
                    part, logps.chosen_logp.tolist(), logps.rejected_logp.tolist(), strict=True
                ):
                    found.append({**row, "ref_chosen_logp": chosen, "ref_rejected_logp": rejected})
        return found

    def run(self, rows: Sequence[Row], steps: int, axes: Sequence[Any]) -> list[dict[str, Any]]:
        """So many optimiser steps on the pairs; returns TRAIN_LOG rows. `axes` key the order of the pairs."""
        log = []
        with self._blocks(rows) as frozen:
            for positions in batches(len(rows), self.opt.batch_size, steps, axes):
                log += self._step([rows[i] for i in positions], frozen)
        return log

    def forget(self) -> None:
        """Drop the kept hidden states of pairs that are not trained on again."""
        if self.frozen:
            self.frozen.states.clear()

    def _blocks(self, rows: Sequence[Row]) -> Any:
        """The frozen blocks set aside while the block runs, where that is exact; else the whole model."""
        if self.frozen is None or self.use_frozen is False:
            return nullcontext(None)
        sequences = [row["prompt_ids"] + row[side] for row in rows for side in ("chosen_ids", "rejected_ids")]
        if not fits(self.policy.causal, sequences):
            return nullcontext(None)
        # A round at a time: a batch, and so the rounding of its states, never depends on where a run was taken up.
        groups: dict[int, list[list[int]]] = {}
        for row, pair in zip(rows, zip(sequences[::2], sequences[1::2], strict=True), strict=True):
            groups.setdefault(row.get("round", 0), []).extend(pair)
        for group in groups.values():
            self.frozen.compute(group)
        if self.use_frozen is None:
            self.use_frozen = self.frozen.agrees(sequences)
        return _aside(self.frozen) if self.use_frozen else nullcontext(None)

    def _log_probs(self, rows: Sequence[Row], frozen: FrozenBlocks | None) -> PairLogps:
        tensors = {name: value.to(self.device) for name, value in self.collate.torch_call(list(rows)).items()}
        with autocast(self.device, self.opt.precision):
            return pair_log_probs(self.policy.model, frozen.batch(tensors) if frozen else tensors)

    def _step(self, rows: list[Row], frozen: FrozenBlocks | None) -> list[dict[str, Any]]:
        size = self.opt.micro_batch_size
        parts = [rows[i : i + size] for i in range(0, len(rows), size)]
        self.optimiser.zero_grad(set_to_none=True)
        if len(parts) == 1:
            found = self._log_probs(rows, frozen)
            batch, result = self._loss(found, rows)
            loss = self._finite(result)
            loss.backward()
        else:  # exact for every loss: its gradient by each log-probability first, then micro-batch by micro-batch
            with torch.no_grad():
                joined = PairLogps(*map(torch.cat, zip(*(self._log_probs(p, frozen) for p in parts), strict=True)))
            leaves = [value.detach().requires_grad_() for value in joined[:2]]
            batch, result = self._loss(PairLogps(*leaves, *joined[2:]), rows)
            loss = self._finite(result)
            chosen, rejected = torch.autograd.grad(loss, leaves, allow_unused=True, materialize_grads=True)
            for i, part in enumerate(parts):
                found, own = self._log_probs(part, frozen), slice(i * size, (i + 1) * size)
                ((found.chosen_logp * chosen[own]).sum() + (found.rejected_logp * rejected[own]).sum()).backward()
        norm = torch.nn.utils.clip_grad_norm_(self.trained.values(), self.opt.max_grad_norm)
        rate = self.opt.learning_rate * schedule_factor(self.opt, self.step - self.first, self.steps)
        for group in self.optimiser.param_groups:
            group["lr"] = rate
        self.optimiser.step()
        self.state = result.state
        self.step += 1
        return self._log(batch, result, {"loss": loss.item(), "learning_rate": rate, "grad_norm": norm.item()})

    def _loss(self, found: PairLogps, rows: Sequence[Row]) -> tuple[PairBatch, PairLoss]:
        def column(name: str) -> Tensor:
            return torch.tensor([row[name] for row in rows], dtype=torch.float32, device=found.chosen_logp.device)

        batch = PairBatch(
            chosen_logp=found.chosen_logp,
            rejected_logp=found.rejected_logp,
            ref_chosen_logp=column("ref_chosen_logp"),
            ref_rejected_logp=column("ref_rejected_logp"),
            chosen_len=found.chosen_len,
            rejected_len=found.rejected_len,
            pair_ids=[row["pair_id"] for row in rows] if self.method.needs.draws else (),
            seed=self.seed,
            step=self.step + 1,
            micro_batch_size=self.opt.micro_batch_size,
        )
        return batch, self.method.loss(batch, self.state)

    def _finite(self, result: PairLoss) -> Tensor:
        loss = result.mean()
        if not torch.isfinite(loss):
            raise UserError(
                f"online: the loss is {loss.item()} at step {self.step + 1}; lower learning_rate or max_grad_norm, or "
                "check the method's parameters"
            )
        return loss

    def _log(self, batch: PairBatch, result: PairLoss, logged: dict[str, float]) -> list[dict[str, Any]]:
        logged = {**logged, **pair_quantities(self.method, batch, result)}
        return [{"step": self.step, "quantity": name, "value": logged[name]} for name in sorted(logged)]

    def save(self) -> tuple[dict[str, Tensor], dict[str, Any]]:
        """Tensors and numbers from which `load` makes the same updater: AdamW's moments, steps, the method's state."""
        names = list(self.trained)
        tensors = {
            f"{names[i]}/{key}": value.detach().cpu().clone()
            for i, entry in self.optimiser.state_dict()["state"].items()
            for key, value in entry.items()
        }
        numbers = {"step": self.step, "first": self.first, "steps": self.steps, "method_state": self.state}
        return tensors, {**numbers, "use_frozen": self.use_frozen}

    def load(self, tensors: dict[str, Tensor], numbers: dict[str, Any]) -> None:
        """Take up what `save` gave."""
        state: dict[int, dict[str, Tensor]] = {}
        names = {name: i for i, name in enumerate(self.trained)}
        for key, value in tensors.items():
            name, _, entry = key.rpartition("/")
            state.setdefault(names[name], {})[entry] = value
        groups = self.optimiser.state_dict()["param_groups"]
        self.optimiser.load_state_dict({"state": state, "param_groups": groups})
        self.step, self.first, self.steps = (numbers[name] for name in ("step", "first", "steps"))
        self.state, self.use_frozen = numbers["method_state"], numbers["use_frozen"]


@contextmanager
def _aside(frozen: FrozenBlocks) -> Iterator[FrozenBlocks]:
    frozen.set_aside()
    try:
        yield frozen
    finally:
        frozen.put_back()
