"""A reward model behind the judge's protocol: its own scores, with its cue and its cut."""

import pytest
from marginbench.judging.backends import RewardModelBackend, log_probs
from marginbench.models.loading import load_tokenizer
from marginbench.models.manifest import read_manifest, write_manifest
from marginbench.models.reward_head import load_reward_model, new_reward_model, reward_scores


@pytest.fixture(scope="module")
def manifest(toy_model, tmp_path_factory):
    folder = tmp_path_factory.mktemp("reward_model")
    new_reward_model(read_manifest(toy_model), seed=0).save_pretrained(folder / "weights")
    facts = {"max_length": 6, "cue_ids": [9]}
    return write_manifest(folder / "m.json", folder / "weights", "reward_model", base=toy_model, facts=facts).path


def test_it_scores_as_the_reward_model_does(manifest):
    backend = RewardModelBackend(str(manifest))
    known = read_manifest(manifest)
    tokenizer, model = load_tokenizer(known), load_reward_model(known)
    bos = [tokenizer.bos_token_id] if tokenizer("a")["input_ids"][0] == tokenizer.bos_token_id else []
    for text in ("abc", "abcdefgh"):
        ids = [*bos, *tokenizer(text, add_special_tokens=False)["input_ids"]]
        expected = reward_scores(model, [[*ids[:5], 9]], tokenizer.pad_token_id)[0]
        assert backend.score(text) == pytest.approx(expected, abs=1e-6)
    assert backend.score("abc") != backend.score("abd")
    assert backend.count("abc") == 3
    assert backend.weights_hash == known.weights_hash
    first, second = log_probs(backend, "a", "b", "c")
    assert second - first == pytest.approx(backend.score("ac") - backend.score("ab"), abs=1e-6)
