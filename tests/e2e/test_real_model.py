"""The real small model on real reviews: policy equals reference at the start, and the cache equals a fresh forward."""

import math
from dataclasses import replace

import numpy as np
import pandas as pd
import pytest
from marginbench.study import Dataset, PackagedModel, ReviewsCorpus

pytestmark = pytest.mark.slow

MAX_LENGTH = 64


@pytest.fixture(scope="module")
def model_manifest(tmp_path_factory):
    from marginbench.models.loading import prepare_model
    from marginbench.models.manifest import write_manifest

    folder = tmp_path_factory.mktemp("smollm2")
    facts = prepare_model(PackagedModel(source="package"), folder / "weights", seed=0)
    return write_manifest(folder / "manifest.json", folder / "weights", "model", facts=facts).path


@pytest.fixture(scope="module")
def tokens(model_manifest):
    """Real pairs: two continuations of one review opening, cut from different reviews."""
    from marginbench.data.reviews import load_reviews, split_reviews
    from marginbench.identity import content_id
    from marginbench.models.loading import load_tokenizer
    from marginbench.training.tokenise import tokenise_pairs

    corpus = ReviewsCorpus(source="reviews", classifier_texts=100, sft_texts=10, prompts=24, eval_prompts=8)
    texts = split_reviews(load_reviews(corpus), corpus, seed=0).texts
    prompts = texts[texts["role"] == "prompt"].reset_index(drop=True)
    others = prompts["completion"].iloc[::-1].tolist()
    pairs = pd.DataFrame(
        {
            "pair_id": [content_id(a, b) for a, b in zip(prompts["completion"], others, strict=True)],
            "prompt_id": prompts["text_id"],
            "prompt": prompts["prompt"],
            "chosen": [text[:120] for text in prompts["completion"]],
            "rejected": [text[:80] for text in others],
            "chosen_ended": False,
            "rejected_ended": False,
            "split": "train",
            "source": "test",
            "score_chosen": np.nan,
            "score_rejected": np.nan,
        }
    )
    assert Dataset(corpus="imdb").corpus == "imdb"
    return tokenise_pairs(pairs, load_tokenizer(model_manifest), "plain", MAX_LENGTH)[0]


def test_reference_cache_equals_a_fresh_forward_and_dpo_starts_at_ln_2(model_manifest, tokens):
    import torch
    from marginbench.methods.base import PairBatch
    from marginbench.methods.registry import load_method
    from marginbench.models.loading import load_model, load_tokenizer
    from marginbench.models.lora import add_adapter
    from marginbench.study import Lora
    from marginbench.training.batches import PairCollator
    from marginbench.training.pair_logps import pair_log_probs, prepare_log_probs
    from marginbench.training.reference import compute_reference, pair_rows

    tokenizer = load_tokenizer(model_manifest)
    model = load_model(model_manifest)
    reference = compute_reference(
        model,
        tokens,
        max_length=MAX_LENGTH,
        precision="fp32",
        batch_size=16,
        model_hash="m",
        template_hash="t",
        pad_id=tokenizer.pad_token_id,
    )
    assert list(reference["pair_id"]) == list(tokens["pair_id"])
    policy = add_adapter(model, Lora(last_layers=10), 0).eval()
    prepare_log_probs(policy)
    collate, rows = PairCollator(tokenizer.pad_token_id), pair_rows(tokens)
    method = load_method("dpo", {"beta": 0.1})
    for start in range(0, 24, 8):
        cached = reference.iloc[start : start + 8]
        with torch.no_grad():
            logps = pair_log_probs(policy, collate.torch_call(rows[start : start + 8]))
        assert logps.chosen_logp.numpy() == pytest.approx(cached["ref_chosen_logp"].to_numpy(), rel=1e-6, abs=1e-4)
        assert logps.rejected_logp.numpy() == pytest.approx(cached["ref_rejected_logp"].to_numpy(), rel=1e-6, abs=1e-4)
        assert logps.chosen_len.tolist() == cached["chosen_len"].tolist()
        batch = PairBatch(
            chosen_logp=logps.chosen_logp.double(),
            rejected_logp=logps.rejected_logp.double(),
            ref_chosen_logp=torch.tensor(cached["ref_chosen_logp"].to_numpy()),
            ref_rejected_logp=torch.tensor(cached["ref_rejected_logp"].to_numpy()),
            chosen_len=logps.chosen_len,
            rejected_len=logps.rejected_len,
        )
        loss = method.loss(batch).per_pair.mean().item()
        assert loss == pytest.approx(math.log(2), abs=1e-5)
        moved = replace(batch, ref_chosen_logp=batch.ref_chosen_logp - 1.0)
        assert method.loss(moved).per_pair.mean().item() != pytest.approx(math.log(2), abs=1e-3)
