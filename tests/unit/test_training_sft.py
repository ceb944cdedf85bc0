"""The SFT start: what is a target, what is logged, that it learns and that it is reproducible."""

from pathlib import Path

import pandas as pd
import pytest
import torch
from marginbench.errors import UserError
from marginbench.models.loading import load_model, load_tokenizer
from marginbench.models.manifest import read_manifest
from marginbench.records import TRAIN_LOG, check_table
from marginbench.study import Full, Lora, Optimisation
from marginbench.training.sft import sft_examples, train_sft


def frame(role: str = "text") -> pd.DataFrame:
    rows = [("sft", f"the film {n}", " was not a good film") for n in range(18)] + [("eval", "the", " end")]
    return pd.DataFrame(
        [
            {"text_id": f"t{i}", "role": kind, "prompt": [{"role": role, "content": prompt}], "completion": completion}
            for i, (kind, prompt, completion) in enumerate(rows)
        ]
    )


def run(
    toy_model: Path, out: Path, *, seed: int = 0, texts: pd.DataFrame | None = None, **keys: object
) -> pd.DataFrame:
    opt = Optimisation(
        **{"epochs": 2, "batch_size": 8, "micro_batch_size": 8, "learning_rate": 1e-2, "tuning": Lora(rank=4), **keys}
    )
    return train_sft(
        model_manifest=toy_model,
        texts=frame() if texts is None else texts,
        format="plain",
        opt=opt,
        corpus_id="corpus",
        model_id="toy",
        seed=seed,
        out_dir=out,
    )


def losses(log: pd.DataFrame) -> list[float]:
    return log.loc[log["quantity"] == "loss", "value"].tolist()


def test_plain_texts_are_modelled_whole_and_cut(toy_model: Path) -> None:
    tokenizer = load_tokenizer(toy_model)
    examples = sft_examples(frame(), tokenizer, "plain", max_length=200)
    assert len(examples) == 18
    assert tokenizer.decode(examples[0]["input_ids"]) == "the film 0 was not a good film<|end|>"
    assert examples[0]["labels"] == examples[0]["input_ids"]
    assert sft_examples(frame(), tokenizer, "plain", 5)[0]["input_ids"] == examples[0]["input_ids"][:5]


def test_chats_are_trained_on_the_answer_alone(toy_model: Path) -> None:
    tokenizer = load_tokenizer(toy_model)
    example = sft_examples(frame("user"), tokenizer, "chat", max_length=200)[0]
    targets = [token for token in example["labels"] if token != -100]
    assert tokenizer.decode(targets) == " was not a good film<|end|>"
    assert len(example["labels"]) == len(example["input_ids"])
    with pytest.raises(UserError, match="no room for the answer within max_length 5"):
        sft_examples(frame("user"), tokenizer, "chat", max_length=5)


def test_it_learns_and_saves_one_merged_model(toy_model: Path, tmp_path: Path) -> None:
    log = run(toy_model, tmp_path, epochs=5)
    check_table(log, TRAIN_LOG, "log")
    assert log["step"].max() == 10  # 18 texts: two full batches of 8 in each pass, the rest dropped
    assert losses(log)[-1] < 0.8 * losses(log)[0]
    manifest = read_manifest(tmp_path / "manifest.json", verify=True)
    assert (manifest.kind, manifest.base) == ("model", None)
    assert manifest.facts["trained_from"] == read_manifest(toy_model).weights_hash
    assert sorted(p.name for p in tmp_path.iterdir()) == ["manifest.json", "weights"]
    assert not any("lora" in name for name, _ in load_model(manifest).named_parameters())


def test_the_first_loss_is_the_mean_over_the_batchs_tokens(toy_model: Path, tmp_path: Path) -> None:
    texts = frame().head(8).copy()
    texts["completion"] = [" was" * (n + 1) for n in range(8)]  # lengths differ, so a mean of means would differ
    model, examples = load_model(toy_model), sft_examples(texts, load_tokenizer(toy_model), "plain", 64)
    total, count = 0.0, 0
    with torch.no_grad():
        for example in examples:
            ids = torch.tensor(example["input_ids"])
            logp = model(ids[None]).logits[0, :-1].log_softmax(-1).gather(-1, ids[1:, None])
            total, count = total - logp.sum().item(), count + len(logp)
    for micro in (8, 2):
        log = run(toy_model, tmp_path / str(micro), texts=texts, epochs=1, micro_batch_size=micro)
        assert losses(log)[0] == pytest.approx(total / count, rel=1e-5)


@pytest.mark.parametrize("tuning", [Lora(rank=4), Full()])
def test_the_same_seed_gives_the_same_weights(toy_model: Path, tmp_path: Path, tuning: object) -> None:
    hashes = []
    for name, seed in (("a", 0), ("b", 0), ("c", 1)):
        torch.manual_seed(len(hashes))  # the global state must not matter
        run(toy_model, tmp_path / name, seed=seed, tuning=tuning, epochs=1)
        hashes.append(read_manifest(tmp_path / name / "manifest.json").weights_hash)
    assert hashes[0] == hashes[1] != hashes[2]


def test_without_epochs_the_start_is_the_model_itself(toy_model: Path, tmp_path: Path) -> None:
    log = run(toy_model, tmp_path, epochs=0)
    assert log.empty
    check_table(log, TRAIN_LOG, "log")
    assert [p.name for p in tmp_path.iterdir()] == ["manifest.json"]
    assert read_manifest(tmp_path / "manifest.json").weights_hash == read_manifest(toy_model).weights_hash


def test_a_corpus_without_texts_is_refused(toy_model: Path, tmp_path: Path) -> None:
    with pytest.raises(UserError, match="role `sft`"):
        run(toy_model, tmp_path, texts=frame().tail(1))
