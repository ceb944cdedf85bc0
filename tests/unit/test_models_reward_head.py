"""The scalar head: read at the last attended token, whatever the pad id; never silently random."""

from pathlib import Path

import torch
from marginbench.models.loading import load_tokenizer
from marginbench.models.manifest import read_manifest
from marginbench.models.reward_head import new_reward_model, reward_scores


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
