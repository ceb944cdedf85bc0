"""The contract: columns and types of every table that passes between rules.

`write_table` checks before anything is on disk and names the column and the first bad row; `read_table` checks again,
because a file may have been touched by other hands.
"""

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pandas as pd
import pyarrow as pa
import pyarrow.parquet as pq

from marginbench.errors import UserError
from marginbench.files import atomic_path
from marginbench.identity import content_id

MESSAGES = pa.list_(pa.struct([("role", pa.string()), ("content", pa.string())]))
TOKENS = pa.list_(pa.int32())


@dataclass(frozen=True)
class Column:
    """One column: its type, whether a value may be missing, and what it holds."""

    type: pa.DataType
    doc: str
    nullable: bool = False


@dataclass(frozen=True)
class Table:
    """One kind of file: its columns in order, the columns that identify a row, and what a row is.

    `wrong` finds what the columns of one row must hold together: positions of bad rows, boolean, and what is wrong.
    """

    name: str
    row: str
    key: tuple[str, ...]
    columns: dict[str, Column]
    wrong: Callable[[pd.DataFrame], tuple[np.ndarray, str]] | None = None

    def schema(self) -> pa.Schema:
        """The Arrow schema, in column order."""
        return pa.schema([pa.field(name, column.type, column.nullable) for name, column in self.columns.items()])


def _columns(**columns: Column) -> dict[str, Column]:
    return columns


STRING, FLOAT, INT, BOOL = pa.string(), pa.float64(), pa.int64(), pa.bool_()


def id_of_pair(prompt: list[dict[str, str]], chosen: str, rejected: str) -> str:
    """Identity of a preference pair: a hash of what it says. A completion moved to another prompt is another pair."""
    messages = [{"role": message["role"], "content": message["content"]} for message in prompt]
    return content_id("pair", messages, chosen, rejected)


def margin_digest(pair: str, score_chosen: float, score_rejected: float, scorer: str, scorer_hash: str) -> str:
    """Hash of a row of margins, so that no score can change its pair unnoticed."""
    return content_id("margin", pair, float(score_chosen), float(score_rejected), scorer, scorer_hash)


def _wrong_pairs(frame: pd.DataFrame) -> tuple[np.ndarray, str]:
    found = map(id_of_pair, frame["prompt"], frame["chosen"], frame["rejected"])
    wrong = np.array([a != b for a, b in zip(frame["pair_id"], found, strict=True)], dtype=bool)
    return wrong, "pair_id is not that of this prompt, chosen and rejected; a text was changed or moved"


def _wrong_margins(frame: pd.DataFrame) -> tuple[np.ndarray, str]:
    columns = [frame[name] for name in ("pair_id", "score_chosen", "score_rejected", "scorer", "scorer_hash")]
    found = np.array(list(map(margin_digest, *columns)), dtype=object)
    wrong = (frame["digest"].to_numpy() != found) | (
        frame["margin"] != frame["score_chosen"] - frame["score_rejected"]
    ).to_numpy()
    return wrong, "digest is not that of this pair and its scores; margins were changed or moved between pairs"


def _wrong_rounds(frame: pd.DataFrame) -> tuple[np.ndarray, str]:
    selected = frame["selected"].to_numpy(bool)
    wrong = frame["label"].notna().to_numpy() != selected
    pairs = frame[selected].groupby(["round", "prompt_id"])["label"].agg(["size", "sum"])
    broken = pairs[(pairs["size"] != 2) | (pairs["sum"] != 1)].index
    wrong |= selected & frame.set_index(["round", "prompt_id"]).index.isin(broken)
    return wrong, "a selected prompt has two labelled answers, one preferred, and no other answer has a label"


ONLINE_RUN = ["study", "dataset", "model", "labeller", "arm", "seed"]
ONLINE_BUDGETS = ["labels", "completions", "generated_tokens", "seconds"]


def _wrong_budgets(frame: pd.DataFrame) -> tuple[np.ndarray, str]:
    rounds = frame.groupby([*ONLINE_RUN, "round"])[ONLINE_BUDGETS]
    wrong = (rounds.transform("min") != rounds.transform("max")).any(axis=1)
    first = frame.drop_duplicates([*ONLINE_RUN, "round"]).sort_values("round")
    fallen = (first.groupby(ONLINE_RUN)[ONLINE_BUDGETS].diff() < 0).any(axis=1)
    wrong.loc[fallen[fallen].index] = True
    return wrong.to_numpy(), "what a run has spent must be one number per round, and not fall from round to round"


TEXTS = Table(
    "texts",
    "a text of a corpus with the role it plays",
    ("text_id",),
    _columns(
        text_id=Column(STRING, "content hash of role, prompt and completion"),
        role=Column(STRING, "sft | prompt | eval | perplexity; held-out texts have no other role"),
        prompt=Column(MESSAGES, "prompt as messages; a plain prompt is one message of role `text`"),
        completion=Column(STRING, "the text that followed the prompt in the source"),
        label=Column(INT, "sentiment label of the source review (0 or 1), if there is one", nullable=True),
        source_row=Column(INT, "row number in the source, counted from 0"),
    ),
)

CANDIDATES = Table(
    "candidates",
    "an answer sampled from the SFT start",
    ("prompt_id", "sample"),
    _columns(
        prompt_id=Column(STRING, "text_id of the prompt"),
        sample=Column(INT, "number of the sample, from 0"),
        text=Column(STRING, "the answer"),
        n_tokens=Column(INT, "generated tokens, the end token not counted"),
        finish_reason=Column(STRING, "stop | length"),
    ),
)

PAIRS = Table(
    "pairs",
    "a preference pair",
    ("pair_id",),
    _columns(
        pair_id=Column(STRING, "content hash of prompt, chosen and rejected"),
        prompt_id=Column(STRING, "content hash of the prompt"),
        prompt=Column(MESSAGES, "prompt as messages; a plain prompt is one message of role `text`"),
        chosen=Column(STRING, "preferred answer"),
        rejected=Column(STRING, "other answer"),
        chosen_ended=Column(BOOL, "whether the answer is complete, so that training appends the end token"),
        rejected_ended=Column(BOOL, "the same for the other answer"),
        split=Column(STRING, "train | holdout: kept from the reward model; policies train on both; by prompt"),
        source=Column(STRING, "where the pair comes from"),
        score_chosen=Column(FLOAT, "ground-truth score or dataset rating", nullable=True),
        score_rejected=Column(FLOAT, "ground-truth score or dataset rating", nullable=True),
    ),
    _wrong_pairs,
)

PAIR_TOKENS = Table(
    "pair_tokens",
    "a tokenised preference pair",
    ("pair_id",),
    _columns(
        pair_id=Column(STRING, "as in pairs"),
        split=Column(STRING, "as in pairs"),
        prompt_ids=Column(TOKENS, "token ids of the prompt, template and at most one BOS included"),
        chosen_ids=Column(TOKENS, "token ids of the preferred answer, end token included if it ended"),
        rejected_ids=Column(TOKENS, "token ids of the other answer"),
    ),
)

REFERENCE = Table(
    "reference",
    "a pair's log-probabilities under the frozen reference",
    ("pair_id",),
    _columns(
        pair_id=Column(STRING, "as in pairs"),
        ref_chosen_logp=Column(FLOAT, "sum over the answer's tokens, nats"),
        ref_rejected_logp=Column(FLOAT, "sum over the answer's tokens, nats"),
        chosen_len=Column(INT, "tokens that are summed over"),
        rejected_len=Column(INT, "tokens that are summed over"),
        cache_key=Column(STRING, "hash of model weights, template, tokenised pairs, max_length and dtype"),
    ),
)

MARGINS = Table(
    "margins",
    "a pair's scores by one scorer",
    ("pair_id",),
    _columns(
        pair_id=Column(STRING, "as in pairs"),
        score_chosen=Column(FLOAT, "score of the preferred answer"),
        score_rejected=Column(FLOAT, "score of the other answer"),
        margin=Column(FLOAT, "score_chosen - score_rejected, signed"),
        scorer=Column(STRING, "scorer id"),
        scorer_hash=Column(STRING, "hash of what scored: weights, ratings"),
        digest=Column(STRING, "hash of pair_id, both scores, scorer and scorer_hash"),
    ),
    _wrong_margins,
)

TRAIN_LOG = Table(
    "train",
    "a logged quantity of an optimiser step",
    ("step", "quantity"),
    _columns(
        step=Column(INT, "optimiser step, from 1"),
        quantity=Column(STRING, "loss, learning_rate, reward_margin, reward_accuracy, and what the method logs"),
        value=Column(FLOAT, "its value, mean over the optimiser batch"),
    ),
)

ANSWER_SCORES = Table(
    "answer_scores",
    "an answer with its measured properties",
    ("answer_id",),
    _columns(
        answer_id=Column(STRING, "as in the answers file"),
        question_id=Column(STRING, "as in the answers file"),
        true_reward=Column(FLOAT, "ground-truth reward of prompt + answer", nullable=True),
        kl=Column(FLOAT, "log-ratio of policy and reference on the sampled answer, nats", nullable=True),
        n_tokens=Column(INT, "generated tokens"),
        n_chars=Column(INT, "characters"),
        repeated_trigrams=Column(FLOAT, "share of word trigrams that occurred before in the answer", nullable=True),
        truncated=Column(BOOL, "the answer met the token limit"),
    ),
)

METRICS = Table(
    "metrics",
    "one measured value of one run",
    ("study", "dataset", "model", "method", "seed", "generation", "metric", "judge"),
    _columns(
        study=Column(STRING, "study id"),
        dataset=Column(STRING, "dataset id"),
        model=Column(STRING, "model id"),
        method=Column(STRING, "entry of the comparison"),
        seed=Column(INT, "training seed"),
        generation=Column(STRING, "generation id; empty where no text was generated"),
        metric=Column(STRING, "what was measured; see results/README.md"),
        judge=Column(STRING, "judge id; empty where no judge was asked"),
        value=Column(FLOAT, "the value; null when it could not be measured", nullable=True),
        se=Column(FLOAT, "standard error over items within this run", nullable=True),
        n=Column(INT, "items behind the value"),
        spec_hash=Column(STRING, "hash of the run's spec.json"),
    ),
)

ROUNDS = Table(
    "rounds",
    "an answer that was sampled in a round of online training",
    ("rng_key", "prompt_id", "sample_id"),
    _columns(
        round=Column(INT, "round, from 1"),
        rng_key=Column(STRING, "axes of the random stream, beside prompt and sample: seed, round, purpose of the draw"),
        prompt_id=Column(STRING, "text_id of the prompt"),
        sample_id=Column(INT, "number of the sample within its draw, from 0"),
        text_hash=Column(STRING, "content hash of the answer"),
        n_tokens=Column(INT, "sampled tokens, the end token included"),
        ended=Column(BOOL, "whether it ended by itself, not at the token limit"),
        log_prob=Column(FLOAT, "under logits / temperature of its draw, nats", nullable=True),
        entropy=Column(FLOAT, "of the prompt: minus the mean log-probability of its samples, nats", nullable=True),
        entropy_per_token=Column(FLOAT, "the same, of log-probabilities per token", nullable=True),
        margin=Column(FLOAT, "of the prompt: implicit reward of sample 0 minus that of sample 1", nullable=True),
        selected=Column(BOOL, "whether it stands in a pair that was labelled and trained on"),
        label=Column(INT, "1 preferred, 0 the other; only where selected", nullable=True),
    ),
    _wrong_rounds,
)

ONLINE_COSTS = Table(
    "online_costs",
    "what one stage of one round of online training cost",
    ("round", "stage"),
    _columns(
        round=Column(INT, "round, from 1; 0 is the evaluation of the start"),
        stage=Column(STRING, "generate | score | select | label | update | evaluate"),
        completions=Column(INT, "answers sampled"),
        generated_tokens=Column(INT, "their tokens, end tokens included"),
        scored_sequences=Column(INT, "sequences that went through policy or start once more to be scored"),
        labels=Column(INT, "pairs asked about for the first time in the run"),
        pair_updates=Column(INT, "pairs that optimiser steps read, each as often as it was read"),
        seconds=Column(FLOAT, "wall clock; the one column that differs between equal runs"),
    ),
)

ONLINE_METRICS = Table(
    "online_metrics",
    "one measured value of one online run after some of its rounds, with what it had spent until then",
    (*ONLINE_RUN, "round", "metric", "judge"),
    _columns(
        study=Column(STRING, "study id"),
        dataset=Column(STRING, "dataset id"),
        model=Column(STRING, "model id"),
        labeller=Column(STRING, "what labels in the loop"),
        arm=Column(STRING, "selection strategy: entry of the study"),
        seed=Column(INT, "training seed; both arms of a seed meet the same pools"),
        round=Column(INT, "finished rounds; 0 is the SFT start"),
        metric=Column(
            STRING, "what was measured, as in metrics: win_rate against the SFT start, a capability task, ..."
        ),
        judge=Column(STRING, "judge id; empty where no judge was asked"),
        judge_is_labeller=Column(BOOL, "whether it labelled the training pairs, or scores with the weights that did"),
        value=Column(FLOAT, "the value, in the unit of metrics; null when it could not be measured", nullable=True),
        labels=Column(INT, "labels asked for in the loop since the start; evaluation is never counted"),
        completions=Column(INT, "completions generated in the loop since the start"),
        generated_tokens=Column(INT, "tokens generated in the loop since the start"),
        seconds=Column(FLOAT, "wall-clock seconds of the loop since the start, evaluation left out"),
    ),
    _wrong_budgets,
)

ALL_TABLES = (
    TEXTS,
    CANDIDATES,
    PAIRS,
    PAIR_TOKENS,
    REFERENCE,
    MARGINS,
    TRAIN_LOG,
    ANSWER_SCORES,
    METRICS,
    ROUNDS,
    ONLINE_COSTS,
    ONLINE_METRICS,
)

ONLINE_TABLES = (ROUNDS, ONLINE_COSTS, ONLINE_METRICS)
"""Those that only an online study makes."""


def check_table(frame: pd.DataFrame, table: Table, where: str) -> pa.Table:
    """Arrow table of a frame that keeps the contract.

    Raises UserError naming the column and the first bad row: missing or unknown columns, wrong types, missing or
    infinite values where none may be, repeated keys, and rows whose columns don't belong together.
    """
    missing = [name for name in table.columns if name not in frame.columns]
    unknown = [name for name in frame.columns if name not in table.columns]
    if missing or unknown:
        raise UserError(
            f"{where}: not a `{table.name}` table: "
            + "; ".join(
                ([f"missing column {', '.join(missing)}"] if missing else [])
                + ([f"unknown column {', '.join(unknown)}"] if unknown else [])
            )
        )
    frame = frame[list(table.columns)].reset_index(drop=True)
    arrays = []
    for name, column in table.columns.items():
        try:
            array = pa.array(frame[name], type=column.type, from_pandas=True)
        except (pa.ArrowInvalid, pa.ArrowTypeError, OverflowError) as error:
            bad = next((i for i, value in enumerate(frame[name]) if not _converts(value, column.type)), 0)
            raise UserError(f"{where}: column `{name}`, row {bad}: not a {column.type} ({error})") from error
        if isinstance(array, pa.ChunkedArray):
            array = array.combine_chunks()
        if array.null_count and not column.nullable:
            row = next(i for i, value in enumerate(array) if not value.is_valid)
            raise UserError(f"{where}: column `{name}`, row {row}: a value is missing")
        if pa.types.is_floating(column.type):
            values = array.to_pandas()
            infinite = values[values.isin([float("inf"), float("-inf")])]
            if len(infinite):
                raise UserError(f"{where}: column `{name}`, row {infinite.index[0]}: the value is infinite")
        arrays.append(array)
    repeated = frame.duplicated(list(table.key))
    if repeated.any():
        row = int(repeated.to_numpy().argmax())
        key = ", ".join(f"{name}={frame.at[row, name]!r}" for name in table.key)
        raise UserError(f"{where}: row {row} repeats the key {key}")
    if table.wrong is not None and len(frame):
        wrong, what = table.wrong(frame)
        if wrong.any():
            row = int(wrong.argmax())
            key = ", ".join(f"{name} {frame.at[row, name]}" for name in table.key)
            raise UserError(f"{where}: {int(wrong.sum())} of {len(frame)} rows, the first is row {row} ({key}): {what}")
    return pa.Table.from_arrays(arrays, schema=table.schema())


def _converts(value: object, kind: pa.DataType) -> bool:
    try:
        pa.array([value], type=kind, from_pandas=True)
    except (pa.ArrowInvalid, pa.ArrowTypeError, OverflowError):
        return False
    return True


def write_table(frame: pd.DataFrame, path: str | Path, table: Table) -> None:
    """Check a frame against its contract and write it as parquet, atomically."""
    arrow = check_table(frame, table, str(path))
    with atomic_path(path) as temporary:
        pq.write_table(arrow, temporary, compression="zstd")


def read_table(path: str | Path, table: Table) -> pd.DataFrame:
    """Read a parquet file and check it against its contract; list columns come back as Python lists."""
    try:
        arrow = pq.read_table(path)
    except (pa.ArrowInvalid, OSError) as error:
        raise UserError(f"{path}: not a readable parquet file ({error}); delete it and run again") from error
    frame = arrow.to_pandas()
    for name, column in table.columns.items():
        if name in frame.columns and pa.types.is_list(column.type):
            frame[name] = arrow.column(name).to_pylist()
    check_table(frame, table, str(path))
    return frame
