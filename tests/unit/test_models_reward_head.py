"""The scalar head: read at the last attended token, whatever the pad id; never silently random."""

from pathlib import Path

import pandas as pd
import pytest
import torch
from marginbench.errors import UserError
from marginbench.models.loading import load_model, load_tokenizer
from marginbench.models.manifest import read_manifest
from marginbench.models.reward_head import head_from_words, new_reward_model, reward_scores, reward_sequences


def test_an_answer_that_ends_with_the_pad_token_is_read_at_its_end(toy_model: Path) -> None:
    model = new_reward_model(read_manifest(toy_model), seed=0).eval()
    end = load_tokenizer(toy_model).eos_token_id
    texts = [[10, 11, 12, end], [10, 11, 12], [10, 11, 12, end, end, 13]]
    alone = [reward_scores(model, [ids], pad_id=end)[0] for ids in texts]
    with torch.no_grad():
        hidden = [model.model(torch.tensor([ids])).last_hidden_state[0, -1] for ids in texts]
        expected = [model.score(state).item() for state in hidden]
    assert torch.allclose(torch.tensor(alone), torch.tensor(expected), atol=1e-6)
    assert abs(alone[0] - alone[1]) > 1e-3
    together = reward_scores(model, texts, pad_id=end, batch_size=3)
    assert torch.allclose(torch.tensor(together), torch.tensor(alone), atol=1e-5)


def test_the_head_depends_on_its_seed_alone(toy_model: Path) -> None:
    heads = []
    for seed, noise in ((1, 0), (1, 9), (2, 0)):
        torch.manual_seed(noise)
        heads.append(new_reward_model(read_manifest(toy_model), seed).score.weight)
    assert torch.equal(heads[0], heads[1])
    assert not torch.equal(heads[0], heads[2])


def test_a_head_from_words_is_the_log_odds_of_the_words(toy_model: Path) -> None:
    start, tokenizer = read_manifest(toy_model), load_tokenizer(toy_model)
    model = new_reward_model(start, seed=0).eval()
    head_from_words(model, start, tokenizer, ["a", "b"], ["c"])
    ids = [10, 11, 12]
    score = reward_scores(model, [ids], pad_id=tokenizer.pad_token_id)[0]
    with torch.no_grad():
        logits = load_model(toy_model)(torch.tensor([ids])).logits[0, -1]
    a, b, c = (logits[tokenizer.encode(word, add_special_tokens=False)[0]] for word in "abc")
    assert score == pytest.approx(((a + b) / 2 - c).item(), abs=1e-5)


def test_a_word_of_several_tokens_is_refused(toy_model: Path) -> None:
    start = read_manifest(toy_model)
    with pytest.raises(UserError, match="`abc` is 3 tokens"):
        head_from_words(new_reward_model(start, 0), start, load_tokenizer(toy_model), ["abc"], ["c"])


def test_the_cue_stands_at_the_end_and_is_never_cut() -> None:
    tokens = pd.DataFrame({"prompt_ids": [[1, 2], [1]], "chosen_ids": [[3, 4, 5], [6]], "rejected_ids": [[7], [8]]})
    assert reward_sequences(tokens, "chosen", 5, [9, 9]) == [[1, 2, 3, 9, 9], [1, 6, 9, 9]]
    assert reward_sequences(tokens, "rejected") == [[1, 2, 7], [1, 8]]
    with pytest.raises(UserError, match=r"reward_model\.cue fills max_length 2"):
        reward_sequences(tokens, "chosen", 2, [9, 9])
