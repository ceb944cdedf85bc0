"""Judge entries: `resources/judges.yaml` read into typed, frozen models.

A judge is a dated, priced dependency of a result: everything that can change a verdict stands in its entry, the hash of
its prompt template included, so that an edited template without a new hash is refused.
"""

import datetime
import hashlib
from pathlib import Path
from typing import Literal

import yaml
from pydantic import Field, ValidationError, field_validator, model_validator

from marginbench.errors import UserError, nearest
from marginbench.study import Id, Model, Positive, Section

PROMPTS = Path(__file__).resolve().parent / "prompts"
"""Folder of the prompt templates that come with the library."""


class JudgeDecoding(Section):
    """How the judge's reply is sampled and what is asked of it."""

    temperature: float = Field(0.0, ge=0, description="Softmax temperature of the judge.")
    max_tokens: Positive = Field(1, description="Longest reply; one token is enough for `m` or `M`.")
    logprobs: Literal[True] = Field(True, description="Log-probabilities are asked for; the verdict is read from them.")
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
    backend: Literal["classifier", "causal_lm"] | None = Field(
        None, description="What answers behind a local server; null for `openai`."
    )
    model: str = Field(min_length=1, description="Exact model name; for `openai` the dated snapshot.")
    model_date: datetime.date = Field(description="Date of the model, or of its snapshot.")
    base_url: str | None = Field(None, description="Endpoint of an `openai` judge; null is api.openai.com.")
    weights: Model | None = Field(None, description="Model behind a `causal_lm` backend, as in a study's `models`.")
    prompt: str = Field(description="Prompt template: a file name in judging/prompts, or a path.")
    prompt_sha256: str = Field(pattern=r"^[0-9a-f]{64}$", description="SHA-256 of the template; checked on loading.")
    decoding: JudgeDecoding = Field(default_factory=JudgeDecoding, description="How the reply is sampled.")
    order: Literal["seeded_by_instruction", "both"] = Field(
        "seeded_by_instruction",
        description="Which answer is shown first: drawn from the instruction (AlpacaEval's rule), or both ways.",
    )
    price: Price = Field(description="Price per million tokens, with its date.")
    needs: list[Literal["review_classifiers"]] = Field(
        default_factory=list,
        description="What a study must offer: `review_classifiers` is a dataset whose corpus has source `reviews`.",
    )
    concurrency: Positive = Field(8, description="Requests in flight at a time.")
    timeout_s: float = Field(60.0, gt=0, description="Seconds after which a request is given up and tried again.")
    max_retries: int = Field(4, ge=0, description="Further tries of a request after 408, 409, 429, 5xx or a timeout.")

    @field_validator("model_date", mode="before")
    @classmethod
    def _date_only(cls, value: object) -> object:
        if isinstance(value, datetime.datetime):
            raise ValueError("give a date, YYYY-MM-DD, without a time")
        return value

    @model_validator(mode="after")
    def _kind_and_backend_agree(self) -> "JudgeSpec":
        if self.kind == "local_server":
            if self.backend is None:
                raise ValueError("a local_server judge needs `backend`: classifier or causal_lm")
            if self.base_url is not None:
                raise ValueError("a local_server judge gets its port when it starts; remove `base_url`")
        elif self.backend is not None:
            raise ValueError("`backend` is for local_server judges; remove it")
        if (self.backend == "causal_lm") != (self.weights is not None):
            raise ValueError("`weights` and `backend: causal_lm` go together")
        return self

    @property
    def prompt_path(self) -> Path:
        """The template's file."""
        return PROMPTS / self.prompt

    def template(self) -> str:
        """The template's text; UserError when it is missing or not the one whose hash the entry states."""
        path = self.prompt_path
        if not path.is_file():
            raise UserError(f"judge `{self.id}`: prompt template {path} does not exist; mend `prompt`")
        found = hashlib.sha256(path.read_bytes()).hexdigest()
        if found != self.prompt_sha256:
            raise UserError(
                f"judge `{self.id}`: template {path.name} has sha256 {found}, the entry says {self.prompt_sha256}; a "
                "changed prompt is another judge: give it a new id and this hash"
            )
        return path.read_text(encoding="utf-8")


def load_judges(path: str | Path) -> dict[str, JudgeSpec]:
    """All judges of a YAML file, by id.

    Raises UserError with one line that names file, judge, key and value of the first problem.
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
        if not isinstance(entry, dict):
            raise UserError(f"{path}: judge `{name}`: not a mapping of keys")
        try:
            judges[str(name)] = JudgeSpec.model_validate({**entry, "id": str(name)})
        except ValidationError as error:
            raise UserError(f"{path}: judge `{name}`: {_first_problem(error)}") from error
        judges[str(name)].template()
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
