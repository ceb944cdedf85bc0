"""Blocks that no adapter touches: computed once, and training from their states is training the whole model."""

import pandas as pd
import pytest
import torch
from marginbench.methods.registry import load_method
from marginbench.models.loading import load_model, load_tokenizer
from marginbench.models.lora import add_adapter
from marginbench.models.manifest import read_manifest
from marginbench.study import Full, Lora, Optimisation
from marginbench.training import frozen as frozen_module
from marginbench.training.batches import PairCollator
from marginbench.training.frozen import freeze_below, frozen_blocks, save_states
from marginbench.training.pair_logps import pair_log_probs, prepare_log_probs
from marginbench.training.preference import train_policy
from marginbench.training.reference import answer_sequences, compute_reference, pair_rows

MAX_LENGTH = 40


@pytest.fixture(scope="module")
def tokens(toy_model):
    encode = load_tokenizer(toy_model).encode
    rows = range(12)
    return pd.DataFrame(
        {
            "pair_id": [f"p{n}" for n in rows],
            "split": "train",
            "prompt_ids": [encode(f"the film {'x' * (n % 3)}", add_special_tokens=False) for n in rows],
            "chosen_ids": [encode(f" was good {n}", add_special_tokens=False) for n in rows],
            "rejected_ids": [encode(" was bad" * (1 + n % 2), add_special_tokens=False) for n in rows],
        }
    )


def settings(**keys) -> Optimisation:
    base = {"epochs": 3, "batch_size": 4, "micro_batch_size": 4, "learning_rate": 1e-2, "max_length": MAX_LENGTH}
    return Optimisation(**{**base, "tuning": Lora(rank=4, last_layers=1), **keys})


def test_log_probs_and_gradients_equal_those_of_the_whole_model(toy_model, tokens):
    opt = settings()
    found = {}
    for name in ("whole", "cut"):
        model = load_model(toy_model)
        frozen = freeze_below(model, opt, answer_sequences(tokens)) if name == "cut" else None
        policy = add_adapter(model, opt.tuning, seed=3).eval()
        prepare_log_probs(policy)
        with torch.no_grad():  # the adapter starts as the identity: move it, so that its gradients are not zero
            for parameter in policy.parameters():
                if parameter.requires_grad:
                    parameter += 0.01
        batch = PairCollator(load_tokenizer(toy_model).pad_token_id).torch_call(pair_rows(tokens))
        logps = pair_log_probs(policy, frozen.batch(batch) if frozen else batch)
        (logps.chosen_logp - logps.rejected_logp).sum().backward()
        gradients = [p.grad for p in policy.parameters() if p.requires_grad]
        found[name] = (logps, gradients)
    whole, cut = found["whole"], found["cut"]
    for one, other in zip(whole[0], cut[0], strict=True):
        assert torch.allclose(one, other, rtol=1e-5, atol=1e-5)
    assert len(whole[1]) == len(cut[1])
    for one, other in zip(whole[1], cut[1], strict=True):
        assert torch.allclose(one, other, rtol=1e-4, atol=1e-5)
        assert one.abs().sum() > 0


def test_a_run_ends_where_the_whole_model_ends(toy_model, tokens, tmp_path, monkeypatch):
    reference = compute_reference(
        load_model(toy_model),
        tokens,
        max_length=MAX_LENGTH,
        precision="fp32",
        batch_size=4,
        model_hash=read_manifest(toy_model).weights_hash,
        template_hash="",
        pad_id=load_tokenizer(toy_model).pad_token_id,
    )
    logs, policies = [], []
    for name, limit in (("cut", frozen_module.MAX_BYTES), ("whole", 0)):
        monkeypatch.setattr(frozen_module, "MAX_BYTES", limit)
        log = train_policy(
            method=load_method("dpo", {"beta": 0.1}),
            start_manifest=toy_model,
            tokens=tokens,
            reference=reference,
            opt=settings(),
            dataset_id="pairs",
            model_id="toy",
            seed=0,
            out_dir=tmp_path / name,
        )
        logs.append(log[log["quantity"] == "loss"]["value"].to_numpy())
        policies.append(dict(load_model(tmp_path / name / "manifest.json").named_parameters()))
    assert logs[0] == pytest.approx(logs[1], abs=1e-4)
    assert logs[0][-1] < logs[0][0] - 0.005, "the loss really falls"
    cut, whole = policies
    assert cut.keys() == whole.keys(), "saved under the numbers of the whole model"
    for name, values in whole.items():
        assert torch.allclose(values, cut[name], atol=1e-3), name


def test_nothing_is_set_aside_where_all_blocks_are_trained(toy_model, tokens):
    for opt in (settings(tuning=Full()), settings(tuning=Lora()), settings(precision="bf16")):
        model = load_model(toy_model)
        blocks = len(model.base_model.layers)
        assert freeze_below(model, opt, answer_sequences(tokens)) is None
        assert len(model.base_model.layers) == blocks


def test_a_model_that_does_not_agree_is_left_whole(toy_model, tokens, monkeypatch):
    model = load_model(toy_model)
    blocks = len(model.base_model.layers)
    monkeypatch.setattr(frozen_module.FrozenBlocks, "embeddings", lambda self, ids, mask: torch.zeros(*ids.shape, 32))
    assert freeze_below(model, settings(), answer_sequences(tokens)) is None
    assert len(model.base_model.layers) == blocks == model.config.num_hidden_layers


def test_states_that_the_reference_pass_kept_are_taken_up(toy_model, tokens, tmp_path):
    model = load_model(toy_model)
    frozen = frozen_blocks(model, 1, "fp32")
    with frozen.watch():
        compute_reference(
            model,
            tokens,
            max_length=MAX_LENGTH,
            precision="fp32",
            batch_size=3,
            model_hash="hash",
            template_hash="",
            pad_id=load_tokenizer(toy_model).pad_token_id,
        )
    save_states(frozen, tmp_path / "frozen.safetensors", "hash")
    computed = []
    for model_hash, missing in (("hash", 0), ("other weights", len(frozen.states))):
        progress = []
        found = freeze_below(
            load_model(toy_model),
            settings(),
            answer_sequences(tokens),
            lambda done, total, note, progress=progress: progress.append(done),
            tmp_path / "frozen.safetensors",
            model_hash,
        )
        assert (max(progress) if progress else 0) == missing, "kept states are used for the same weights only"
        computed.append(found.states)
    kept, fresh = computed
    assert kept.keys() == fresh.keys()
    for ids, state in fresh.items():
        assert torch.allclose(state, kept[ids], atol=1e-5)
    save_states(None, tmp_path / "none.safetensors", "hash")
    assert freeze_below(load_model(toy_model), settings(), answer_sequences(tokens), kept=tmp_path / "none.safetensors")
