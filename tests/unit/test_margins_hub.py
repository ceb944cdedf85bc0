"""A reward model from elsewhere: read with its own template, every weight accounted for, sane before it scores."""

import json
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest
import torch
from marginbench.errors import UserError
from marginbench.margins.hub_reward_model import encode_text, read_sanity, score_pairs
from marginbench.models.loading import folder_tokenizer
from marginbench.models.manifest import read_manifest
from marginbench.models.toy import BOS, build_toy
from marginbench.records import MARGINS, check_table
from marginbench.study import FolderRewardModel, ToyModel, parse_reward_model
from safetensors.torch import load_file, save_file
from transformers import AutoModelForSequenceClassification

ROOT = Path(__file__).resolve().parents[2]

pytestmark = pytest.mark.slow


def make_reward_model(source: Path, folder: Path, labels: int = 1, pad: bool = True) -> Path:
    """A causal toy with a random head in the place of its vocabulary, saved as others save reward models."""
    torch.manual_seed(1)
    keys: dict[str, Any] = {"num_labels": labels} | ({} if pad else {"pad_token_id": None})
    AutoModelForSequenceClassification.from_pretrained(source, **keys).save_pretrained(folder)
    folder_tokenizer(source).save_pretrained(folder)
    return folder


@pytest.fixture(scope="module")
def classifier(toy_model: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    return make_reward_model(read_manifest(toy_model).weights_dir, tmp_path_factory.mktemp("rm"))


@pytest.fixture
def copy(classifier: Path, tmp_path: Path) -> Path:
    folder = tmp_path / "copy"
    folder.mkdir()
    for file in classifier.iterdir():
        (folder / file.name).write_bytes(file.read_bytes())
    return folder


@pytest.fixture(scope="module")
def pairs() -> pd.DataFrame:
    answers = [" good", " bad", " not bad at all", " a film", " dull"]
    return pd.DataFrame(
        {
            "pair_id": [f"p{n}" for n in range(10)],
            "prompt": [[{"role": "text", "content": f"The movie {n % 2} was"}] for n in range(10)],
            "chosen": [answers[n % 5] for n in range(10)],
            "rejected": [answers[(n + 1 + n // 5) % 5] for n in range(10)],
        }
    )


def spec(folder: Path, **keys: Any) -> FolderRewardModel:
    return parse_reward_model({"source": "folder", "path": str(folder), "max_length": 64, "batch_size": 3, **keys})


def write_sanity(path: Path, rows: list[tuple[str, str, str]]) -> Path:
    lines = [json.dumps(dict(zip(("prompt", "good", "bad"), row, strict=True))) for row in rows]
    path.write_text("\n".join(lines) + "\n", encoding="utf-8")
    return path


def score(folder: Path, pairs: pd.DataFrame, format: str = "plain", sanity: Path | None = None, **keys: Any) -> Any:
    """Scored with all losses of the sanity set allowed: what a random head makes of it is chance."""
    sanity = sanity or ROOT / "resources" / "reward_sanity.jsonl"
    keys = {"sanity_losses": 99, **keys}
    return score_pairs(spec(folder, **keys), pairs, pairs[["pair_id"]], format=format, sanity=sanity)


def alone(folder: Path, ids: list[int]) -> float:
    """The score of one text by the library's own classifier, without batches."""
    model = AutoModelForSequenceClassification.from_pretrained(folder).eval()
    with torch.no_grad():
        return model(input_ids=torch.tensor([ids])).logits.item()


@pytest.mark.parametrize("pad", [True, False])
def test_scores_are_the_classifiers_own(toy_model: Path, pairs: pd.DataFrame, tmp_path: Path, pad: bool) -> None:
    folder = make_reward_model(read_manifest(toy_model).weights_dir, tmp_path / "rm", pad=pad)
    margins = score(folder, pairs)
    check_table(margins, MARGINS, "margins")
    assert margins["pair_id"].tolist() == pairs["pair_id"].tolist()
    assert margins["margin"].nunique() > 5
    tokenizer = folder_tokenizer(folder)
    for row in range(3):
        ids = tokenizer(pairs["prompt"][row][0]["content"] + pairs["chosen"][row])["input_ids"]
        assert margins["score_chosen"][row] == pytest.approx(alone(folder, ids), abs=1e-5)


def test_equal_texts_are_scored_once(classifier: Path, pairs: pd.DataFrame, monkeypatch: pytest.MonkeyPatch) -> None:
    seen: list[int] = []
    from transformers import LlamaForSequenceClassification

    forward = LlamaForSequenceClassification.forward

    def counting(self: Any, input_ids: torch.Tensor, **keys: Any) -> Any:
        seen.append(len(input_ids))
        return forward(self, input_ids, **keys)

    monkeypatch.setattr(LlamaForSequenceClassification, "forward", counting)
    score(classifier, pairs)
    assert sum(seen) == 32 + 10  # the sanity set's 16 rows, and five answers to each of two prompts


def test_chats_go_through_its_own_template_with_one_begin_token(
    toy_model: Path, pairs: pd.DataFrame, tmp_path: Path
) -> None:
    build_toy(tmp_path / "base", ToyModel(source="toy"), seed=0, bos=True)
    folder = make_reward_model(tmp_path / "base", tmp_path / "rm")
    tokenizer = folder_tokenizer(folder)
    prompt = [{"role": "user", "content": "hi"}]
    ids, cut = encode_text(tokenizer, prompt, "hello", "chat", 64)
    assert tokenizer.decode(ids) == f"{BOS}<|user|>hi<|end|><|assistant|>hello<|end|>"
    assert not cut
    plain, _ = encode_text(tokenizer, [{"role": "text", "content": "hi"}], " there", "plain", 64)
    assert tokenizer.decode(plain) == f"{BOS}hi there"
    assert encode_text(tokenizer, prompt, "hello", "chat", 5) == (ids[:5], True)
    chats = pairs.assign(prompt=[[{"role": "user", "content": f"hi {n % 2}"}] for n in range(10)])
    margins = score(folder, chats, format="chat")
    ids, _ = encode_text(tokenizer, chats["prompt"][0], chats["rejected"][0], "chat", 64)
    assert margins["score_rejected"][0] == pytest.approx(alone(folder, ids), abs=1e-5)


def test_what_scored_is_in_the_hash(classifier: Path, copy: Path, pairs: pd.DataFrame) -> None:
    def hashed(folder: Path, **keys: Any) -> str:
        return score(folder, pairs[:3], **keys)["scorer_hash"][0]

    assert hashed(classifier) == hashed(copy) != hashed(copy, max_length=32)
    file = copy / "model.safetensors"
    weights = load_file(file)
    weights["score.weight"] *= 2
    save_file(weights, file, metadata={"format": "pt"})
    assert hashed(copy) != hashed(classifier)


def test_a_pair_that_is_equal_once_cut_is_refused(classifier: Path, pairs: pd.DataFrame) -> None:
    with pytest.raises(UserError, match=r"answers of pair p\d are the same within 8 tokens; raise .*max_length"):
        score(classifier, pairs, max_length=8)
    with pytest.raises(UserError, match=r"max_length: 9999 is more than the model's 512"):
        score(classifier, pairs, max_length=9999)


def test_the_packaged_sanity_set_is_whole() -> None:
    rows = read_sanity(ROOT / "resources" / "reward_sanity.jsonl")
    assert len(rows) == 16
    assert len({row["prompt"] for row in rows}) == 16
    # Neither length nor its opposite decides: a model that only counts characters loses more than may be lost.
    longer = sum(len(row["good"]) > len(row["bad"]) for row in rows)
    assert 2 < longer < 14, longer


def test_the_known_better_answer_must_win(classifier: Path, copy: Path, pairs: pd.DataFrame, tmp_path: Path) -> None:
    """Rows made from the head itself: it passes; with its sign turned it loses all of them, and each is named."""
    tokenizer = folder_tokenizer(classifier)
    words = [" one", " two", " three", " four", " five", " six", " seven", " eight"]
    texts = [f"Say it:{word}" for word in words]
    ordered = [words[i] for i in np.argsort([alone(classifier, tokenizer(text)["input_ids"]) for text in texts])]
    rows = [("Say it:", good, bad) for bad, good in zip(ordered[:4], ordered[4:], strict=True)]
    sanity = write_sanity(tmp_path / "sanity.jsonl", rows)
    assert len(score(classifier, pairs, sanity=sanity, sanity_losses=0)) == 10
    file = copy / "model.safetensors"
    weights = load_file(file)
    weights["score.weight"] *= -1
    save_file(weights, file, metadata={"format": "pt"})
    score(copy, pairs, sanity=sanity, sanity_losses=4)
    with pytest.raises(UserError) as caught:
        score(copy, pairs, sanity=sanity, sanity_losses=3)
    message = str(caught.value)
    assert "loses in 4 of 4 rows" in message
    assert all(f"line {n} (`Say it:`)" in message for n in (1, 2, 3, 4))
    assert "\n" not in message
    weights["score.weight"] *= 0  # ties are no wins
    save_file(weights, file, metadata={"format": "pt"})
    with pytest.raises(UserError, match="loses in 4 of 4 rows"):
        score(copy, pairs, sanity=sanity, sanity_losses=3)


BAD_SANITY = {
    "not JSON": ("{", "not valid JSON"),
    "a key is missing": ('{"prompt": "a", "good": "b"}', "line 1: a row holds"),
    "an empty text": ('{"prompt": "a", "good": "b", "bad": " "}', "line 1: a row holds"),
    "equal texts": ('{"prompt": "a", "good": "b", "bad": "b"}', "line 1: `good` and `bad` are the same"),
    "nothing": ("", "the file is empty"),
}


@pytest.mark.parametrize("name", BAD_SANITY)
def test_a_broken_sanity_set_is_named(name: str, tmp_path: Path) -> None:
    text, words = BAD_SANITY[name]
    (tmp_path / "s.jsonl").write_text(text)
    with pytest.raises(UserError, match=words):
        read_sanity(tmp_path / "s.jsonl")
