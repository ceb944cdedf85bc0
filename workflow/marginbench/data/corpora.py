"""A corpus of any source as a TEXTS table: what the SFT start is trained on, what is answered, what is held out."""

from collections.abc import Mapping
from typing import Any

import pandas as pd
from pydantic import TypeAdapter

from marginbench.data.preferences import read_preferences
from marginbench.data.reviews import load_with_report, split_reviews
from marginbench.data.splits import draw, share_of_prompts
from marginbench.errors import UserError
from marginbench.identity import content_id
from marginbench.records import TEXTS
from marginbench.study import Corpus, FileCorpus, HubCorpus, ReviewsCorpus


def parse_corpus(values: Mapping[str, Any]) -> Corpus:
    """A corpus from plain values, as they travel through the workflow; `source` says which kind."""
    return TypeAdapter(Corpus).validate_python(dict(values))


def evaluation_prompts(pairs: pd.DataFrame, corpus: FileCorpus | HubCorpus) -> set[str]:
    """prompt_ids of a preference corpus that are kept for evaluation; training never sees them.

    They belong to the corpus and move with no seed: texts and pairs are drawn in different steps, with seeds of their
    own, and must agree on what is held out.
    """
    return share_of_prompts(pairs["prompt_id"], corpus.eval_fraction, "eval", 0)


def drawn_pairs(pairs: pd.DataFrame, corpus: FileCorpus | HubCorpus, seed: int) -> pd.DataFrame:
    """Training pairs of a preference corpus: without evaluation prompts, and at most `max_pairs` of them (seeded)."""
    training = pairs[~pairs["prompt_id"].isin(evaluation_prompts(pairs, corpus))]
    if corpus.max_pairs is None:
        return training
    return training[training["pair_id"].isin(set(draw(training["pair_id"], corpus.max_pairs, "max_pairs", seed)))]


def _text(role: str, pair: Any) -> dict[str, Any]:
    return {
        "text_id": content_id("text", role, pair.prompt, pair.chosen),
        "role": role,
        "prompt": pair.prompt,
        "completion": pair.chosen,
        "label": None,
        "source_row": pair.source_row,
    }


def _preference_texts(pairs: pd.DataFrame, corpus: FileCorpus | HubCorpus, seed: int) -> pd.DataFrame:
    """Training prompts once each as prompt, some with their chosen answers as sft; held-out ones as eval or perplexity.

    The prompts are those of the training pairs, so that online arms draw their pools from what other methods train on.
    """
    pairs = pairs.sort_values("pair_id")
    kept_out = evaluation_prompts(pairs, corpus)
    first = pairs.drop_duplicates("prompt_id").set_index("prompt_id", drop=False)
    held = draw(kept_out, None, "held_out_roles", seed)
    wanted = corpus.eval_prompts + corpus.perplexity_texts
    n_eval = corpus.eval_prompts
    if len(held) < wanted:
        if len(held) < 2:
            raise UserError(
                f"impossible split: eval_fraction {corpus.eval_fraction} of {pairs['prompt_id'].nunique()} prompts "
                "leaves one prompt, but evaluation and perplexity need one each; raise eval_fraction"
            )
        n_eval = min(max(1, len(held) * corpus.eval_prompts // wanted), len(held) - 1)
    rows = [_text("eval", first.loc[prompt]) for prompt in held[:n_eval]]
    rows += [_text("perplexity", first.loc[p]) for p in held[n_eval : n_eval + corpus.perplexity_texts]]
    training = pairs[~pairs["prompt_id"].isin(kept_out)].drop_duplicates(["prompt_id", "chosen"])
    by_id = training.set_index("pair_id", drop=False)
    chosen = draw(by_id.index, corpus.sft_texts or None, "sft", seed)
    rows += [_text("sft", by_id.loc[pair_id]) for pair_id in chosen]
    asked = drawn_pairs(pairs, corpus, seed).drop_duplicates("prompt_id").sort_values("prompt_id")
    rows += [_text("prompt", pair) for pair in asked.itertuples(index=False)]
    return pd.DataFrame(rows, columns=list(TEXTS.columns))


def read_corpus(corpus: Corpus, seed: int) -> tuple[pd.DataFrame, dict[str, Any]]:
    """The TEXTS frame of a corpus and a report (rows, problems with row numbers, texts per role and label).

    Use the seed that `fit_halves` gets: the classifiers' reviews are kept apart only within one split. The roles are
    prompt, eval, sft and perplexity. In a preference dataset the prompts of training pairs are `prompt` texts, and some
    of them stand under sft as well. Evaluation prompts are never training prompts. Raises UserError as the sources do,
    and when there are too few texts for the roles.
    """
    if isinstance(corpus, ReviewsCorpus):
        reviews, report = load_with_report(corpus)
        texts = split_reviews(reviews, corpus, seed).texts
    else:
        pairs, report = read_preferences(corpus)
        texts = _preference_texts(pairs, corpus, seed)
    report["roles"] = {str(role): int(n) for role, n in texts["role"].value_counts(sort=False).items()}
    labelled = texts.dropna(subset=["label"])
    report["positive_share"] = {str(role): float(m) for role, m in labelled.groupby("role")["label"].mean().items()}
    return texts.astype({"label": "Int64", "source_row": "int64"}), report
