"""The server engine: records as of the transformers engine, from a server that may fail, lie or serve another model."""

import json
import shutil
import threading
from collections.abc import Iterator
from pathlib import Path

import pytest
from completions_server import ToyCompletions, served
from marginbench.errors import UserError
from marginbench.generation import server_engine
from marginbench.generation.answers import Conversation, answer_conversations
from marginbench.generation.engine import Prompt
from marginbench.generation.policy import Policy
from marginbench.identity import seed_for
from marginbench.models.loading import load_tokenizer
from marginbench.models.manifest import read_manifest, write_manifest
from marginbench.models.toy import toy_tokenizer
from marginbench.study import Decoding, Server
from pydantic import ValidationError

STOPS = [*range(0, 256, 8), 270]
TEXTS = ["the movie", "I saw this film and", "a", "this was not in the movie that I saw", "it is", "Why", "of the"]


@pytest.fixture(scope="module")
def manifest(toy_model: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The toy as a policy trained from itself, with many end tokens, so that answers end at different lengths."""
    folder = tmp_path_factory.mktemp("served")
    shutil.copytree(read_manifest(toy_model).weights_dir, folder / "weights")
    settings = folder / "weights" / "generation_config.json"
    settings.write_text(json.dumps({**json.loads(settings.read_text()), "eos_token_id": STOPS}))
    return write_manifest(folder / "manifest.json", folder / "weights", "model", base=toy_model).path


@pytest.fixture(scope="module")
def model(manifest: Path) -> ToyCompletions:
    return ToyCompletions(
        manifest, read_manifest(manifest).weights_hash, [*STOPS, load_tokenizer(manifest).eos_token_id]
    )


@pytest.fixture
def toy(model: ToyCompletions) -> ToyCompletions:
    model.bodies, model.keys, model.faults, model.told, model.most = [], [], [], True, 0
    model.name = model.name.removeprefix("other-")
    return model


@pytest.fixture
def url(toy: ToyCompletions) -> Iterator[str]:
    with served(toy) as address:
        yield address


@pytest.fixture
def once(monkeypatch: pytest.MonkeyPatch) -> None:
    """No retries."""
    monkeypatch.setattr(server_engine, "MAX_RETRIES", 0)


def decoding(url: str | None = None, **keys: object) -> Decoding:
    server = None if url is None else Server(base_url=url)
    return Decoding(**{"max_new_tokens": 12, "batch_size": 3, "temperature": 0, **keys}, server=server)


def answers(manifest: Path, how: Decoding, texts: list[str] = TEXTS, seed: int = 0) -> list[dict]:
    asked = [Conversation(f"id of {text}", [{"role": "text", "content": text}]) for text in texts]
    return answer_conversations(Policy(manifest), asked, "plain", how, "g", "in_domain", seed)


def test_greedy_answers_are_those_of_the_transformers_engine(manifest: Path, url: str, toy: ToyCompletions) -> None:
    here, there = answers(manifest, decoding()), answers(manifest, decoding(url))
    assert {record["finish_reason"] for record in here} == {"stop", "length"}
    facts = {"name": "server", "server": "toy", "version": "1.2.3", "model": toy.name}
    assert there == [{**record, "engine": facts} for record in here]


def test_what_is_sent_leaves_nothing_to_the_server(manifest: Path, url: str, toy: ToyCompletions) -> None:
    answers(manifest, decoding(url, temperature=0.9, top_k=50, top_p=0.95, samples_per_prompt=2), ["Why"], seed=3)
    tokenizer = load_tokenizer(manifest)
    assert {body.pop("seed") for body in toy.bodies} == {seed_for("sampling", "id of Why", s, 3) for s in (0, 1)}
    assert toy.bodies[0] == toy.bodies[1]
    assert toy.bodies[0] == {
        "model": toy.name,
        "prompt": tokenizer("Why")["input_ids"],
        "max_tokens": 12,
        "temperature": 0.9,
        "top_p": 0.95,
        "top_k": 50,
        "min_p": 0.0,
        "presence_penalty": 0.0,
        "frequency_penalty": 0.0,
        "repetition_penalty": 1.0,
        "stop_token_ids": sorted([*STOPS, tokenizer.eos_token_id]),
        "return_token_ids": True,
    }
    answers(manifest, decoding(url), ["Why"])
    assert toy.bodies[-1]["top_k"] == -1
    assert max(toy.bodies[-1]["prompt"]) < len(tokenizer)


def test_samples_repeat_with_the_seed_and_differ_without(manifest: Path, url: str) -> None:
    how = decoding(url, temperature=1, samples_per_prompt=2)
    first = answers(manifest, how)
    assert first == answers(manifest, how)
    assert [(r["question_id"], r["sample"]) for r in first] == [(f"id of {t}", s) for t in TEXTS for s in (0, 1)]
    texts = [record["text"] for record in first]
    assert texts[::2] != texts[1::2]
    assert texts != [record["text"] for record in answers(manifest, how, seed=1)]


def test_no_more_requests_are_in_flight_than_allowed(manifest: Path, url: str, toy: ToyCompletions) -> None:
    both = threading.Barrier(2, timeout=20)
    toy.faults = [lambda reply: both.wait() < 2 and reply] * 2
    answers(manifest, decoding(url, batch_size=2))
    assert toy.most == 2


def test_log_probabilities_are_the_servers_or_asked_of_the_weights(
    manifest: Path, url: str, toy: ToyCompletions, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The policy has its start's weights: every log-ratio is 0 if it is made of the right tokens and temperatures."""
    loaded = []
    whole = Policy.model.func
    monkeypatch.setattr(Policy, "model", property(lambda self: loaded.append(1) or whole(self)))
    told = answers(manifest, decoding(url, temperature=1))
    assert "logprobs" in toy.bodies[0]
    assert not loaded
    toy.told = False
    asked = answers(manifest, decoding(url, temperature=1))
    assert loaded
    softened = answers(manifest, decoding(url, temperature=0.5))
    assert "logprobs" not in toy.bodies[-1], "a server may tell them before temperature"
    for records in (told, asked, softened):
        assert [record["kl"] for record in records] == pytest.approx([0.0] * len(TEXTS), abs=1e-4)
    assert {record["kl"] for record in answers(manifest, decoding(url, temperature=1, top_k=5))} == {None}


def test_a_log_probability_is_the_sum_over_the_sampled_tokens(manifest: Path, url: str) -> None:
    policy = Policy(manifest)
    prompts = [Prompt(text, policy.tokenizer(text)["input_ids"]) for text in TEXTS]
    found, _ = policy.generate(prompts, decoding(url, temperature=1), 0)
    expected = policy._log_probs(policy.model, prompts, found, decoding(temperature=1), lambda *_: None)
    assert [answer.log_prob for answer in found] == pytest.approx(expected, abs=1e-4)
    assert max(answer.log_prob for answer in found) < -1


@pytest.mark.parametrize("fault", ["500", "cut", "half"])
def test_a_request_that_fails_is_tried_again(manifest: Path, url: str, toy: ToyCompletions, fault: str) -> None:
    expected = answers(manifest, decoding(url))
    toy.bodies.clear()
    toy.faults = [fault]
    assert answers(manifest, decoding(url)) == expected
    assert len(toy.bodies) == len(TEXTS) + 1


@pytest.mark.parametrize("fault", ["500", "cut", "half"])
def test_a_request_that_fails_for_good_names_the_prompt(
    manifest: Path, url: str, toy: ToyCompletions, once: None, fault: str
) -> None:
    toy.faults = [lambda reply: reply, fault]
    with pytest.raises(UserError, match=r"^prompt `id of .*`, sample 0: the server at .* gave no answer") as caught:
        answers(manifest, decoding(url, batch_size=1))
    assert "\n" not in str(caught.value)


def choice(**changes: object) -> object:
    return lambda reply: {**reply, "choices": [{**reply["choices"][0], **changes}]}


@pytest.mark.parametrize(
    ("fault", "message"),
    [
        (lambda reply: {**reply, "choices": []}, "without an answer"),
        (lambda reply: {**reply, "model": "another"}, "answered with `another` instead of"),
        (choice(token_ids=None), "no token ids"),
        (choice(token_ids=[], text=""), "no token ids"),
        (choice(finish_reason="abort"), r"after \d+ of 12 tokens \(finish_reason abort"),
        (choice(finish_reason="length", token_ids=[1, 2]), "after 2 of 12 tokens"),
        (choice(finish_reason="stop", token_ids=[1, 2]), "after 2 of 12 tokens"),
        (lambda reply: {**reply, "usage": {**reply["usage"], "completion_tokens": 40}}, "40 counted"),
        (lambda reply: {**reply, "usage": {**reply["usage"], "prompt_tokens": 1}}, "read 1 tokens, 3 were sent"),
    ],
)
def test_what_is_no_whole_answer_to_the_prompt_is_refused(
    manifest: Path, url: str, toy: ToyCompletions, fault: object, message: str
) -> None:
    toy.faults = [fault]
    with pytest.raises(UserError, match=f"^prompt `id of Why`, sample 0: .*{message}"):
        answers(manifest, decoding(url), ["Why"])


def test_a_missing_log_probability_is_refused(manifest: Path, url: str, toy: ToyCompletions) -> None:
    toy.faults = [choice(logprobs={"token_logprobs": [-1.0]})]
    with pytest.raises(UserError, match="sent 1 log-probabilities for"):
        answers(manifest, decoding(url, temperature=1), ["I saw this film and"])


def test_an_answer_that_ends_at_once_is_an_answer(manifest: Path, url: str, toy: ToyCompletions) -> None:
    usage = {"prompt_tokens": 3, "completion_tokens": 1, "total_tokens": 4}
    toy.faults = [lambda reply: choice(token_ids=[8], finish_reason="stop")({**reply, "usage": usage})]
    (record,) = answers(manifest, decoding(url), ["Why"])
    assert (record["text"], record["n_tokens"], record["finish_reason"]) == ("", 0, "stop")


def test_a_server_of_another_model_is_refused_before_anything_is_asked(
    manifest: Path, url: str, toy: ToyCompletions
) -> None:
    toy.name = f"other-{toy.name}"
    with pytest.raises(UserError, match=r"serves other-\w+, not `\w+`; start it with the policy's weights"):
        answers(manifest, decoding(url))
    assert toy.bodies == []


def test_a_server_that_is_not_there(manifest: Path, once: None) -> None:
    with pytest.raises(UserError, match=r"the generation server at http://127.0.0.1:9/v1 does not answer"):
        answers(manifest, decoding("http://127.0.0.1:9/v1"))


def test_no_key_reaches_loopback(
    manifest: Path, url: str, toy: ToyCompletions, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("OPENAI_API_KEY", "secret")
    monkeypatch.setenv(server_engine.KEY, "secret")
    monkeypatch.setenv("HTTP_PROXY", "http://127.0.0.1:9")
    answers(manifest, decoding(url), ["Why"])
    assert toy.keys == ["Bearer local"]


def test_a_doubled_bos_is_refused_before_anything_is_asked(url: str, toy: ToyCompletions) -> None:
    tokenizer = toy_tokenizer(bos=True)
    prompt = Prompt("p", [tokenizer.bos_token_id] * 2)
    with pytest.raises(UserError, match="in a row"):
        server_engine.generate_by_server(Server(base_url=url), toy.name, tokenizer, STOPS, [prompt], decoding(url), 0)
    assert toy.bodies == []


def test_one_name_for_all_policies_is_refused() -> None:
    with pytest.raises(ValidationError, match="answered by one model"):
        Server(model="my-model")
    assert Server(model="lora-{weights_hash}").model == "lora-{weights_hash}"
