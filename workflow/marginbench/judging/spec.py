"""Judge entries: `resources/judges.yaml` read into typed, frozen models.

A judge is a dated, priced dependency of a result: everything that can change a verdict stands in its entry, the hash of
its prompt templates included, so that an edited template without a new hash is refused.
"""

import datetime
from collections.abc import Mapping
from pathlib import Path
from typing import Any, Literal

import yaml
from pydantic import Field, ValidationError, field_validator, model_validator

from marginbench.errors import UserError, nearest
from marginbench.judging.prompts import Escape, Messages, fill
from marginbench.judging.templates import read_templates, template_path
from marginbench.study import Id, Model, Positive, Section

Verdict = Literal["logprobs", "ranking", "arena_v01", "arena_v20", "rating"]
Part = Literal["turn_1", "turn_1_reference", "turn_2", "turn_2_reference"]


class JudgeDecoding(Section):
    """How the judge's reply is sampled and what is asked of it."""

    temperature: float | None = Field(0.0, ge=0, description="Softmax temperature; null is not sent (reasoning).")
    max_tokens: Positive = Field(1, description="Longest reply; one token is enough for `m` or `M`.")
    logprobs: bool = Field(True, description="Whether log-probabilities are asked for; verdict `logprobs` needs them.")
    top_logprobs: int = Field(5, ge=2, le=20, description="How many of the likeliest tokens are returned.")


class Price(Section):
    """Price of a judge on a given day."""

    input_per_million: float = Field(ge=0, description="US dollars for a million prompt tokens.")
    output_per_million: float = Field(ge=0, description="US dollars for a million reply tokens.")
    date: datetime.date = Field(description="Day on which the price was read.")

    def of(self, tokens_in: int, tokens_out: int) -> float:
        """Price of one call, in US dollars."""
        return (tokens_in * self.input_per_million + tokens_out * self.output_per_million) / 1e6


class JudgeSpec(Section):
    """One judge: who it is, where it answers, what it is asked, how its reply is read and what it costs."""

    id: Id = Field(description="Name of the judge in studies, files and tables.")
    kind: Literal["local_server", "openai"] = Field(
        description="`local_server`: started on loopback for the run; `openai`: a server that is already there."
    )
    backend: Literal["classifier", "causal_lm", "reward_model"] | None = Field(
        None, description="What answers behind a local server; null for `openai`."
    )
    model: str = Field(min_length=1, description="Exact model name; for `openai` the dated snapshot.")
    model_date: datetime.date = Field(description="Date of the model, or of its snapshot.")
    retired: datetime.date | None = Field(
        None, description="Day from which the model is no longer served; from then on only stored judgments count."
    )
    base_url: str | None = Field(None, description="Endpoint of an `openai` judge; null is api.openai.com.")
    api_key_env: str = Field(
        "OPENAI_API_KEY", pattern=r"^[A-Z][A-Z0-9_]*$", description="Environment variable that holds the key."
    )
    answers_as: str | None = Field(
        None, description="Name of the model in the endpoint's replies, where it is another than `model`."
    )
    mode: Literal["live", "batch"] = Field(
        "live", description="`batch` sends files of requests to the batch endpoint: cheaper, ready within a day."
    )
    weights: Model | None = Field(None, description="Model behind a `causal_lm` backend, as in a study's `models`.")
    verdict: Verdict = Field(
        "logprobs",
        description="What is read from the reply: log-probs of `m` and `M` (AlpacaEval 2), a ranked list (AlpacaEval "
        "1), an Arena-Hard label by the rule of v0.1 or v2.0, or a rating from 1 to 10.",
    )
    prompt: str | None = Field(
        None,
        description="Prompt template: a file in judging/prompts, a path, `package:PACKAGE/FILE` in an installed "
        "package, or `fetched:FILE`.",
    )
    prompts: dict[Part, str] = Field(
        default_factory=dict, description="Instead of `prompt`, for ratings: a template for each part of the benchmark."
    )
    prompt_sha256: str = Field(
        pattern=r"^[0-9a-f]{64}$",
        description="SHA-256 of the template; with `prompts`, of the lines `part sha256` of all, sorted by part.",
    )
    escape: Escape = Field(
        "json", description="How texts are placed: `json` strings (our templates) or `plain`, as official ones want it."
    )
    follow_up: str | None = Field(
        None, description="For `arena_v01`: what is sent as a second turn when a reply holds no label."
    )
    decoding: JudgeDecoding = Field(default_factory=JudgeDecoding, description="How the reply is sampled.")
    max_completion_tokens: bool = Field(
        False, description="Send max_tokens under the name that newer models want, `max_completion_tokens`."
    )
    reasoning: Literal["none", "minimal", "low", "medium", "high", "xhigh", "max"] | None = Field(
        None, description="Reasoning effort, for models that take it; any but `none` gives no log-probabilities."
    )
    order: Literal["seeded_by_instruction", "both"] = Field(
        "seeded_by_instruction",
        description="Which answer is shown first: drawn from the instruction (AlpacaEval's rule), or both ways.",
    )
    price: Price = Field(description="Price per million tokens, with its date.")
    typical_tokens: Positive | None = Field(
        None, description="Usual length of a reply, for the predicted cost; null takes the longest reply."
    )
    needs: list[Literal["review_classifiers"]] = Field(
        default_factory=list,
        description="What a study must offer: `review_classifiers` is a dataset whose corpus has source `reviews`.",
    )
    concurrency: Positive = Field(8, description="Requests in flight at a time.")
    timeout_s: float = Field(60.0, gt=0, description="Seconds after which a request is given up and tried again.")
    max_retries: int = Field(4, ge=0, description="Further tries of a request after 408, 409, 429, 5xx or a timeout.")

    @field_validator("model_date", "retired", mode="before")
    @classmethod
    def _date_only(cls, value: object) -> object:
        if isinstance(value, datetime.datetime):
            raise ValueError("give a date, YYYY-MM-DD, without a time")
        return value

    @model_validator(mode="after")
    def _kind_and_backend_agree(self) -> "JudgeSpec":
        if self.kind == "local_server":
            if self.backend is None:
                raise ValueError("a local_server judge needs `backend`: classifier, causal_lm or reward_model")
            if self.base_url is not None:
                raise ValueError("a local_server judge gets its port when it starts; remove `base_url`")
            if self.mode == "batch":
                raise ValueError("a local_server judge has no batch endpoint; use `mode: live`")
            if self.verdict == "ranking":
                raise ValueError("a local_server judge gives no rankings; use verdict logprobs, arena_v20 or rating")
        elif self.backend is not None:
            raise ValueError("`backend` is for local_server judges; remove it")
        if (self.backend == "causal_lm") != (self.weights is not None):
            raise ValueError("`weights` and `backend: causal_lm` go together")
        return self

    @model_validator(mode="after")
    def _verdict_can_be_read(self) -> "JudgeSpec":
        if bool(self.prompt) == bool(self.prompts) or (self.verdict == "rating") != bool(self.prompts):
            raise ValueError("give `prompts` (turn_1, turn_2, ...) for verdict `rating`, and `prompt` for any other")
        if self.prompts and not {"turn_1", "turn_2"} <= set(self.prompts):
            raise ValueError("`prompts` needs turn_1 and turn_2 at least")
        if self.verdict == "logprobs" and not self.decoding.logprobs:
            raise ValueError(
                "verdict `logprobs` needs `decoding.logprobs: true`; a discrete judge has verdict `ranking`"
            )
        if self.follow_up is not None and self.verdict != "arena_v01":
            raise ValueError("`follow_up` belongs to verdict `arena_v01`; remove it")
        if self.reasoning not in (None, "none"):
            if self.decoding.logprobs:
                raise ValueError(f"reasoning {self.reasoning} gives no log-probabilities; set decoding.logprobs: false")
            if self.decoding.temperature is not None:
                raise ValueError("a reasoning model takes no temperature; set decoding.temperature: null")
        return self

    def request(self) -> dict[str, Any]:
        """What a chat-completions request says beside its model and its messages."""
        asked: dict[str, Any] = {}
        if self.decoding.temperature is not None:
            asked["temperature"] = self.decoding.temperature
        asked["max_completion_tokens" if self.max_completion_tokens else "max_tokens"] = self.decoding.max_tokens
        if self.decoding.logprobs:
            asked |= {"logprobs": True, "top_logprobs": self.decoding.top_logprobs}
        if self.reasoning is not None:
            asked["reasoning_effort"] = self.reasoning
        return asked

    def messages(self, fields: Mapping[str, str], part: str = "prompt") -> Messages:
        """The chat messages that show these texts; `part` names the template of a rating judge."""
        return fill(self.template(part), fields, self.escape)

    @property
    def templates(self) -> dict[str, str]:
        """Part -> where its template comes from; the only part of most judges is `prompt`."""
        return dict(self.prompts) if self.prompts else {"prompt": str(self.prompt)}

    @property
    def is_fetched(self) -> bool:
        """Whether a prompt of this judge is an official text that has to be fetched."""
        return any(source.startswith("fetched:") for source in self.templates.values())

    def template(self, part: str = "prompt") -> str:
        """A template's text; UserError when one is missing or they are not those whose hash the entry states."""
        if part not in self.templates:
            raise UserError(f"judge `{self.id}`: has no prompt `{part}`; {nearest(part, self.templates)}")
        try:
            return read_templates(self.templates, self.prompt_sha256)[part]
        except UserError as error:
            raise UserError(f"judge `{self.id}`: {error}") from error


def refuse_retired(spec: JudgeSpec, today: datetime.date) -> None:
    """Raise UserError for a judge that is no longer served; its stored judgments can still be scored."""
    if spec.retired is not None and today >= spec.retired:
        raise UserError(
            f"judge `{spec.id}`: {spec.model} was retired on {spec.retired} and answers no more; name another judge "
            "(judgments that are stored already can be scored with `marginbench score`)"
        )


def load_judges(path: str | Path) -> dict[str, JudgeSpec]:
    """All judges of a YAML file, by id; keys that begin with a dot are left out (parts that entries share).

    A prompt that has to be fetched is checked once it is there. Raises UserError with one line that names file, judge,
    key and value of the first problem.
    """
    try:
        entries = yaml.safe_load(Path(path).read_text(encoding="utf-8"))
    except FileNotFoundError as error:
        raise UserError(f"{path}: no such file; judges are read from resources/judges.yaml") from error
    except (yaml.YAMLError, UnicodeDecodeError) as error:
        raise UserError(f"{path}: not valid YAML: {' '.join(str(error).split())}") from error
    if not isinstance(entries, dict) or not entries:
        raise UserError(f"{path}: holds no judges; write one entry per judge id")
    judges = {}
    for name, entry in entries.items():
        if str(name).startswith("."):
            continue
        if not isinstance(entry, dict):
            raise UserError(f"{path}: judge `{name}`: not a mapping of keys")
        try:
            judge = JudgeSpec.model_validate({**entry, "id": str(name)})
        except ValidationError as error:
            raise UserError(f"{path}: judge `{name}`: {_first_problem(error)}") from error
        if not judge.is_fetched or all(template_path(source).is_file() for source in judge.templates.values()):
            judge.template(next(iter(judge.templates)))
        judges[str(name)] = judge
    return judges


def judge_by_id(judges: dict[str, JudgeSpec], judge_id: str) -> JudgeSpec:
    """One judge; UserError with the nearest known id when there is none."""
    if judge_id not in judges:
        raise UserError(f"judge `{judge_id}` is not known; {nearest(judge_id, judges)}")
    return judges[judge_id]


def _first_problem(error: ValidationError) -> str:
    first = error.errors()[0]
    key = ".".join(str(part) for part in first["loc"]) or "entry"
    if first["type"] == "extra_forbidden":
        return f"unknown key `{key}`; {nearest(key, JudgeSpec.model_fields)}"
    if first["type"] == "missing":
        return f"key `{key}` is missing"
    message = first["msg"].removeprefix("Value error, ")
    return message if not first["loc"] else f"`{key}` is {first['input']!r}: {message}"
