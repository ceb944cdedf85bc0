"""Our DPO and IPO are TRL's, bit for bit: the same weights after training, for full fine-tuning and for LoRA."""

import hashlib
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
from datasets import Dataset
from marginbench.identity import seed_for
from marginbench.methods.registry import load_method
from marginbench.models.loading import load_model, load_tokenizer
from marginbench.models.lora import add_adapter
from marginbench.models.manifest import read_manifest
from marginbench.study import Full, Lora, Optimisation
from marginbench.training.batches import training_order
from marginbench.training.optimisation import trainer_arguments
from marginbench.training.preference import train_policy
from marginbench.training.reference import compute_reference
from safetensors import safe_open
from trl import DPOConfig, DPOTrainer
from trl_tools import random_tokens, token_rows

MAX_LENGTH, BETA, SEED = 32, 0.1, 3
TUNINGS = {"full": Full(), "lora": Lora(rank=4, alpha=8)}
LOSSES = {"sigmoid": ("dpo", {"beta": BETA}), "ipo": ("ipo", {"beta": BETA, "reduction": "mean"})}


def _sha256(named) -> str:
    digest = hashlib.sha256()
    for name, value in sorted(named, key=lambda item: item[0]):
        digest.update(name.encode() + np.ascontiguousarray(value).tobytes())
    return digest.hexdigest()


def _stock(manifest: Path, tokens: pd.DataFrame, opt: Optimisation, loss_type: str, folder: Path):
    """TRL's own trainer on the same rows in the same order; returns weights' hash and the reference it computed."""
    model, tokenizer = load_model(manifest), load_tokenizer(manifest)
    if isinstance(opt.tuning, Lora):
        model = add_adapter(model, opt.tuning, seed_for("initialisation", "toy", SEED))
    order = training_order(opt, range(len(tokens)), "pairs", SEED)
    arguments = trainer_arguments(
        opt, n_examples=len(tokens), seed=seed_for("dropout", "pairs", "toy", SEED), output_dir=folder
    )
    config = DPOConfig(
        **arguments,
        loss_type=[loss_type],
        beta=BETA,
        max_length=MAX_LENGTH,
        precompute_ref_log_probs=True,
        train_sampling_strategy="sequential",
    )
    DPOTrainerTokenised = type("DPOTrainerTokenised", (DPOTrainer,), {"_prepare_dataset": lambda self, rows, *_: rows})
    trainer = DPOTrainerTokenised(
        model=model, args=config, train_dataset=Dataset.from_list(token_rows(tokens)), processing_class=tokenizer
    )
    computed = trainer.train_dataset[:]
    reference = pd.DataFrame({name: computed[f"{name}s"] for name in ("ref_chosen_logp", "ref_rejected_logp")})
    trainer.train_dataset = trainer.train_dataset.select(order)
    trainer.train()
    weights = {
        n: p.detach().numpy() for n, p in trainer.model.named_parameters() if p.requires_grad and ".ref." not in n
    }
    history = [entry["loss"] for entry in trainer.state.log_history if "loss" in entry]
    return _sha256((n.replace(".default", ""), v) for n, v in weights.items()), reference, history


def _saved(weights: Path) -> str:
    file = next(weights.glob("*.safetensors"))
    with safe_open(file, "numpy") as opened:
        return _sha256((name, opened.get_tensor(name)) for name in opened.keys())  # noqa: SIM118 - not a mapping


@pytest.mark.slow
@pytest.mark.parametrize("loss_type", LOSSES)
@pytest.mark.parametrize("kind", TUNINGS)
def test_weights_equal_stock_trl(toy_model: Path, tmp_path: Path, kind: str, loss_type: str) -> None:
    tokens = random_tokens(26)
    opt = Optimisation(
        epochs=2, batch_size=4, micro_batch_size=4, learning_rate=1e-3, max_length=MAX_LENGTH, tuning=TUNINGS[kind]
    )
    manifest = read_manifest(toy_model)
    pad_id = load_tokenizer(manifest).pad_token_id
    expected, stock_reference, stock_losses = _stock(toy_model, tokens, opt, loss_type, tmp_path / "stock")
    assert len(stock_losses) == 12  # 26 pairs: 6 full batches an epoch

    reference = compute_reference(
        load_model(manifest),
        tokens,
        max_length=MAX_LENGTH,
        precision="fp32",
        batch_size=5,
        model_hash=manifest.weights_hash,
        template_hash="plain",
        pad_id=pad_id,
    )
    names = ["ref_chosen_logp", "ref_rejected_logp"]
    np.testing.assert_allclose(reference[names], stock_reference[names], atol=1e-4)  # other batches, other rounding
    reference[names] = stock_reference[names]

    name, params = LOSSES[loss_type]
    log = train_policy(
        method=load_method(name, params),
        start_manifest=toy_model,
        tokens=tokens,
        reference=reference,
        opt=opt,
        dataset_id="pairs",
        model_id="toy",
        seed=SEED,
        out_dir=tmp_path / "ours",
    )
    assert _saved(tmp_path / "ours" / "weights") == expected
    ours = log[log["quantity"] == "loss"].sort_values("step")["value"].tolist()
    assert ours == stock_losses
