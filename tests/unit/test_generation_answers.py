"""Answer records and the log-ratio to the start: right tokens, right temperature, right reference."""

from pathlib import Path

import pandas as pd
import pytest
import torch
from marginbench.errors import UserError
from marginbench.generation.answers import Conversation, answer_conversations, answer_questions
from marginbench.generation.engine import Prompt, generate
from marginbench.generation.likelihood import answer_log_probs
from marginbench.generation.policy import Policy
from marginbench.identity import content_id
from marginbench.models.loading import load_model, load_tokenizer
from marginbench.models.lora import add_adapter, save_adapter
from marginbench.models.manifest import write_manifest
from marginbench.study import Decoding, Lora


@pytest.fixture(scope="module")
def texts() -> pd.DataFrame:
    rows = [("sft", "the film"), *[("eval", f"the movie {n}" + " was" * n) for n in range(5)]]
    return pd.DataFrame(
        [
            {"text_id": f"t{i}", "role": role, "prompt": [{"role": "text", "content": text}], "completion": " x"}
            for i, (role, text) in enumerate(rows)
        ]
    )


@pytest.fixture(scope="module")
def policy(toy_model: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """An adapter that moves the toy by a visible amount."""
    model = add_adapter(load_model(toy_model), Lora(rank=4, alpha=8), seed=0)
    generator = torch.Generator().manual_seed(0)
    with torch.no_grad():
        for name, parameter in model.named_parameters():
            if "lora_B" in name:
                parameter.normal_(std=0.05, generator=generator)
    folder = tmp_path_factory.mktemp("policy")
    save_adapter(model, folder / "weights")
    return write_manifest(folder / "manifest.json", folder / "weights", "adapter", base=toy_model).path


@pytest.fixture(scope="module")
def merged(policy: Path, toy_model: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The same policy as full weights, as a full fine-tune leaves them."""
    folder = tmp_path_factory.mktemp("merged")
    load_model(policy).merge_and_unload().save_pretrained(folder / "weights")
    load_tokenizer(toy_model).save_pretrained(folder / "weights")
    return write_manifest(folder / "manifest.json", folder / "weights", "model", base=toy_model).path


def ask(manifest: Path, texts: pd.DataFrame, n_prompts: int = 4, seed: int = 0, **keys: object) -> list[dict]:
    decoding = Decoding(**{"max_new_tokens": 6, "temperature": 0.7, "samples_per_prompt": 2, **keys})
    return answer_questions(manifest, texts, "plain", decoding, "t07", "in_domain", seed, n_prompts)


def by_hand(model: torch.nn.Module, prompt: list[int], answer: list[int], temperature: float) -> float:
    with torch.no_grad():
        logits = model(torch.tensor([prompt + answer])).logits[0] / temperature
    chosen = logits.log_softmax(-1)[torch.arange(len(prompt) - 1, len(prompt + answer) - 1), answer]
    return chosen.sum().item()


def test_log_probs_of_padded_batches_equal_those_of_single_rows(toy_model: Path) -> None:
    model = load_model(toy_model)
    prompts, answers = [[1, 2, 3], [4], [5, 6]], [[7], [8, 9, 288], [288, 288]]  # 288 is the pad token
    batch = answer_log_probs(model, prompts, answers, pad_id=288, temperature=0.7, batch_size=2)
    expected = [by_hand(model, p, a, 0.7) for p, a in zip(prompts, answers, strict=True)]
    assert batch == pytest.approx(expected, abs=1e-4)


def test_records_hold_what_the_judges_need(policy: Path, texts: pd.DataFrame) -> None:
    records = ask(policy, texts)
    assert [r["question_id"] for r in records] == ["t1", "t1", "t2", "t2", "t3", "t3", "t4", "t4"]
    assert len({r["answer_id"] for r in records}) == 8
    first = records[0]
    assert first["prompt_text"] == "the movie 0"
    assert (first["sample"], first["seed"], first["turn"], first["n_tokens"]) == (0, 0, 1, 6)
    assert first["finish_reason"] == "length"
    assert first["decoding"]["temperature"] == 0.7
    assert first["engine"]["name"] == "transformers"
    assert records[0]["prompt_token_hash"] == records[1]["prompt_token_hash"] != records[2]["prompt_token_hash"]


def test_another_policy_or_seed_makes_other_answer_ids(policy: Path, toy_model: Path, texts: pd.DataFrame) -> None:
    ids = [{r["answer_id"] for r in ask(*run)} for run in ((policy, texts, 4, 0), (policy, texts, 4, 1))]
    ids.append({r["answer_id"] for r in ask(toy_model, texts)})
    assert len(set.union(*ids)) == 24
    assert ask(policy, texts) == ask(policy, texts)


def test_the_log_ratio_is_that_of_the_sampled_tokens_at_the_decoding_temperature(
    policy: Path, toy_model: Path, texts: pd.DataFrame
) -> None:
    tokenizer, trained, start = load_tokenizer(toy_model), load_model(policy).merge_and_unload(), load_model(toy_model)
    prompts = [Prompt(f"t{i + 1}", tokenizer(f"the movie {i}" + " was" * i)["input_ids"]) for i in range(4)]
    decoding = Decoding(max_new_tokens=6, temperature=0.7, samples_per_prompt=2)
    answers = generate(trained, tokenizer, prompts, decoding, seed=0)
    tokens = {prompt.prompt_id: list(prompt.token_ids) for prompt in prompts}
    under_policy, under_start = (
        [by_hand(model, tokens[a.prompt_id], a.token_ids, 0.7) for a in answers] for model in (trained, start)
    )
    assert [a.log_prob for a in answers] == pytest.approx(under_policy, abs=1e-4)
    expected = [a - b for a, b in zip(under_policy, under_start, strict=True)]
    assert [record["kl"] for record in ask(policy, texts)] == pytest.approx(expected, abs=1e-4)
    assert max(map(abs, expected)) > 1e-2


def test_a_full_fine_tune_is_measured_against_the_model_it_was_trained_from(
    policy: Path, merged: Path, texts: pd.DataFrame
) -> None:
    adapter, full = ask(policy, texts), ask(merged, texts)
    assert [r["text"] for r in full] == [r["text"] for r in adapter]
    assert [r["kl"] for r in full] == pytest.approx([r["kl"] for r in adapter], abs=1e-3)


def test_the_mean_log_ratio_estimates_the_divergence(policy: Path, toy_model: Path, texts: pd.DataFrame) -> None:
    """One-token answers: the divergence is a sum over the vocabulary, so the estimate can be checked exactly."""
    tokenizer, samples = load_tokenizer(toy_model), 400
    records = ask(policy, texts, n_prompts=1, max_new_tokens=1, samples_per_prompt=samples, batch_size=400)
    values = torch.tensor([r["kl"] for r in records])
    with torch.no_grad():
        ids = torch.tensor([tokenizer("the movie 0")["input_ids"]])
        p, q = ((load_model(m)(ids).logits[0, -1] / 0.7).log_softmax(-1) for m in (policy, toy_model))
    exact = (p.exp() * (p - q)).sum()
    assert abs(values.mean() - exact) < 4 * values.std() / samples**0.5
    assert exact > 4 * values.std() / samples**0.5


def test_no_log_ratio_where_it_would_not_mean_anything(policy: Path, toy_model: Path, texts: pd.DataFrame) -> None:
    assert {r["kl"] for r in ask(toy_model, texts)} == {0.0}
    assert {r["kl"] for r in ask(policy, texts, top_p=0.9)} == {None}
    assert {r["kl"] for r in ask(policy, texts, top_k=5)} == {None}
    assert {r["kl"] for r in ask(policy, texts, temperature=0)} == {None}


def chat(*turns: str) -> list[dict[str, str]]:
    return [{"role": ("user", "assistant")[i % 2], "content": text} for i, text in enumerate(turns)]


def converse(policy: Policy, asked: list[Conversation], **keys: object) -> list[dict]:
    decoding = Decoding(**{"max_new_tokens": 6, "temperature": 0.7, **keys})
    return answer_conversations(policy, asked, "chat", decoding, "g", "mt_bench", 0)


def test_two_turns_of_a_conversation(policy: Path) -> None:
    """A turn of MT-Bench at a time: the second one's messages hold the answer to the first."""
    opened = Policy(policy)
    questions = [("q1", "Why?", "And then?"), ("q2", "a movie", "of the")]
    first = converse(opened, [Conversation(q, chat(one)) for q, one, _ in questions], temperature=0)
    asked = [
        Conversation(q, chat(one, answer["text"], two), turn=2)
        for (q, one, two), answer in zip(questions, first, strict=True)
    ]
    second = converse(opened, asked, temperature=0)
    assert [(r["question_id"], r["turn"]) for r in [*first, *second]] == [("q1", 1), ("q2", 1), ("q1", 2), ("q2", 2)]
    assert len({r["answer_id"] for r in [*first, *second]}) == 4
    assert first[0].keys() == second[0].keys()
    assert first[0]["prompt_text"] == "Why?"
    assert second[0]["prompt_text"] == f"User: Why?\n\nAssistant: {first[0]['text']}\n\nUser: And then?"
    text = f"<|user|>Why?<|end|><|assistant|>{first[0]['text']}<|end|><|user|>And then?<|end|><|assistant|>"
    ids = opened.tokenizer(text)["input_ids"]
    assert second[0]["prompt_token_hash"] == content_id("tokens", ids)
    greedy = opened.model.generate(torch.tensor([ids]), max_new_tokens=6, do_sample=False, pad_token_id=0)
    assert second[0]["text"] == opened.tokenizer.decode(greedy[0, len(ids) :], skip_special_tokens=True)


def test_every_turn_draws_its_own_random_numbers(policy: Path) -> None:
    opened = Policy(policy)
    turns = [Conversation("q", chat("Why?"), turn) for turn in (1, 2)]
    one, two = converse(opened, turns)
    assert one["prompt_token_hash"] == two["prompt_token_hash"]
    assert one["text"] != two["text"]
    assert converse(opened, turns[1:])[0]["answer_id"] == two["answer_id"]
    with pytest.raises(ValueError, match="asked twice"):
        converse(opened, [turns[0], turns[0]])


def test_too_few_prompts_are_an_error(policy: Path, texts: pd.DataFrame) -> None:
    with pytest.raises(UserError, match="asks for 6 prompts, but the corpus keeps 5"):
        ask(policy, texts, n_prompts=6)
