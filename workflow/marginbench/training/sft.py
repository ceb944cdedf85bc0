"""The SFT start: maximum likelihood on the corpus's own texts, merged into the model that every method starts from."""

import tempfile
import time
from pathlib import Path
from typing import Any

import datasets
import pandas as pd
from transformers import TrainerCallback
from trl import SFTConfig, SFTTrainer

from marginbench.errors import UserError
from marginbench.files import atomic_folder
from marginbench.identity import seed_for
from marginbench.job import Progress, quiet
from marginbench.models.loading import load_model, load_tokenizer
from marginbench.models.lora import add_adapter
from marginbench.models.manifest import read_manifest, write_manifest
from marginbench.models.template import Format, encode_answer, encode_prompt
from marginbench.records import TRAIN_LOG
from marginbench.study import Lora, Optimisation
from marginbench.training.batches import training_order
from marginbench.training.optimisation import optimiser_steps, trainer_arguments

LOGGED = {"loss": "loss", "learning_rate": "learning_rate", "grad_norm": "grad_norm", "mean_token_accuracy": "accuracy"}


class StepLog(TrainerCallback):
    """Keeps the logged quantities of every optimiser step under the contract's names and reports progress."""

    def __init__(self, names: dict[str, str], progress: Progress) -> None:
        self.names, self.progress = names, progress
        self.rows: list[dict[str, Any]] = []

    def on_log(self, args: Any, state: Any, control: Any, logs: dict[str, float] | None = None, **kwargs: Any) -> None:
        """Called by the trainer after every step (logging_steps is 1) and once at the end, which carries no loss."""
        if not logs or "loss" not in logs:
            return
        for name, quantity in self.names.items():
            if name in logs:
                self.rows.append({"step": state.global_step, "quantity": quantity, "value": float(logs[name])})
        self.progress(state.global_step, state.max_steps, f"loss {logs['loss']:.3f}")

    def frame(self) -> pd.DataFrame:
        """The TRAIN_LOG table."""
        return pd.DataFrame(self.rows, columns=list(TRAIN_LOG.columns))


def sft_examples(texts: pd.DataFrame, tokenizer: Any, format: Format, max_length: int) -> list[dict[str, list[int]]]:
    """Token ids and labels of the rows of role `sft`, in file order, cut at `max_length`.

    A plain text is language modelling: every token of prompt and completion is a target. A chat is trained on the
    completion alone (prompt labels -100). The end token follows a completion that fits whole.
    """
    examples = []
    for row in texts[texts["role"] == "sft"].itertuples(index=False):
        prompt = encode_prompt(tokenizer, row.prompt, format)
        ids = [*prompt, *encode_answer(tokenizer, row.completion, True, format)][:max_length]
        if len(ids) <= len(prompt) and format == "chat":
            raise UserError(
                f"SFT text {row.text_id}: its prompt alone has {len(prompt)} tokens, which leaves no room for the "
                f"answer within max_length {max_length}; raise sft.max_length"
            )
        labels = ids if format == "plain" else [-100] * len(prompt) + ids[len(prompt) :]
        examples.append({"input_ids": ids, "labels": list(labels)})
    return examples


def train_sft(
    *,
    model_manifest: str | Path,
    texts: pd.DataFrame,
    format: Format,
    opt: Optimisation,
    corpus_id: str,
    model_id: str,
    seed: int,
    out_dir: str | Path,
    progress: Progress = quiet,
) -> pd.DataFrame:
    """Train and save the SFT start: `out_dir/manifest.json` (kind "model") and `out_dir/weights`; returns the log.

    The loss is the mean over the target tokens of the optimiser batch. Adapters are merged into the weights. With
    epochs 0 nothing is trained and the manifest points to the model's own weights. Order depends on (corpus, seed),
    initialisation on (model, seed). The manifest has no base: log-ratios are taken against this model.
    """
    out_dir = Path(out_dir)
    source = read_manifest(model_manifest)
    facts = {"stage": "sft", "corpus": corpus_id, "seed": seed, "trained_from": source.weights_hash}
    if opt.epochs == 0:
        write_manifest(out_dir / "manifest.json", source.weights_dir, "model", facts={**facts, "steps": 0, "texts": 0})
        return StepLog(LOGGED, progress).frame()
    tokenizer = load_tokenizer(source)
    examples = sft_examples(texts, tokenizer, format, opt.max_length)
    if not examples:
        raise UserError(
            "there is no text of role `sft` to train on; raise the corpus's sft_texts or set sft.epochs to 0"
        )
    steps = optimiser_steps(opt, len(examples))
    order = training_order(opt, range(len(examples)), corpus_id, seed)
    model = load_model(source)
    if isinstance(opt.tuning, Lora):
        model = add_adapter(model, opt.tuning, seed_for("initialisation", "sft", model_id, seed))
    log = StepLog(LOGGED, progress)
    start = time.monotonic()
    out_dir.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(dir=out_dir, prefix=".trainer") as scratch:
        arguments = trainer_arguments(
            opt,
            n_examples=len(examples),
            seed=seed_for("dropout", "sft", model_id, seed),
            output_dir=scratch,
            train_sampling_strategy="sequential",  # the order was drawn above
            max_length=None,
            packing=False,
            dataset_kwargs={"skip_prepare_dataset": True},
        )
        trainer = SFTTrainer(
            model=model,
            args=SFTConfig(**arguments),
            train_dataset=datasets.Dataset.from_list([examples[index] for index in order]),
            processing_class=tokenizer,
            callbacks=[log],
        )
        trainer.train()
    trained = trainer.accelerator.unwrap_model(trainer.model)
    if isinstance(opt.tuning, Lora):
        trained = trained.merge_and_unload()
    progress(steps, steps, f"trained in {time.monotonic() - start:.0f} s")
    with atomic_folder(out_dir / "weights") as temporary:
        trained.save_pretrained(temporary)
        tokenizer.save_pretrained(temporary)
    facts = {**facts, "steps": steps, "texts": len(examples), "format": format, "optimisation": opt.model_dump()}
    write_manifest(out_dir / "manifest.json", out_dir / "weights", "model", facts=facts)
    return log.frame()
