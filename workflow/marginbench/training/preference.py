"""Training one policy with one method: order, resume, log, and saving whole or not at all."""

import shutil
import time
from pathlib import Path
from typing import Any

import pandas as pd
import torch
from accelerate.utils import broadcast
from peft import PeftModel
from torch import nn
from transformers import PrinterCallback, TrainerCallback
from transformers.trainer_utils import PREFIX_CHECKPOINT_DIR

from marginbench.errors import UserError
from marginbench.files import atomic_folder, read_json
from marginbench.identity import code_hash, content_id, seed_for
from marginbench.job import Progress, quiet
from marginbench.methods.registry import Method
from marginbench.models.loading import load_model, load_tokenizer
from marginbench.models.lora import add_adapter, save_adapter
from marginbench.models.manifest import Manifest, read_manifest, write_manifest
from marginbench.study import Full, Lora, Optimisation
from marginbench.training.batches import training_order
from marginbench.training.frozen import freeze_below
from marginbench.training.inputs import check_plan, margins_of, pair_dataset, phases_of_steps, plan_facts, positions_of
from marginbench.training.optimisation import (
    accumulation_steps,
    optimiser_steps,
    phase_factors,
    process_index,
    processes,
    trainer_arguments,
)
from marginbench.training.reference import answer_sequences, join_reference, reference_key
from marginbench.training.trainer import CHECKPOINT_MARK, PairTrainer, preference_config

CHECKPOINT_SECONDS = 180.0
"""A run is saved about this often; what is lost when it is killed is at most this long."""

NOT_LOGGED = {"epoch", "step", "total_flos", "num_tokens"}


def train_policy(
    *,
    method: Method,
    start_manifest: str | Path,
    tokens: pd.DataFrame,
    reference: pd.DataFrame,
    margins: pd.DataFrame | None = None,
    opt: Optimisation,
    dataset_id: str,
    model_id: str,
    seed: int,
    out_dir: str | Path,
    progress: Progress = quiet,
    template_hash: str | None = None,
    frozen_states: str | Path | None = None,
    checkpoint_steps: int | None = None,
    callbacks: tuple[TrainerCallback, ...] = (),
) -> pd.DataFrame:
    """Train a policy from a start on tokenised pairs and save it with its manifest.

    Several processes (started by torchrun, accelerate or training.launch) share the micro-batches of every step: the
    same pairs, loss and state as in one process, up to float rounding. The first one writes, all return the log.

    Args:
        method: the method, parameters bound.
        start_manifest: manifest of the start (kind `model`), which is also the reference.
        tokens: PAIR_TOKENS rows that are trained on.
        reference: REFERENCE rows, for at least these pairs.
        margins: MARGINS rows, for at least these pairs; required by methods that need margins.
        opt: optimiser settings.
        dataset_id, seed: what the data order depends on. model_id, seed: what the adapter's initialisation depends on.
        out_dir: receives `weights/` and `manifest.json`; `checkpoint/` while it runs.
        progress: called at every optimiser step.
        template_hash: `models.template.template_hash` of this run; None trusts the pairs' tokens, whose hashes are
            checked in any case.
        frozen_states: states under the trained blocks that the reference pass kept (training.frozen); None computes.
        checkpoint_steps: save every so many steps; None saves by the clock. Has no influence on the result.
        callbacks: further trainer callbacks.

    Returns:
        TRAIN_LOG rows. A run that was killed is taken up at its last whole checkpoint and ends with the same weights
        and log as one that was not.

    Raises:
        UserError: reference or margins missing or made for something else; fewer pairs than one batch; a batch that
            the processes cannot share; a loss that is not finite.
    """
    out_dir = Path(out_dir)
    start = read_manifest(start_manifest)
    _check_start(start, opt, method)
    key = reference_key(
        model_hash=start.weights_hash,
        template_hash=template_hash or "",
        max_length=opt.max_length,
        precision=opt.precision,
    )
    joined = join_reference(tokens, reference, key, ignore=() if template_hash else ("template",))
    margin = margins_of(method, tokens, margins)
    plan = method.plan(margin)
    check_plan(plan, method, len(tokens))
    positions = positions_of(plan, len(tokens))
    order = training_order(opt, positions, dataset_id, seed, fixed=plan.order is not None)
    steps = optimiser_steps(opt, len(positions))
    phases = phases_of_steps(plan, order, opt.batch_size)
    run_key = content_id(
        "run",
        method.name,
        method.params.model_dump(mode="json"),
        start.weights_hash,
        joined[["pair_id", "cache_key", "ref_chosen_logp", "ref_rejected_logp"]].to_numpy().tolist(),
        None if margin is None else margin.tolist(),
        opt.model_dump(mode="json"),
        [dataset_id, model_id, seed, torch.get_num_threads(), processes()],
        code_hash(__file__, method.file),
    )
    model, tokenizer = load_model(start), load_tokenizer(start)
    sequences = answer_sequences(tokens)
    frozen = freeze_below(model, opt, sequences, progress, frozen_states, start.weights_hash) if steps else None
    if isinstance(opt.tuning, Lora):
        model = add_adapter(model, opt.tuning, seed_for("initialisation", model_id, seed))
    history: list[dict[str, Any]] = []
    if steps:
        checkpoint_dir = out_dir / "checkpoint"
        arguments = trainer_arguments(
            opt,
            n_examples=len(positions),
            seed=seed_for("dropout", dataset_id, model_id, seed, *([process_index()] if process_index() else [])),
            output_dir=checkpoint_dir,
            shared=True,
            save_total_limit=2,
        )
        trainer = PairTrainer(
            method=method,
            pair_ids=tokens["pair_id"].tolist(),
            columns=tuple(plan.columns),
            run_key=run_key,
            seed=seed,
            learning_rates=None if phases is None else phase_factors(opt, phases),
            frozen=frozen,
            model=model,
            args=preference_config(arguments, max_length=opt.max_length, full=isinstance(opt.tuning, Full)),
            train_dataset=pair_dataset(joined, margin, plan).select(order),
            processing_class=tokenizer,
            callbacks=[_Progress(progress, steps), _Clock(checkpoint_steps), *callbacks],
        )
        trainer.remove_callback(PrinterCallback)
        _restore_adapter_dropout(model, opt)
        with trainer.accelerator.main_process_first():  # it removes what is not whole; the others find what is left
            resume = _latest_checkpoint(checkpoint_dir, run_key)
        if resume is not None:
            trainer.method_state = read_json(resume / CHECKPOINT_MARK)["state"]
        trainer.train(resume_from_checkpoint=None if resume is None else str(resume))
        if trainer.state.global_step != steps:
            raise RuntimeError(f"training ended at step {trainer.state.global_step} of {steps}")
        history = trainer.state.log_history
    if frozen:
        frozen.put_back_under(model)
    if process_index() == 0:
        _save(model, tokenizer, out_dir, start, method, steps, plan_facts(plan, positions))
        shutil.rmtree(out_dir / "checkpoint", ignore_errors=True)
    if steps:
        trainer.accelerator.wait_for_everyone()
    return _train_log(history)


def _check_start(start: Manifest, opt: Optimisation, method: Method) -> None:
    if start.kind != "model":
        raise UserError(f"{start.path}: a policy is trained from a whole model, not from an {start.kind}")
    accumulation_steps(opt, processes())  # raises where they cannot share a batch
    micro = opt.batch_size != opt.micro_batch_size
    if method.needs.whole_batch and micro and isinstance(opt.tuning, Lora) and opt.tuning.dropout:
        raise UserError(
            f"method `{method.name}` needs the whole batch, which micro-batches with dropout cannot give exactly; "
            "set tuning.dropout to 0, or micro_batch_size to batch_size (in one process)"
        )


def _restore_adapter_dropout(model: nn.Module, opt: Optimisation) -> None:
    """TRL turns off all dropout, the model's own (wanted) and the adapter's (asked for by the study)."""
    if isinstance(opt.tuning, Lora) and opt.tuning.dropout:
        for name, module in model.named_modules():
            if ".lora_dropout." in name and isinstance(module, nn.Dropout):
                module.p = opt.tuning.dropout


def _latest_checkpoint(folder: Path, run_key: str) -> Path | None:
    """The newest whole checkpoint of this very run; a folder with another run's checkpoints is emptied."""
    found = sorted(folder.glob(f"{PREFIX_CHECKPOINT_DIR}-*"), key=lambda path: int(path.name.rsplit("-", 1)[1]))
    whole = [path for path in found if (path / CHECKPOINT_MARK).is_file()]
    mine = [path for path in whole if read_json(path / CHECKPOINT_MARK)["run_key"] == run_key]
    for path in set(found) - set(mine):
        shutil.rmtree(path)
    return mine[-1] if mine else None


def _save(
    model: nn.Module, tokenizer: Any, out_dir: Path, start: Manifest, method: Method, steps: int, plan: dict[str, Any]
) -> None:
    weights = out_dir / "weights"
    facts = {"method": method.name, "params": method.params.model_dump(mode="json"), "steps": steps, "plan": plan}
    if isinstance(model, PeftModel):
        save_adapter(model, weights)
        write_manifest(out_dir / "manifest.json", weights, "adapter", base=start, facts=facts)
        return
    with atomic_folder(weights) as temporary:
        model.save_pretrained(temporary)
        tokenizer.save_pretrained(temporary)
    write_manifest(out_dir / "manifest.json", weights, "model", base=start, facts=facts)


def _train_log(history: list[dict[str, Any]]) -> pd.DataFrame:
    rows = [
        {"step": int(entry["step"]), "quantity": name, "value": float(value)}
        for entry in history
        if "loss" in entry
        for name, value in entry.items()
        if name not in NOT_LOGGED
    ]
    frame = pd.DataFrame(rows, columns=["step", "quantity", "value"])
    return frame.sort_values(["step", "quantity"], kind="stable", ignore_index=True)


class _Progress(TrainerCallback):
    def __init__(self, progress: Progress, steps: int) -> None:
        self.progress, self.steps = progress, steps

    def on_log(self, args: Any, state: Any, control: Any, logs: dict[str, float], **kwargs: Any) -> None:
        if "loss" in logs:
            self.progress(state.global_step, self.steps, f"loss {logs['loss']:.3f}")


class _Clock(TrainerCallback):
    """Asks for a checkpoint every so many steps, or by the clock; never at the last step."""

    def __init__(self, every: int | None) -> None:
        self.every, self.last = every, time.monotonic()

    def on_step_end(self, args: Any, state: Any, control: Any, **kwargs: Any) -> None:
        if state.global_step >= state.max_steps:
            return
        due = state.global_step % self.every == 0 if self.every else time.monotonic() - self.last > CHECKPOINT_SECONDS
        if broadcast(torch.tensor(int(due), device=args.device)).item():  # clocks differ, saving is done together
            self.last = time.monotonic()
            control.should_save = True
