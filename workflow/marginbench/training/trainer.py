"""The preference trainer: TRL's DPOTrainer with our losses. The only file that leans on TRL's private parts.

What is overridden, guarded by tests/unit/test_training_preference.py and held bit for bit to the stock trainer by
tests/parity/test_trl_golden.py (trl 1.16.0 has no public seam for any of it):

- `_prepare_dataset`: pairs come tokenised;
- `_precompute_ref_logps`: reference log-probabilities come from the shared table;
- `_compute_loss`: the forward is `pair_log_probs`, the loss is the method's;
- `create_scheduler`: a method with phases has a schedule for each;
- `get_batch_samples`: a method that needs the whole optimiser batch gets it, whatever micro-batches and processes;
- `log`: quantities are averaged over processes;
- `_save_checkpoint`: no model card, and the method's state is saved last, which marks a checkpoint as whole.
"""

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import torch
from datasets import Dataset
from torch import Tensor
from transformers.trainer_utils import PREFIX_CHECKPOINT_DIR
from trl import DPOConfig, DPOTrainer

from marginbench.errors import UserError
from marginbench.files import write_json
from marginbench.methods.base import PairBatch, PairLoss, State
from marginbench.methods.registry import Method
from marginbench.training.batches import PairCollator, in_training_order
from marginbench.training.frozen import FrozenBlocks
from marginbench.training.pair_logps import PairLogps, pair_log_probs, prepare_log_probs
from marginbench.training.step_log import pair_quantities

CHECKPOINT_MARK = "method_state.json"
"""Written last into a checkpoint: the method's state and the run's key. A checkpoint without it is not whole."""


class PairTrainer(DPOTrainer):
    """DPOTrainer whose loss is a method's.

    Args:
        method: the method, parameters bound.
        pair_ids: content hash of every pair, by the dataset's `row`.
        columns: names of the per-pair numbers that the method's plan made.
        run_key: what a checkpoint must carry to be taken up again.
        seed: training seed, for methods that draw.
        learning_rates: learning rate of every optimiser step as a share of the peak; None takes the arguments'.
        frozen: hidden states under the trained blocks, when the model was cut to those.
        kwargs: as DPOTrainer. The dataset's rows are already in training order.
    """

    def __init__(
        self,
        *,
        method: Method,
        pair_ids: list[str],
        columns: tuple[str, ...],
        run_key: str,
        seed: int,
        learning_rates: list[float] | None = None,
        frozen: FrozenBlocks | None = None,
        **kwargs: Any,
    ) -> None:
        self.method, self.pair_ids, self.columns, self.frozen = method, pair_ids, columns, frozen
        self.learning_rates = learning_rates
        self.run_key, self.draw_seed = run_key, seed
        self.method_state: State | None = method.initial_state()
        extra = [*(["margin"] if method.needs.margins else []), *columns]
        kwargs["data_collator"] = PairCollator(kwargs["processing_class"].pad_token_id, extra)
        super().__init__(**kwargs)
        if "ref" in getattr(self.model, "peft_config", {}):
            self.model.delete_adapter("ref")  # TRL's copy of the adapter; the reference is in the table
        prepare_log_probs(self.model)

    def _prepare_dataset(self, dataset: Dataset, *args: Any, **kwargs: Any) -> Dataset:
        return dataset

    def _precompute_ref_logps(self, dataset: Dataset, *args: Any, **kwargs: Any) -> Dataset:
        return dataset

    def create_scheduler(self, num_training_steps: int, optimizer: torch.optim.Optimizer | None = None) -> Any:
        """The schedule of the arguments, or the given learning rates; `train` then takes what is set here."""
        if self.learning_rates is None:
            return super().create_scheduler(num_training_steps, optimizer)
        if self.lr_scheduler is None:
            rates = [*self.learning_rates, 0.0]  # the scheduler looks one step ahead of the last
            self.lr_scheduler = torch.optim.lr_scheduler.LambdaLR(
                self.optimizer if optimizer is None else optimizer, lambda step: rates[step]
            )
            self._created_lr_scheduler = True
        return self.lr_scheduler

    def get_batch_samples(self, epoch_iterator: Any, num_batches: int, device: torch.device) -> Any:
        """This process's micro-batches of one optimiser step.

        For a method that needs the whole batch, log-probabilities of all micro-batches of all processes are computed
        first without a graph; the batch's loss and its gradient by every log-probability then follow exactly, the same
        in every process, and travel with the micro-batches (the second forward costs time only where the batch is
        parted).
        """
        samples, items = super().get_batch_samples(epoch_iterator, num_batches, device)
        count, rank = self.accelerator.num_processes, self.accelerator.process_index
        if self.method.needs.whole_batch and len(samples) * count > 1:
            size = len(samples[0]["row"])
            samples = [self._prepare_inputs(sample) for sample in samples]
            with torch.no_grad(), self.compute_loss_context_manager():
                self.model.train()
                parts = [self._log_probs(self.model_wrapped, sample) for sample in samples]

            def whole(values: Sequence[Tensor]) -> Tensor:
                return in_training_order(self.accelerator.gather(torch.cat(values)), count, size)

            joined = PairLogps(*(whole(values) for values in zip(*parts, strict=True)))
            leaves = [value.detach().requires_grad_() for value in joined[:2]]
            inputs = {
                name: whole([sample[name] for sample in samples])
                for name in ("row", "ref_chosen_logps", "ref_rejected_logps", *self.data_collator.extra)
            }
            loss, result, batch = self._loss_of(PairLogps(*leaves, *joined[2:]), inputs)
            gradients = torch.autograd.grad(loss, leaves, allow_unused=True, materialize_grads=True)
            self._log_pairs(batch, result)
            for j, sample in enumerate(samples):
                number = j * count + rank
                part = slice(number * size, (number + 1) * size)
                sample["batch_gradients"] = tuple(gradient[part] for gradient in gradients)
                sample["batch_loss"] = loss.detach()
        return samples, items

    def _compute_loss(self, model: torch.nn.Module, inputs: dict[str, Any], return_outputs: bool) -> Any:
        found = self._log_probs(model, inputs)
        if "batch_gradients" in inputs:
            chosen, rejected = inputs["batch_gradients"]
            surrogate = (found.chosen_logp * chosen).sum() + (found.rejected_logp * rejected).sum()
            # The trainer divides by micro-batches, and averages gradients over processes: here they are to be summed.
            surrogate = surrogate * (self.current_gradient_accumulation_steps * self.accelerator.num_processes)
            loss = surrogate - surrogate.detach() + inputs["batch_loss"]
        else:
            loss, result, batch = self._loss_of(found, inputs)
            self._log_pairs(batch, result)
        if not torch.isfinite(loss):
            raise UserError(
                f"training: the loss is {loss.item()} at step {self.state.global_step + 1}; "
                "lower learning_rate or max_grad_norm, or check the method's parameters"
            )
        return (loss, None) if return_outputs else loss

    def _log_probs(self, model: torch.nn.Module, inputs: dict[str, Any]) -> PairLogps:
        return pair_log_probs(model, self.frozen.batch(inputs) if self.frozen else inputs)

    def _loss_of(self, found: PairLogps, inputs: dict[str, Any]) -> tuple[Tensor, PairLoss, PairBatch]:
        batch = PairBatch(
            chosen_logp=found.chosen_logp,
            rejected_logp=found.rejected_logp,
            ref_chosen_logp=inputs["ref_chosen_logps"],
            ref_rejected_logp=inputs["ref_rejected_logps"],
            chosen_len=found.chosen_len,
            rejected_len=found.rejected_len,
            margin=inputs.get("margin"),
            columns={name: inputs[name] for name in self.columns},
            pair_ids=[self.pair_ids[row] for row in inputs["row"].tolist()] if self.method.needs.draws else (),
            seed=self.draw_seed,
            step=self.state.global_step + 1,
            micro_batch_size=self.args.per_device_train_batch_size,
        )
        result = self.method.loss(batch, self.method_state)
        if self.model.training:
            self.method_state = result.state
        return result.mean(), result, batch

    def _log_pairs(self, batch: PairBatch, result: PairLoss) -> None:
        metrics = self._metrics["train" if self.model.training else "eval"]
        for name, value in pair_quantities(self.method, batch, result).items():
            metrics[name].append(value)

    def log(self, logs: dict[str, float], start_time: float | None = None) -> None:
        """Log the step's quantities, as means over all processes: every process keeps the same log."""
        metrics = self._metrics["train" if self.model.training else "eval"]
        if self.accelerator.num_processes > 1 and metrics:
            own = torch.tensor([[sum(values) / len(values) for values in metrics.values()]], dtype=torch.float64)
            means = self.accelerator.gather(own.to(self.accelerator.device)).mean(dim=0).tolist()
            metrics.update({name: [mean] for name, mean in zip(metrics, means, strict=True)})
        super().log(logs, start_time)

    def _save_checkpoint(self, model: torch.nn.Module, trial: Any) -> None:
        super(DPOTrainer, self)._save_checkpoint(model, trial)
        self.accelerator.wait_for_everyone()  # every process has its random state in there
        if self.is_world_process_zero():
            folder = Path(self.args.output_dir) / f"{PREFIX_CHECKPOINT_DIR}-{self.state.global_step}"
            write_json(folder / CHECKPOINT_MARK, {"run_key": self.run_key, "state": self.method_state})


def preference_config(arguments: dict[str, Any], *, max_length: int, full: bool) -> DPOConfig:
    """DPOConfig around the trainer's arguments.

    TRL would load a second copy of the model as the reference: never for an adapter, and for a full fine-tune not when
    it believes that it precomputes. Order is sequential, because the dataset's rows stand in training order. Several
    processes share gradients only: every trained weight is used in every pass, and buffers are constant.
    """
    return DPOConfig(
        **arguments,
        max_length=max_length,
        precompute_ref_log_probs=full,
        train_sampling_strategy="sequential",
        remove_unused_columns=False,
        ddp_find_unused_parameters=False,
        ddp_broadcast_buffers=False,
    )
