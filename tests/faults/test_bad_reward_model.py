"""Reward models from elsewhere that must not score: a head that is missing, new, of another shape, or left over."""

from pathlib import Path

import pandas as pd
import pytest
import torch
from marginbench.errors import UserError
from marginbench.margins.hub_reward_model import load_classifier, score_pairs
from marginbench.models.loading import folder_tokenizer
from marginbench.models.manifest import read_manifest
from marginbench.study import parse_reward_model
from safetensors.torch import load_file, save_file
from transformers import AutoModelForSequenceClassification

pytestmark = pytest.mark.slow


@pytest.fixture
def folder(toy_model: Path, tmp_path: Path) -> Path:
    source = read_manifest(toy_model).weights_dir
    AutoModelForSequenceClassification.from_pretrained(source, num_labels=1).save_pretrained(tmp_path / "rm")
    folder_tokenizer(source).save_pretrained(tmp_path / "rm")
    return tmp_path / "rm"


def change(folder: Path, edit) -> None:
    weights = load_file(folder / "model.safetensors")
    edit(weights)
    save_file(weights, folder / "model.safetensors", metadata={"format": "pt"})


def test_a_whole_one_loads(folder: Path) -> None:
    assert load_classifier(folder, "fp32").config.num_labels == 1


FAULTS = {
    "head missing": (lambda w: w.pop("score.weight"), r"lacks the weight score\.weight"),
    "head renamed": (
        lambda w: w.update({"v_head.weight": w.pop("score.weight")}),
        r"lacks the weight score\.weight",
    ),
    "a second head": (
        lambda w: w.update({"v_head.weight": torch.ones(1, 32)}),
        r"the weight v_head\.weight .* no place",
    ),
    "two labels in the file": (
        lambda w: w.update({"score.weight": torch.ones(2, 32)}),
        r"has the wrong shape for score\.weight",
    ),
    "another width": (
        lambda w: w.update({"score.weight": torch.ones(1, 16)}),
        r"has the wrong shape for score\.weight",
    ),
    "body weight missing": (
        lambda w: w.pop("model.layers.1.self_attn.q_proj.weight"),
        r"lacks the weight model\.layers\.1\.self_attn\.q_proj",
    ),
    "a third block": (
        lambda w: w.update({"model.layers.2.self_attn.q_proj.weight": torch.ones(2, 2)}),
        r"the weight model\.layers\.2\.self_attn\.q_proj\.weight",
    ),
}


@pytest.mark.parametrize("name", FAULTS)
def test_a_weight_that_does_not_fit_is_an_error(folder: Path, name: str) -> None:
    edit, words = FAULTS[name]
    change(folder, edit)
    with pytest.raises(UserError, match=words) as caught:
        load_classifier(folder, "fp32")
    assert "\n" not in str(caught.value)


def test_a_language_model_is_no_reward_model(toy_model: Path) -> None:
    with pytest.raises(UserError, match=r"lacks the weight score\.weight"):
        load_classifier(read_manifest(toy_model).weights_dir, "fp32")


def test_a_classifier_of_two_labels_is_no_reward_model(toy_model: Path, tmp_path: Path) -> None:
    source = read_manifest(toy_model).weights_dir
    AutoModelForSequenceClassification.from_pretrained(source, num_labels=2).save_pretrained(tmp_path / "two")
    with pytest.raises(UserError, match="has 2 labels; a reward model has one"):
        load_classifier(tmp_path / "two", "fp32")


def test_a_revision_that_is_not_there_and_a_pickle(folder: Path) -> None:
    sanity = Path(__file__).resolve().parents[2] / "resources" / "reward_sanity.jsonl"
    none = pd.DataFrame({"pair_id": []})
    hub = parse_reward_model({"source": "hub", "id": "nobody/nothing", "revision": "0" * 40})
    with pytest.raises(UserError, match="model nobody/nothing at revision 0000"):
        score_pairs(hub, none, none, format="plain", sanity=sanity)
    (folder / "model.safetensors").rename(folder / "pytorch_model.bin")
    pickled = parse_reward_model({"source": "folder", "path": str(folder)})
    with pytest.raises(UserError, match=r"pytorch_model\.bin, a pickle"):
        score_pairs(pickled, none, none, format="plain", sanity=sanity)
