"""The sampling loop: equal to the library's greedy search, and no answer depends on its neighbours."""

from pathlib import Path

import numpy as np
import pytest
import torch
from marginbench.errors import UserError
from marginbench.generation.engine import Generated, Prompt, choose_tokens, generate, stop_ids
from marginbench.identity import content_id
from marginbench.models.loading import load_model, load_tokenizer
from marginbench.models.toy import toy_tokenizer
from marginbench.study import Decoding, Online
from scipy.stats import chisquare
from transformers import GPT2Config, GPT2LMHeadModel

TEXTS = [
    "the movie",
    "I saw this film and",
    "a",
    "this was not in the movie that I saw",
    "it is",
    "Why",
    "of the",
    "to",
]


@pytest.fixture(scope="module")
def toy(toy_model: Path) -> tuple:
    return load_model(toy_model), load_tokenizer(toy_model)


def prompts(tokenizer: object, texts: list[str] = TEXTS) -> list[Prompt]:
    return [Prompt(f"id of {text}", tokenizer(text)["input_ids"]) for text in texts]


def decoding(**keys: object) -> Decoding:
    return Decoding(**{"max_new_tokens": 12, "batch_size": 3, **keys})


def test_greedy_is_the_librarys_greedy(toy: tuple) -> None:
    model, tokenizer = toy
    answers = generate(model, tokenizer, prompts(tokenizer), decoding(temperature=0), seed=0)
    for prompt, answer in zip(prompts(tokenizer), answers, strict=True):
        ids = torch.tensor([prompt.token_ids])
        theirs = model.generate(
            ids, attention_mask=torch.ones_like(ids), max_new_tokens=12, do_sample=False, pad_token_id=0
        )[0, ids.shape[1] :]
        assert answer.token_ids == theirs.tolist()


def test_an_answer_is_the_same_alone_and_in_any_batch(toy: tuple) -> None:
    model, tokenizer = toy
    settings = [decoding(samples_per_prompt=2, batch_size=size) for size in (1, 3, 16)]
    runs = [generate(model, tokenizer, prompts(tokenizer), setting, seed=4) for setting in settings]
    assert runs[0] == runs[1] == runs[2]
    backwards = generate(model, tokenizer, prompts(tokenizer)[::-1], settings[1], seed=4)
    assert sorted(backwards, key=lambda a: (a.prompt_id, a.sample)) == sorted(
        runs[0], key=lambda a: (a.prompt_id, a.sample)
    )


def test_order_samples_and_seeds(toy: tuple) -> None:
    model, tokenizer = toy
    answers = generate(model, tokenizer, prompts(tokenizer), decoding(samples_per_prompt=2), seed=0)
    assert [(a.prompt_id, a.sample) for a in answers] == [(f"id of {t}", s) for t in TEXTS for s in (0, 1)]
    first, second = answers[::2], answers[1::2]
    assert all(a.token_ids != b.token_ids for a, b in zip(first, second, strict=True))
    other = generate(model, tokenizer, prompts(tokenizer), decoding(samples_per_prompt=2), seed=1)
    assert all(a.token_ids != b.token_ids for a, b in zip(answers, other, strict=True))
    assert answers == generate(model, tokenizer, prompts(tokenizer), decoding(samples_per_prompt=2), seed=0)


def test_an_answer_stops_at_the_end_token(toy_model: Path) -> None:
    model, tokenizer = load_model(toy_model), load_tokenizer(toy_model)
    end, calls = tokenizer.eos_token_id, []
    original = model.forward

    def ends_soon(**inputs: object) -> object:
        output = original(**inputs)
        calls.append(len(output.logits))
        length = inputs["attention_mask"].sum(-1)  # tokens of prompt and answer so far
        last = length >= inputs["input_ids"][:, -1] % 3 + 9  # rows end at different lengths
        output.logits[last] = -1e4
        output.logits[last, :, end] = 1e4
        return output

    model.forward = ends_soon
    answers: list[Generated] = generate(model, tokenizer, prompts(tokenizer), decoding(batch_size=8), seed=0)
    for answer in answers:
        assert answer.finish_reason == "stop"
        assert answer.token_ids[-1] == end
        assert answer.n_tokens == len(answer.token_ids) - 1
        assert "<|end|>" not in answer.text
    assert calls[0] == 8
    assert calls[-1] < 8  # finished rows leave the batch,
    alone = generate(model, tokenizer, prompts(tokenizer), decoding(batch_size=1), seed=0)
    assert answers == alone  # and the others do not notice
    assert len({len(a.token_ids) for a in alone}) > 2


def test_padding_does_not_move_learned_positions(toy: tuple) -> None:
    tokenizer = toy[1]
    torch.manual_seed(0)
    config = GPT2Config(
        n_layer=2, n_embd=16, n_head=2, vocab_size=len(tokenizer), n_positions=64, initializer_range=1.0
    )
    model = GPT2LMHeadModel(config)
    model.generation_config.eos_token_id = tokenizer.eos_token_id
    runs = [generate(model, tokenizer, prompts(tokenizer), decoding(batch_size=size), seed=0) for size in (1, 8)]
    assert runs[0] == runs[1]


def test_a_cut_answer_says_so(toy: tuple) -> None:
    model, tokenizer = toy
    answers = generate(model, tokenizer, prompts(tokenizer), decoding(max_new_tokens=2), seed=0)
    assert {(a.finish_reason, a.n_tokens, len(a.token_ids)) for a in answers} == {("length", 2, 2)}


def test_every_end_token_of_the_model_stops(toy_model: Path) -> None:
    model, tokenizer = load_model(toy_model), load_tokenizer(toy_model)
    model.generation_config.eos_token_id = [7, tokenizer.eos_token_id]
    assert stop_ids(model.generation_config, tokenizer) == [7, tokenizer.eos_token_id]


def test_tokens_are_drawn_from_the_softened_distribution() -> None:
    logits = torch.tensor([[2.0, 1.0, 0.0, -1.0, float("-inf")]])
    uniforms = torch.from_numpy(np.random.default_rng(0).random(20_000))
    drawn = choose_tokens(logits.expand(20_000, -1), uniforms, temperature=0.5, top_p=1.0)
    expected = torch.softmax(logits[0].double() / 0.5, -1).numpy()[:4] * 20_000
    counts = np.bincount(drawn.numpy(), minlength=5)
    assert counts[4] == 0
    assert chisquare(counts[:4], expected).pvalue > 0.001


def test_top_p_keeps_the_smallest_set_that_reaches_the_mass() -> None:
    logits = torch.log(torch.tensor([[0.1, 0.5, 0.15, 0.25]]))
    uniforms = torch.linspace(0, 0.999, 500)
    kept = {p: set(choose_tokens(logits.expand(500, -1), uniforms, 1.0, p).tolist()) for p in (0.4, 0.7, 0.8, 1.0)}
    assert kept == {0.4: {1}, 0.7: {1, 3}, 0.8: {1, 2, 3}, 1.0: {0, 1, 2, 3}}


def test_top_k_keeps_what_torch_keeps() -> None:
    logits = torch.randn(200, 30, generator=torch.Generator().manual_seed(0))
    uniforms = torch.linspace(0, 0.9999, 4000)
    for row in logits[:5]:
        drawn = choose_tokens(row.expand(4000, -1), uniforms, 5.0, 1.0, top_k=4)
        assert set(drawn.tolist()) == set(row.topk(4).indices.tolist())
    uniforms = torch.rand(200, generator=torch.Generator().manual_seed(1))
    whole = choose_tokens(logits, uniforms, 0.7, 1.0)
    assert torch.equal(choose_tokens(logits, uniforms, 0.7, 1.0, top_k=30), whole)
    assert torch.equal(choose_tokens(logits, uniforms, 0.7, 1.0, top_k=1000), whole)
    assert torch.equal(choose_tokens(logits, uniforms, 0.7, 1.0, top_k=1), logits.argmax(-1))


def test_tokens_are_drawn_from_the_softened_distribution_of_the_k_likeliest() -> None:
    logits = torch.tensor([[0.5, 2.0, -1.0, 1.0, 1.5, 0.0]])
    uniforms = torch.from_numpy(np.random.default_rng(0).random(20_000))
    drawn = choose_tokens(logits.expand(20_000, -1), uniforms, temperature=0.9, top_p=1.0, top_k=3)
    kept = logits[0].topk(3).indices.sort().values
    counts = np.bincount(drawn.numpy(), minlength=6)
    assert counts.sum() == counts[kept].sum()
    expected = torch.softmax(logits[0, kept].double() / 0.9, -1).numpy() * 20_000
    assert chisquare(counts[kept], expected).pvalue > 0.001


def test_tokens_that_tie_with_the_kth_are_all_kept() -> None:
    logits = torch.tensor([[1.0, 2.0, 1.0, 0.0, 1.0]])
    uniforms = torch.linspace(0, 0.999, 500)
    kept = {k: set(choose_tokens(logits.expand(500, -1), uniforms, 1.0, 1.0, k).tolist()) for k in (1, 2, 4, 5)}
    assert kept == {1: {1}, 2: {0, 1, 2, 4}, 4: {0, 1, 2, 4}, 5: {0, 1, 2, 3, 4}}


def test_top_p_is_a_share_of_the_mass_that_top_k_leaves() -> None:
    logits = torch.log(torch.tensor([[0.1, 0.5, 0.15, 0.25]]))
    uniforms = torch.linspace(0, 0.999, 500)
    kept = {p: set(choose_tokens(logits.expand(500, -1), uniforms, 1.0, p, 2).tolist()) for p in (0.6, 0.7, 1.0)}
    assert kept == {0.6: {1}, 0.7: {1, 3}, 1.0: {1, 3}}  # 0.5 of 0.75 is two thirds


def test_top_k_answers_hold_likely_tokens_only_and_depend_on_no_neighbour(toy: tuple) -> None:
    model, tokenizer = toy
    settings = [decoding(top_k=3, temperature=2.0, batch_size=size) for size in (1, 3, 16)]
    runs = [generate(model, tokenizer, prompts(tokenizer), setting, seed=4) for setting in settings]
    assert runs[0] == runs[1] == runs[2]
    assert runs[0] != generate(model, tokenizer, prompts(tokenizer), decoding(temperature=2.0), seed=4)
    for prompt, answer in zip(prompts(tokenizer), runs[0], strict=True):
        with torch.no_grad():
            logits = model(torch.tensor([[*prompt.token_ids, *answer.token_ids]])).logits[0]
        likely = logits[len(prompt.token_ids) - 1 : -1].topk(3).indices
        assert all(token in row for token, row in zip(answer.token_ids, likely, strict=True))


def test_a_setting_that_is_not_asked_for_is_no_part_of_what_is_hashed() -> None:
    """Ids of answers hold these values; the hash was taken before there was a top_k."""
    assert content_id(Decoding().model_dump()) == content_id(Decoding().model_dump(mode="json")) == "881b03c6c4f5bcea"
    assert content_id(Online().model_dump(mode="json")) == "91623e01944c7a6e"
    assert Decoding(top_k=50).model_dump()["top_k"] == 50
    assert Decoding.model_validate(Decoding(top_k=50, server={}).model_dump()) == Decoding(top_k=50, server={})


def test_the_ends_of_the_unit_interval_give_tokens_of_positive_mass() -> None:
    logits = torch.tensor([[float("-inf"), 0.0, 0.0, float("-inf")]]).expand(2, -1)
    assert choose_tokens(logits, torch.tensor([0.0, np.nextafter(1.0, 0)]), 1.0, 1.0).tolist() == [1, 2]


def test_the_model_keeps_its_mode(toy_model: Path) -> None:
    model, tokenizer = load_model(toy_model).train(), load_tokenizer(toy_model)
    generate(model, tokenizer, prompts(tokenizer, ["a"]), decoding(max_new_tokens=1), seed=0)
    assert model.training


def test_a_doubled_bos_is_refused_before_anything_is_sampled(toy: tuple) -> None:
    tokenizer = toy_tokenizer(bos=True)
    with pytest.raises(UserError, match="in a row"):
        generate(toy[0], tokenizer, [Prompt("p", [tokenizer.bos_token_id] * 2)], decoding(), seed=0)
