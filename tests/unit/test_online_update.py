"""The update of a round: what the trainer would do, whatever micro-batches, frozen blocks and interruptions."""

import numpy as np
import pandas as pd
import pytest
import torch
from marginbench.data.messages import plain_prompt
from marginbench.errors import UserError
from marginbench.generation import engine
from marginbench.methods.registry import load_method
from marginbench.models.loading import load_model
from marginbench.models.manifest import read_manifest
from marginbench.online.candidates import Pair
from marginbench.online.policy import Policy
from marginbench.online.update import Updater, batches, row_of
from marginbench.study import Decoding, Full, Lora, Optimisation
from marginbench.training.preference import train_policy
from marginbench.training.reference import compute_reference
from safetensors.torch import load_file

BASE = {"epochs": 3, "batch_size": 4, "micro_batch_size": 4, "learning_rate": 1e-2, "max_length": 48}
PROMPTS = [f"prompt {'x' * (n % 3)} {n}" for n in range(4)]


def texts():
    return pd.DataFrame({"text_id": PROMPTS, "prompt": [plain_prompt(prompt) for prompt in PROMPTS]})


def settings(**keys) -> Optimisation:
    return Optimisation(**{**BASE, "tuning": Lora(rank=2, alpha=4), **keys})


def policy_of(toy_model, opt) -> Policy:
    return Policy(read_manifest(toy_model), opt, "toy", 0, texts(), "plain", room=12)


@pytest.fixture
def early_stops(monkeypatch):
    """A third of the toy's vocabulary ends an answer, so that answers of a batch have different lengths."""
    monkeypatch.setattr(engine, "stop_ids", lambda model, tokenizer: list(range(90)))


def rows_of(policy, seed=0):
    decoding = Decoding(temperature=1.0, max_new_tokens=12, samples_per_prompt=2)
    found = policy.generate(PROMPTS, decoding, f"test{seed}")
    pairs = [Pair(one.prompt_id, one, other) for one, other in zip(found[::2], found[1::2], strict=True)]
    return [row_of(pair, pair.prompt_id, policy.prompts[pair.prompt_id].token_ids) for pair in pairs]


def test_padding_never_enters_an_entropy(toy_model, early_stops):
    """The sum that comes with a sampled answer is that of its own tokens, computed alone and without padding."""
    policy = policy_of(toy_model, settings())
    found = policy.generate(PROMPTS, Decoding(temperature=1.0, max_new_tokens=12, samples_per_prompt=4), "padding")
    lengths = {len(candidate.token_ids) for candidate in found}
    assert len(lengths) > 2, "answers of one batch must differ in length, or nothing is padded"

    def alone(candidate, width=0):
        prompt = list(policy.prompts[candidate.prompt_id].token_ids)
        answer = list(candidate.token_ids) + [0] * (width - len(candidate.token_ids))
        with torch.no_grad():
            log_probs = policy.causal(torch.tensor([prompt + answer])).logits[0].log_softmax(-1)
        positions = range(len(prompt) - 1, len(prompt) + len(answer) - 1)
        return sum(log_probs[position, token].item() for position, token in zip(positions, answer, strict=True))

    sums = [candidate.log_prob for candidate in found]
    assert sums == pytest.approx([alone(candidate) for candidate in found], abs=1e-3)
    assert sums == pytest.approx(policy.log_probs(found, False), abs=1e-3)
    # Seeded defect: the positions after the end are summed too (D4); the guard must see it.
    assert sums != pytest.approx([alone(candidate, max(lengths)) for candidate in found], abs=1e-3)


def test_rounds_have_streams_of_their_own(toy_model, early_stops):
    """Seeded anew in every round, an unchanged policy would give every prompt the same answers again (D3)."""
    policy = policy_of(toy_model, settings())
    decoding = Decoding(temperature=1.0, max_new_tokens=12, samples_per_prompt=2)
    texts_of = {
        key: [candidate.text for candidate in policy.generate(PROMPTS, decoding, key)]
        for key in ("seed0/round1/pair0", "seed0/round2/pair0", "seed0/round1/score0", "seed1/round1/pair0")
    }
    assert len(set(map(tuple, texts_of.values()))) == 4
    again = policy.generate(PROMPTS, decoding, "seed0/round1/pair0")
    assert [candidate.text for candidate in again] == texts_of["seed0/round1/pair0"]


@pytest.mark.parametrize("name", ["dpo", "beta_dpo"])
def test_an_update_is_what_the_trainer_does(toy_model, tmp_path, early_stops, name):
    """Four steps on one batch: weights and log of `train_policy` on the same pairs."""
    opt = settings(epochs=4, warmup_fraction=0.0)
    policy = policy_of(toy_model, opt)
    rows = rows_of(policy)
    tokens = pd.DataFrame(rows).assign(split="train")[["pair_id", "split", "prompt_ids", "chosen_ids", "rejected_ids"]]
    start = read_manifest(toy_model)
    reference = compute_reference(
        load_model(start),
        tokens,
        max_length=48,
        precision="fp32",
        batch_size=4,
        model_hash=start.weights_hash,
        template_hash="plain",
        pad_id=policy.tokenizer.pad_token_id,
    )
    log = train_policy(
        method=load_method(name),
        start_manifest=toy_model,
        tokens=tokens,
        reference=reference,
        opt=opt,
        dataset_id="d",
        model_id="toy",
        seed=0,
        out_dir=tmp_path,
        template_hash="plain",
    )
    updater = Updater(policy, load_method(name), opt, 4, 0)
    rows = updater.add_reference(rows)
    assert [row["ref_chosen_logp"] for row in rows] == pytest.approx(reference["ref_chosen_logp"].tolist(), abs=1e-4)
    found = pd.DataFrame(updater.run(rows, 4, ["order"]))
    assert {"loss", "learning_rate", "reward_margin", "grad_norm"} <= set(found["quantity"])
    for quantity in sorted(set(found["quantity"])):
        wanted = log[log["quantity"] == quantity]["value"].tolist()
        assert found[found["quantity"] == quantity]["value"].tolist() == pytest.approx(wanted, abs=1e-5), quantity
    trained = load_file(tmp_path / "weights" / "adapter_model.safetensors")
    for name, value in policy.weights().items():
        torch.testing.assert_close(value, trained[name], atol=1e-5, rtol=0)
    assert not all(torch.equal(value, policy.fresh[name]) for name, value in policy.weights().items())


@pytest.mark.parametrize("method", ["dpo", "beta_dpo", "simpo"])
def test_micro_batches_and_frozen_blocks_change_nothing(toy_model, early_stops, method):
    ends = []
    for last, micro, cut in ((1, 4, True), (1, 2, True), (1, 4, False)):
        opt = settings(micro_batch_size=micro, tuning=Lora(rank=2, alpha=4, last_layers=last))
        policy = policy_of(toy_model, opt)
        updater = Updater(policy, load_method(method), opt, 4, 0)
        if not cut:
            updater.use_frozen = False
        rows = updater.add_reference(rows_of(policy))
        updater.run(rows, 4, ["order"])
        assert updater.use_frozen is cut
        assert len(policy.causal.base_model.layers) == policy.causal.config.num_hidden_layers == 2
        ends.append(torch.cat([value.flatten() for value in policy.weights().values()]))
    assert ends[0].abs().max() > 0
    for other in ends[1:]:
        torch.testing.assert_close(other, ends[0], atol=2e-5, rtol=0)


def test_what_is_saved_goes_on_as_if_nothing_had_been(toy_model, early_stops):
    opt = settings(tuning=Lora(rank=2, alpha=4, last_layers=1))
    method = load_method("beta_dpo")
    policy = policy_of(toy_model, opt)
    updater = Updater(policy, method, opt, 6, 0)
    rows = updater.add_reference(rows_of(policy))
    updater.run(rows, 3, ["order", 1])
    weights, (tensors, numbers) = policy.weights(), updater.save()
    first = updater.run(rows, 3, ["order", 2])
    assert updater.add_reference(rows) == rows, "the reference is the start, however far the policy has gone"
    other = policy_of(toy_model, opt)
    taken_up = Updater(other, method, opt, 6, 0)
    other.set_weights(weights)
    taken_up.load(tensors, numbers)
    assert taken_up.run(rows, 3, ["order", 2]) == first
    assert all(torch.equal(value, other.weights()[name]) for name, value in policy.weights().items())


def test_every_pass_has_its_own_order_and_full_batches():
    found = batches(5, 2, 4, ["a"])
    assert [len(batch) for batch in found] == [2] * 4
    for one, other in (found[:2], found[2:]):
        assert len({*one, *other}) == 4
    assert found[:2] != found[2:]
    assert batches(5, 2, 4, ["b"]) != found


def test_what_a_round_cannot_serve_is_refused(toy_model):
    policy = policy_of(toy_model, settings())
    for name, keys in (("madpo", {}), ("dpo_sorted", {})):
        with pytest.raises(UserError, match="margins of all pairs"):
            Updater(policy, load_method(name, keys), settings(), 1, 0)
    with pytest.raises(UserError, match="gradient checkpointing"):
        Updater(policy, load_method("dpo"), settings(gradient_checkpointing=True), 1, 0)
    for tuning in (Full(), Lora(dropout=0.1)):
        with pytest.raises(UserError, match="lora with dropout 0"):
            policy_of(toy_model, settings(tuning=tuning))


def test_embeddings_are_those_of_the_start(toy_model, early_stops):
    policy = policy_of(toy_model, settings())
    found = policy.generate(PROMPTS, Decoding(temperature=1.0, max_new_tokens=6, samples_per_prompt=2), "embed")
    before = policy.embed(PROMPTS, found)
    policy.set_weights({name: value + 0.1 for name, value in policy.fresh.items()})
    np.testing.assert_array_equal(policy.embed(PROMPTS, found), before)
    turned = policy.embed(PROMPTS[::-1], found)
    np.testing.assert_array_equal(turned[::-1], before)
    assert len(np.unique(before.round(6), axis=0)) == len(PROMPTS)
