"""Labels: asked once, the same for every order and arm, ties by a coin of the pair's own; and who gives them."""

from types import SimpleNamespace

import numpy as np
import pandas as pd
import pytest
import torch
from judging_tools import CountingBackend, judge, served
from marginbench.data.classifier import TextClassifier, true_reward
from marginbench.data.messages import plain_prompt
from marginbench.errors import UserError
from marginbench.files import write_jsonl
from marginbench.identity import file_sha256
from marginbench.margins.hub_reward_model import score_pairs as hub_margins
from marginbench.margins.reward_model import score_pairs
from marginbench.models.loading import folder_tokenizer, load_tokenizer
from marginbench.models.manifest import read_manifest
from marginbench.models.template import encode_answer, encode_prompt
from marginbench.online.candidates import Candidate
from marginbench.online.evaluation import win_rate
from marginbench.online.labellers import Judge, Scored, classifier, hub_reward_model, reward_model
from marginbench.online.labels import Answer, Labels, Question, Verdict
from marginbench.online.run import _same
from marginbench.online.stages import RunStages
from marginbench.study import Lora, RewardModel, parse_reward_model
from scipy.special import expit
from transformers import AutoModelForSequenceClassification


def question(first, second, prompt="The film", ended=True):
    return Question(prompt, plain_prompt(prompt), Answer(first, ended), Answer(second, ended))


class Lengths:
    """The longer answer wins; counts what it is asked; has no verdict on `?`."""

    id, version, template, scores = "lengths", "1", "t", True

    def __init__(self):
        self.asked = []

    def compare(self, questions):
        self.asked += questions
        gaps = [float(len(q.first.text) - len(q.second.text)) for q in questions]
        return [
            Verdict(None, reason="no reply")
            if "?" in q.first.text + q.second.text
            else Verdict(0.5 if gap == 0 else float(gap > 0), gap)
            for q, gap in zip(questions, gaps, strict=True)
        ]


def swapped(q):
    return Question(q.prompt_id, q.prompt, q.second, q.first)


def test_nothing_is_asked_twice(tmp_path):
    asked = [question(" good", " a"), question(" a", " good"), question(" good", " a", "Another")]
    labeller = Lengths()
    labels = Labels(labeller, tmp_path / "labels.jsonl", "none", 0)
    assert [label.first_wins for label in labels.choose(asked)] == [True, False, True]
    assert len(labeller.asked) == 2, "a pair in the other order is the same pair; another prompt makes another"
    again = Lengths()
    assert Labels(again, tmp_path / "labels.jsonl", "none", 0).choose(asked) == labels.choose(asked)
    assert again.asked == []


def test_a_pair_of_a_round_before_the_kill_is_not_counted_again(tmp_path):
    """Rounds may bring the same answers to a prompt back: one label, whether or not the run was taken up in between."""

    def stages():
        policy = SimpleNamespace(weights=dict, set_weights=lambda weights: None)
        updater = SimpleNamespace(save=lambda: ({}, {}), load=lambda tensors, numbers: None)
        labels = Labels(Lengths(), tmp_path / "labels.jsonl", "none", 0)
        prompts = pd.DataFrame({"text_id": ["p"], "prompt": [plain_prompt("The film")]})
        return RunStages(policy, updater, labels, prompts, None, False, False, [])

    one, two, three = (Candidate("p", n, text, (n,), True, -1.0) for n, text in enumerate((" good", " a", " the")))
    before = stages()
    assert before.label([(one, two), (two, one)])[1] == 1
    tensors, facts = before.keep()
    facts["updater"] = {}
    after = stages()
    after.take_up(tensors, [facts])
    assert after.label([(two, one), (one, three)]) == ([False, True], 1)


@pytest.mark.parametrize(("part", "value"), [("id", "other"), ("version", "2"), ("template", "u")])
def test_another_labeller_version_or_template_is_asked_again(tmp_path, part, value):
    Labels(Lengths(), tmp_path / "labels.jsonl", "none", 0).choose([question(" good", " a")])
    other = Lengths()
    setattr(other, part, value)
    Labels(other, tmp_path / "labels.jsonl", "none", 0).choose([question(" good", " a")])
    assert len(other.asked) == 1


def test_a_missing_verdict_stops_the_run_and_keeps_the_others(tmp_path):
    asked = [question(" good", " a"), question(" what?", " a")]
    labels = Labels(Lengths(), tmp_path / "labels.jsonl", "none", 0)
    with pytest.raises(UserError, match=r"1 of 2 pairs got no label \(no reply\)"):
        labels.choose(asked)
    again = Lengths()
    Labels(again, tmp_path / "labels.jsonl", "none", 0).choose(asked[:1])
    assert again.asked == []


def test_ties_are_a_coin_of_the_pair(tmp_path):
    asked = [question(f" {i:03d}", f" {i + 500:03d}") for i in range(400)]
    labels = Labels(Lengths(), tmp_path / "a.jsonl", "none", 0)
    wins = [label.first_wins for label in labels.choose(asked)]
    assert 160 < sum(wins) < 240
    other = [label.first_wins for label in labels.choose([swapped(q) for q in reversed(asked)])]
    assert [not win for win in reversed(other)] == wins, "neither order nor round decides"
    assert [label.first_wins for label in Labels(Lengths(), tmp_path / "b.jsonl", "none", 1).choose(asked)] != wins


def test_equal_answers_are_ties_that_nobody_is_asked_about(tmp_path):
    labeller = Lengths()
    labels = Labels(labeller, tmp_path / "labels.jsonl", "bradley_terry", 0)
    found = labels.choose([question(" same", " same", f"p{i}") for i in range(200)])
    assert labeller.asked == []
    assert 70 < sum(label.first_wins for label in found) < 130
    assert not any(label.asked for label in found)


def test_bradley_terry_labels_are_drawn_by_the_gap(tmp_path):
    """Gap 1: the longer answer should win in 73 % of the pairs; the draw is the pair's, in any order."""
    asked = [question(f" {i:04d}x", f" {i + 1:04d}") for i in range(2000)]
    labels = Labels(Lengths(), tmp_path / "labels.jsonl", "bradley_terry", 3)
    wins = [label.first_wins for label in labels.choose(asked)]
    assert np.mean(wins) == pytest.approx(expit(1.0), abs=0.03)
    assert [not label.first_wins for label in labels.choose([swapped(q) for q in asked])] == wins
    noiseless = Labels(Lengths(), tmp_path / "labels.jsonl", "none", 3)
    assert all(label.first_wins for label in noiseless.choose(asked)), "the verdict that is kept has no noise"


def test_a_judge_without_scores_has_no_noise_to_draw(tmp_path):
    labeller = Lengths()
    labeller.scores = False
    with pytest.raises(UserError, match="gives no scores"):
        Labels(labeller, tmp_path / "labels.jsonl", "bradley_terry", 0)


def test_scores_are_remembered_penalised_and_finite():
    calls = []

    def score(texts):
        calls.append(len(texts))
        return np.array([float(len(answer.text)) if answer.text != "bad" else np.nan for _, answer in texts])

    scored = Scored("s", "1", "", score, missing_end_penalty=2.0)
    assert scored.compare([question("aa", "b"), question("aa", "cc")]) == [Verdict(1.0, 1.0), Verdict(0.5, 0.0)]
    scored.compare([question("aa", "ddd")])
    assert calls == [3, 1]
    cut = Question("The film", plain_prompt("The film"), Answer("aa", False), Answer("b", True))
    assert scored.compare([cut]) == [Verdict(0.0, -1.0)]
    with pytest.raises(UserError, match="not finite"):
        scored.compare([question("aa", "bad")])


def test_v8_a_win_rate_from_scores_whoever_is_shown_first():
    """Vector V8: 3 wins, 1 tie, 1 loss; the released count of both directions gives 0.4."""
    start, now = [0.2, 1.0, -0.5, 0.7, 0.0], [0.9, 1.0, -0.6, 1.7, 0.1]
    value = {f" s{i}": s for i, s in enumerate(start)} | {f" n{i}": s for i, s in enumerate(now)}
    scored = Scored("v8", "1", "", lambda texts: np.array([value[answer.text] for _, answer in texts]))
    asked = [question(f" n{i}", f" s{i}", f"p{i}") for i in range(5)]
    there, back = ([v.credit for v in scored.compare(qs)] for qs in (asked, [swapped(q) for q in asked]))
    assert there == [1.0, 0.5, 0.0, 1.0, 1.0]
    assert (win_rate(there), win_rate(back)) == (pytest.approx(70.0), pytest.approx(30.0))
    assert win_rate([*there, *(1 - credit for credit in back)]) == pytest.approx(70.0)


def test_the_classifier_gives_the_ground_truth(tmp_path):
    texts = ["a good warm film", "good fun", "a bad dull film", "bad and dull"] * 3
    fitted = TextClassifier.fit(texts, [1, 1, 0, 0] * 3, 0)
    fitted.save(tmp_path / "a.npz")
    labeller = classifier("truth", tmp_path / "a.npz")
    verdict = labeller.compare([question(" was good", " was bad")])[0]
    wanted = true_reward(fitted, ["The film was good", "The film was bad"])
    assert (verdict.credit, verdict.gap) == (1.0, wanted[0] - wanted[1])


@pytest.mark.parametrize("other", ["the same file", "another"])
def test_a_server_with_the_labellers_classifier_is_the_labeller(tmp_path, other):
    """Asked through a prompt, under another id, it has the labeller's taste all the same."""
    texts = ["a good warm film", "good fun", "a bad dull film", "bad and dull"] * 3
    TextClassifier.fit(texts, [1, 1, 0, 0] * 3, 0).save(tmp_path / "labels.npz")
    TextClassifier.fit(texts[::-1], [0, 1, 0, 1] * 3, 1).save(tmp_path / "another.npz")
    served_file = tmp_path / ("labels.npz" if other == "the same file" else "another.npz")
    truth = classifier("truth", tmp_path / "labels.npz")
    asked = Judge(judge(), "http://x", file_sha256(served_file))
    assert truth.version != asked.version
    assert _same(asked, truth) is (other == "the same file")
    assert not _same(Scored("a", "1", "", truth.score), Scored("b", "2", "", truth.score)), "unknown weights differ"


@pytest.mark.slow
def test_a_reward_model_labels_as_it_scores_margins(toy_model, tmp_path):
    from marginbench.training.reward_model import train_reward_model

    tokenizer = load_tokenizer(toy_model)
    answers = [" good", " bad", " not bad at all", " a film", " the movie that I saw", " it is"]
    prompt = encode_prompt(tokenizer, plain_prompt("The film"), "plain")
    ids = [encode_answer(tokenizer, answer, True) for answer in answers]
    tokens = pd.DataFrame(
        {
            "pair_id": [f"p{n}" for n in range(6)],
            "split": ["train"] * 4 + ["holdout"] * 2,
            "prompt_ids": [prompt] * 6,
            "chosen_ids": ids,
            "rejected_ids": [*ids[1:], ids[0]],
        }
    )
    opt = RewardModel(epochs=1, batch_size=4, micro_batch_size=4, max_length=14, tuning=Lora(rank=2), cue=" so")
    train_reward_model(
        start_manifest=toy_model, tokens=tokens, opt=opt, dataset_id="d", model_id="toy", seed=0, out_dir=tmp_path
    )
    labeller = reward_model("rm", tmp_path / "manifest.json", "plain")
    found = labeller.compare([question(answers[n], answers[(n + 1) % 6]) for n in range(6)])
    wanted = score_pairs(tmp_path / "manifest.json", tokens)["margin"]
    assert [verdict.gap for verdict in found] == pytest.approx(wanted.tolist(), abs=1e-5)
    assert len({verdict.gap for verdict in found}) == 6


@pytest.mark.slow
def test_a_reward_model_from_elsewhere_labels_as_it_scores_margins(toy_model, tmp_path):
    torch.manual_seed(1)
    source = read_manifest(toy_model).weights_dir
    AutoModelForSequenceClassification.from_pretrained(source, num_labels=1).save_pretrained(tmp_path / "rm")
    folder_tokenizer(source).save_pretrained(tmp_path / "rm")
    row = {"prompt": "It was", "good": " good", "bad": " bad"}
    write_jsonl(tmp_path / "sanity.jsonl", [row])
    spec = parse_reward_model({"source": "folder", "path": str(tmp_path / "rm"), "max_length": 64, "sanity_losses": 1})
    labeller = hub_reward_model("rm", spec, "plain", tmp_path / "sanity.jsonl")
    asked = [question(" good", " bad"), question(" a film", " dull")]
    pairs = pd.DataFrame(
        {
            "pair_id": ["p0", "p1"],
            "prompt": [q.prompt for q in asked],
            "chosen": [q.first.text for q in asked],
            "rejected": [q.second.text for q in asked],
        }
    )
    wanted = hub_margins(spec, pairs, pairs[["pair_id"]], format="plain", sanity=tmp_path / "sanity.jsonl")["margin"]
    assert [verdict.gap for verdict in labeller.compare(asked)] == pytest.approx(wanted.tolist(), abs=1e-6)
    loses = {**row, "good": row["bad"], "bad": row["good"]} if wanted[0] > 0 else row
    write_jsonl(tmp_path / "sanity.jsonl", [loses | {"prompt": "The film"}])
    strict = spec.model_copy(update={"sanity_losses": 0})
    with pytest.raises(UserError, match="the known better answer loses"):
        hub_reward_model("rm", strict, "plain", tmp_path / "sanity.jsonl")


@pytest.mark.parametrize("order", ["seeded_by_instruction", "both"])
def test_a_judge_behind_a_server(order):
    """The counting backend scores exclamation marks, so the verdict does not depend on who is shown first."""
    backend = CountingBackend()
    with served(backend) as base_url:
        asked = [question(" fine!!", " fine", f"Film {i}") for i in range(4)] + [question(" a", " b!", "Film 9")]
        found = Judge(judge(order=order), base_url).compare(asked)
        assert [verdict.credit for verdict in found] == [1.0] * 4 + [0.0]
        same = Judge(judge(order=order), base_url).compare([question(" same", " same")])
    assert same[0].credit == 0.5
    assert Judge(judge(order="both"), None).version != Judge(judge(), None).version
    assert Judge(judge(), None, "a").version != Judge(judge(), None, "b").version


def test_a_judge_that_always_names_the_first_gives_half(monkeypatch):
    rows = [{"preference": 1.9, "reason": None}, {"preference": 1.1, "reason": None}]
    monkeypatch.setattr("marginbench.online.labellers.judge_pairs", lambda *rest: rows)
    assert Judge(judge(order="both"), "http://x").compare([question("a", "b")]) == [Verdict(0.5)]
    rows[1] = {"preference": None, "reason": "lost"}
    assert Judge(judge(order="both"), "http://x").compare([question("a", "b")]) == [Verdict(None, reason="lost")]
