"""The Bradley-Terry reward model: the SFT start with a scalar head, trained on labelled pairs by TRL's RewardTrainer.

Its loss is -log sigmoid(score of chosen - score of rejected). Margins mean something only if it orders pairs that it
has not seen, so the accuracy on the holdout pairs is reported with an exact interval.
"""

import math
import tempfile
from pathlib import Path
from typing import Any

import datasets
import numpy as np
import pandas as pd
from scipy.stats import binomtest
from trl import RewardConfig, RewardTrainer

from marginbench.errors import UserError
from marginbench.files import atomic_folder
from marginbench.identity import seed_for
from marginbench.job import Progress, quiet
from marginbench.models.loading import load_tokenizer
from marginbench.models.lora import add_adapter, save_adapter
from marginbench.models.manifest import read_manifest, write_manifest
from marginbench.models.reward_head import HEAD, head_from_words, new_reward_model, reward_scores, reward_sequences
from marginbench.study import Lora, RewardModel
from marginbench.training.batches import training_order
from marginbench.training.optimisation import optimiser_steps, trainer_arguments
from marginbench.training.sft import StepLog

LOGGED = {
    "loss": "loss",
    "learning_rate": "learning_rate",
    "grad_norm": "grad_norm",
    "accuracy": "reward_accuracy",
    "margin": "reward_margin",
}


def pair_accuracy(margins: np.ndarray, confidence: float = 0.95) -> dict[str, Any]:
    """Share of pairs with a margin above 0, with the exact (Clopper-Pearson) interval, and the mean Bradley-Terry loss.

    A tie counts as wrong: a model that gives every answer the same score has learnt nothing.
    """
    margins = np.asarray(margins, dtype=float)
    right = int((margins > 0).sum())
    interval = binomtest(right, len(margins)).proportion_ci(confidence, method="exact")
    return {
        "accuracy": right / len(margins),
        "ci": [float(interval.low), float(interval.high)],
        "n": len(margins),
        "ties": int((margins == 0).sum()),
        "nll": float(np.logaddexp(0, -margins).mean()),
    }


def train_reward_model(
    *,
    start_manifest: str | Path,
    tokens: pd.DataFrame,
    opt: RewardModel,
    dataset_id: str,
    model_id: str,
    seed: int,
    out_dir: str | Path,
    pairs: pd.DataFrame | None = None,
    confidence: float = 0.95,
    progress: Progress = quiet,
) -> tuple[pd.DataFrame, dict[str, Any]]:
    """Train on split `train`, measure on split `holdout`; returns the TRAIN_LOG table and a report.

    Saves `out_dir/manifest.json` (kind "reward_model", base = the start) and `out_dir/weights` (adapter and head, or
    all weights). The report holds `holdout` (accuracy, ci, n, ties, nll) and, where `pairs` (the
    PAIRS table) carries scores, `holdout_true_order`: accuracy against the order of the scores, not the noisy label.
    Raises UserError when a split is empty, when epochs is 0, or when a score is not finite.
    """
    if opt.epochs == 0:
        raise UserError("reward_model.epochs is 0, but an untrained reward model has no margins; set it above 0")
    out_dir, start = Path(out_dir), read_manifest(start_manifest)
    split = {name: tokens[tokens["split"] == name] for name in ("train", "holdout")}
    for name, part in split.items():
        if part.empty:
            raise UserError(
                f"dataset {dataset_id} has no pair in split {name} for the reward model; "
                "change reward_model.holdout_fraction or make more pairs"
            )
    steps = optimiser_steps(opt, len(split["train"]))
    tokenizer = load_tokenizer(start)
    cue = tokenizer.encode(opt.cue, add_special_tokens=False) if opt.cue else []
    layout = {"max_length": opt.max_length, "cue_ids": cue}
    chosen, rejected = (reward_sequences(split["train"], side, **layout) for side in ("chosen", "rejected"))
    order = training_order(opt, range(len(chosen)), dataset_id, seed)
    model = new_reward_model(start, seed_for("initialisation", "reward_head", model_id, seed))
    if opt.head_words:
        head_from_words(model, start, tokenizer, opt.head_words.better, opt.head_words.worse)
    if isinstance(opt.tuning, Lora):
        adapter_seed = seed_for("initialisation", "reward_model", model_id, seed)
        model = add_adapter(model, opt.tuning, adapter_seed, task_type="SEQ_CLS", modules_to_save=[HEAD])
    log = StepLog(LOGGED, progress)
    out_dir.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(dir=out_dir, prefix=".trainer") as scratch:
        arguments = trainer_arguments(
            opt,
            n_examples=len(chosen),
            seed=seed_for("dropout", "reward_model", model_id, seed),
            output_dir=scratch,
            train_sampling_strategy="sequential",  # the order was drawn above
            max_length=None,
            disable_dropout=not (isinstance(opt.tuning, Lora) and opt.tuning.dropout),
        )
        trainer = RewardTrainer(
            model=model,
            args=RewardConfig(**arguments),
            train_dataset=datasets.Dataset.from_list(
                [{"chosen_ids": chosen[index], "rejected_ids": rejected[index]} for index in order]
            ),
            processing_class=tokenizer,
            callbacks=[log],
        )
        trainer.train()
    trained = trainer.accelerator.unwrap_model(trainer.model)
    progress(steps, steps, "measuring pair accuracy")
    margins = _margins(trained, split["holdout"], layout, tokenizer.pad_token_id, dataset_id)
    report: dict[str, Any] = {
        "dataset": dataset_id,
        "model": model_id,
        "seed": seed,
        "steps": steps,
        "confidence": confidence,
        "train": {"n": len(split["train"])},
        "holdout": pair_accuracy(margins, confidence),
        "holdout_true_order": _true_order(split["holdout"], margins, pairs, confidence),
    }
    if isinstance(opt.tuning, Lora):
        save_adapter(trained, out_dir / "weights")
    else:
        with atomic_folder(out_dir / "weights") as temporary:
            trained.save_pretrained(temporary)
    facts = {"stage": "reward_model", **layout, "optimisation": opt.model_dump(), "report": report}
    write_manifest(out_dir / "manifest.json", out_dir / "weights", "reward_model", base=start, facts=facts)
    return log.frame(), report


def _margins(model: Any, tokens: pd.DataFrame, layout: dict, pad_id: int, dataset_id: str) -> np.ndarray:
    sides = [reward_scores(model, reward_sequences(tokens, side, **layout), pad_id) for side in ("chosen", "rejected")]
    margins = np.subtract(*map(np.asarray, sides))
    bad = np.flatnonzero(~np.isfinite(margins))
    if len(bad):
        raise UserError(
            f"dataset {dataset_id}: the reward model's score of pair {tokens['pair_id'].iloc[bad[0]]} is not finite; "
            "lower reward_model.learning_rate"
        )
    return margins


def _true_order(
    tokens: pd.DataFrame, margins: np.ndarray, pairs: pd.DataFrame | None, confidence: float
) -> dict[str, Any] | None:
    """Accuracy against the sign of score_chosen - score_rejected; pairs without scores or with equal ones stay out."""
    if pairs is None:
        return None
    scores = pairs.set_index("pair_id").loc[list(tokens["pair_id"])]
    difference = (scores["score_chosen"] - scores["score_rejected"]).to_numpy(dtype=float)
    usable = np.array([not math.isnan(value) and value != 0 for value in difference], dtype=bool)
    if not usable.any():
        return None
    return pair_accuracy(margins[usable] * np.sign(difference[usable]), confidence)
