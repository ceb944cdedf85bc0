"""A sentiment classifier: word and word-pair TF-IDF with logistic regression, saved without pickle.

It plays two separate roles: fitted on half A it is the ground-truth reward that labels pairs, fitted on half B the
independent judge.
"""

import hashlib
import json
import zipfile
from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path

import numpy as np
from scipy.special import expit
from sklearn.feature_extraction.text import TfidfVectorizer
from sklearn.linear_model import LogisticRegression

from marginbench.data.reviews import COMPLETION_WORDS, load_reviews, split_reviews
from marginbench.errors import UserError
from marginbench.files import atomic_path
from marginbench.identity import seed_for
from marginbench.job import Progress, quiet
from marginbench.study import ReviewsCorpus

ANALYSIS = {"ngram_range": (1, 2), "sublinear_tf": True, "lowercase": True, "token_pattern": r"(?u)\b\w\w+\b"}
MEASURED = 2000
"""Held-out reviews on which the two classifiers are measured, at most: a standard error below one point."""

MIN_DOCUMENTS, MAX_FEATURES, INVERSE_PENALTY = 2, 60000, 4.0


@dataclass(frozen=True, eq=False)
class TextClassifier:
    """A fitted classifier. `vocabulary[i]` is the term of `idf[i]` and `coef[i]`; logits are log-odds of positive."""

    vocabulary: tuple[str, ...]
    idf: np.ndarray
    coef: np.ndarray
    intercept: float

    @classmethod
    def fit(cls, texts: Sequence[str], labels: Sequence[int], seed: int) -> "TextClassifier":
        """Fit on texts with labels 0 and 1. Raises UserError when a label is absent or no term occurs twice."""
        if set(labels) != {0, 1}:
            raise UserError(
                f"the classifier needs reviews of both labels, 0 and 1; {len(labels)} reviews have the labels "
                f"{sorted(set(labels))}; raise classifier_texts or mend the corpus"
            )
        vectoriser = TfidfVectorizer(min_df=MIN_DOCUMENTS, max_features=MAX_FEATURES, **ANALYSIS)
        try:
            features = vectoriser.fit_transform(list(texts))
        except ValueError as error:
            raise UserError(
                f"the classifier found no word that occurs in two of {len(labels)} reviews ({error}); use more reviews"
            ) from error
        model = LogisticRegression(C=INVERSE_PENALTY, max_iter=1000, random_state=seed_for("classifier", seed))
        model.fit(features, np.asarray(labels))
        return cls(
            tuple(str(term) for term in vectoriser.get_feature_names_out()),
            np.asarray(vectoriser.idf_, dtype=np.float64),
            np.asarray(model.coef_[0], dtype=np.float64),
            float(model.intercept_[0]),
        )

    @cached_property
    def _vectoriser(self) -> TfidfVectorizer:
        vectoriser = TfidfVectorizer(vocabulary={term: i for i, term in enumerate(self.vocabulary)}, **ANALYSIS)
        vectoriser.idf_ = self.idf
        return vectoriser

    def logit(self, texts: Sequence[str]) -> np.ndarray:
        """Log-odds that each text is positive, shape (n,). A text's value does not depend on the others."""
        if len(texts) == 0:
            return np.zeros(0)
        return np.asarray(self._vectoriser.transform(list(texts)) @ self.coef) + self.intercept

    def probability(self, texts: Sequence[str]) -> np.ndarray:
        """P(positive) of each text, shape (n,)."""
        return expit(self.logit(texts))

    @property
    def _params(self) -> str:
        return json.dumps({"format": 1, **ANALYSIS, "ngram_range": list(ANALYSIS["ngram_range"])}, sort_keys=True)

    @cached_property
    def weights_hash(self) -> str:
        """Hash of everything that a score depends on."""
        digest = hashlib.sha256("\n".join(self.vocabulary).encode())
        for part in (self.idf.tobytes(), self.coef.tobytes(), np.float64(self.intercept).tobytes()):
            digest.update(b"\0" + part)
        digest.update(self._params.encode())
        return digest.hexdigest()[:16]

    def save(self, path: str | Path) -> None:
        """Write a compressed .npz without pickled objects: terms as UTF-8 lines, float64 arrays, parameters as JSON."""
        with atomic_path(path) as temporary, open(temporary, "wb") as handle:
            np.savez_compressed(
                handle,
                terms=np.frombuffer("\n".join(self.vocabulary).encode(), dtype=np.uint8),
                idf=self.idf,
                coef=self.coef,
                intercept=np.float64(self.intercept),
                params=np.frombuffer(self._params.encode(), dtype=np.uint8),
            )

    @classmethod
    def load(cls, path: str | Path) -> "TextClassifier":
        """Read what `save` wrote; the scores are bit for bit the same. Raises UserError for any other file."""
        try:
            with np.load(path, allow_pickle=False) as arrays:
                terms = arrays["terms"].tobytes().decode()
                loaded = cls(tuple(terms.split("\n")), arrays["idf"], arrays["coef"], float(arrays["intercept"]))
                params = arrays["params"].tobytes().decode()
        except (OSError, ValueError, KeyError, EOFError, TypeError, AttributeError, zipfile.BadZipFile) as error:
            raise UserError(f"{path}: not a saved classifier ({error}); delete it and run again") from error
        if params != loaded._params or not len(loaded.vocabulary) == len(loaded.idf) == len(loaded.coef):
            raise UserError(f"{path}: a classifier of another version; delete it and run again")
        return loaded


def true_reward(classifier: TextClassifier, full_texts: Sequence[str]) -> np.ndarray:
    """Ground-truth reward of whole texts (prompt + answer): 6 (P(positive) - 0.5), in [-3, 3] (MADPO v1)."""
    return 6.0 * (classifier.probability(full_texts) - 0.5)


def _agreement(a: TextClassifier, b: TextClassifier, texts: list[str], labels: np.ndarray) -> dict[str, float]:
    logit_a, logit_b = a.logit(texts), b.logit(texts)
    return {
        "ground_truth_accuracy": float(np.mean((logit_a > 0) == (labels == 1))),
        "judge_accuracy": float(np.mean((logit_b > 0) == (labels == 1))),
        "agreement": float(np.mean((logit_a > 0) == (logit_b > 0))),
        "logit_correlation": float(np.corrcoef(logit_a, logit_b)[0, 1]),
    }


def fit_halves(
    corpus: ReviewsCorpus, seed: int, progress: Progress = quiet
) -> tuple[TextClassifier, TextClassifier, dict]:
    """The ground truth (half A), the judge (half B) and a report.

    The report gives, for whole reviews and for their first 48 words, each one's accuracy on reviews in neither half,
    how often the two agree, and the correlation of their logits.
    """
    split = split_reviews(load_reviews(corpus), corpus, seed)
    progress(1, 4, "reviews split")
    halves = (split.classifier_a, split.classifier_b)
    fitted = []
    for done, half in enumerate(halves, start=2):
        fitted.append(TextClassifier.fit(half["text"].tolist(), half["label"].tolist(), seed))
        progress(done, 4, "classifier fitted")
    held_out = split.held_out.tail(MEASURED)  # the far end: prompts, negative on purpose, stand at the front
    texts, labels = held_out["text"].tolist(), held_out["label"].to_numpy()
    snippets = [" ".join(text.split(" ")[:COMPLETION_WORDS]) for text in texts]
    report = {
        "trained_on": {"ground_truth": len(halves[0]), "judge": len(halves[1])},
        "held_out": len(texts),
        "held_out_positive": int(labels.sum()),
        "features": {"ground_truth": len(fitted[0].vocabulary), "judge": len(fitted[1].vocabulary)},
        "weights_hash": {"ground_truth": fitted[0].weights_hash, "judge": fitted[1].weights_hash},
        "full_review": _agreement(*fitted, texts, labels),
        "snippet_48_words": _agreement(*fitted, snippets, labels),
    }
    progress(4, 4, "classifiers measured")
    return fitted[0], fitted[1], report
