"""claims.csv: the differences to a baseline that the study named beforehand, each tested, Holm over all of them."""

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd

from marginbench.errors import UserError
from marginbench.reporting.catalog import Metric, describe
from marginbench.reporting.layout import BLANK, Cell, Panel, method_label
from marginbench.statistics.claims import PairedTest, holm, needed_ratio, paired_test, seeds_test
from marginbench.statistics.intervals import MIN_SEEDS

PLACE = ["study", "dataset", "model", "generation", "judge", "metric"]
COLUMN_DOCS = {
    "study": "as in `metrics`",
    "dataset": "as in `metrics`",
    "model": "as in `metrics`",
    "generation": "as in `metrics`",
    "judge": "as in `metrics`",
    "metric": "as in `metrics`",
    "method": "the entry that is compared",
    "baseline": "the entry that it is compared with",
    "difference": "mean of method - baseline over the seeds that both have, in the metric's unit as stored",
    "se": "its standard error, seeds and prompts both random",
    "df": "degrees of freedom: seeds - 1",
    "t": "difference / se",
    "p": "two-sided p-value of this difference alone; empty where it could not be tested",
    "p_holm": "p after Holm over all rows of this file",
    "level": "level of the whole family",
    "claimed": "True where p_holm is at most the level",
    "n_seeds": "seeds that both have",
    "n_prompts": "prompts (documents) that all of them have; 0 where the test knows one value per seed only",
    "how": "what varies in the test: `seeds x prompts`, `seeds`, or `none` where there is no test",
}
CLAIM_COLUMNS = list(COLUMN_DOCS)


def _grid(items: pd.DataFrame, method: str) -> pd.DataFrame:
    return items[items["method"] == method].pivot(index="seed", columns="item", values="value")


def _per_seed(rows: pd.DataFrame, method: str) -> pd.Series:
    return rows[rows["method"] == method].set_index("seed")["value"].dropna()


def _compare(rows: pd.DataFrame, items: pd.DataFrame, method: str, baseline: str) -> PairedTest:
    """By prompt where the metric is the mean of its prompts' values (an F1 over a corpus is not), else by seed."""
    by_seed = (_per_seed(rows, method) - _per_seed(rows, baseline)).dropna()
    of_seeds = seeds_test(by_seed)
    own = items[items["method"].isin([method, baseline]) & items["seed"].isin(by_seed.index)]
    if own.empty:
        return of_seeds
    weights = own.drop_duplicates("item").set_index("item")["weight"]
    ours, theirs = _grid(own, method), _grid(own, baseline)
    whole = ours.shape == theirs.shape and ours.notna().all(axis=None) and theirs.notna().all(axis=None)
    found = paired_test(ours, theirs, None if (weights == 1).all() else weights)
    if found is None or found.n_seeds < of_seeds.n_seeds:
        return of_seeds
    if whole and not np.isclose(found.difference, of_seeds.difference, rtol=1e-6, atol=1e-9):
        return of_seeds
    return found


def collect_claims(metrics: pd.DataFrame, items: pd.DataFrame, family: Mapping[str, Any]) -> pd.DataFrame:
    """One row per (dataset, model, generation, judge, metric, method) of the family, columns CLAIM_COLUMNS.

    `metrics` is the METRICS frame, `items` that of `collect_items`; `family` holds `baseline`, `methods`, `metrics` and
    `level`. A metric that the baseline has no value of is no part of the family; everything else is, tested or not.
    """
    records: list[dict[str, Any]] = []
    order = {metric: place for place, metric in enumerate(family["metrics"])}
    wanted = metrics[metrics["metric"].isin(order)]
    per_item = dict(list(items.groupby(PLACE[1:]))) if len(items) else {}
    groups = sorted(wanted.groupby(PLACE), key=lambda group: (*group[0][:-1], order[group[0][-1]]))
    for key, rows in groups if family["methods"] else []:
        if _per_seed(rows, family["baseline"]).empty:
            continue
        own = per_item.get(key[1:], items.iloc[:0])
        for method in family["methods"]:
            found = _compare(rows, own, method, family["baseline"])
            place = dict(zip(PLACE, key, strict=True))
            records.append({**place, "method": method, "baseline": family["baseline"], **vars(found)})
    frame = pd.DataFrame(records, columns=CLAIM_COLUMNS)
    frame["p_holm"] = holm([None if pd.isna(p) else float(p) for p in frame["p"]])
    frame["level"] = family["level"]
    numbers = ["difference", "se", "df", "t", "p", "p_holm", "level"]
    frame[numbers] = frame[numbers].astype(float)
    frame["claimed"] = (frame["p_holm"] <= frame["level"]).astype(bool)
    frame[["n_seeds", "n_prompts"]] = frame[["n_seeds", "n_prompts"]].astype(int)
    return frame


def read_claims(path: str | Path) -> pd.DataFrame:
    """Read claims.csv; UserError if it is not one."""
    texts = [*PLACE, "method", "baseline", "how"]
    numbers = [name for name in CLAIM_COLUMNS if name not in texts]
    frame = pd.read_csv(
        path, dtype=dict.fromkeys(texts, str), keep_default_na=False, na_values={name: [""] for name in numbers}
    )
    if list(frame.columns) != CLAIM_COLUMNS:
        raise UserError(f"{path}: not a claims.csv of this version; delete it and run again")
    return frame.astype({"claimed": bool})


def _head(metric: Metric, generation: str, judge: str) -> str:
    unit = " (points)" if metric.unit == "%" else f" ({metric.unit})" if metric.unit else ""
    return ", ".join([f"Δ {metric.label}{unit}", *filter(None, [generation, judge])])


def _probability(p: float) -> str:
    return "p < 0.001" if p < 0.001 else f"p {p:.3f}"


def claim_panels(claims: pd.DataFrame) -> list[Panel]:
    """Per dataset and model: methods with a claimed difference, and its p-value after Holm; others are not shown."""
    panels = []
    for (dataset, model), block in claims.groupby(["dataset", "model"], sort=False):
        kept = block[block["claimed"]]
        if kept.empty:
            continue
        several = {name: block.loc[block[name] != "", name].nunique() > 1 for name in ("generation", "judge")}
        columns = list(dict.fromkeys(zip(kept["metric"], kept["generation"], kept["judge"], strict=True)))
        heads = [
            _head(describe(metric), several["generation"] * generation, several["judge"] * judge)
            for metric, generation, judge in columns
        ]
        rows = []
        for method, own in kept.groupby("method", sort=False):
            cells = {
                (row.metric, row.generation, row.judge): Cell(
                    describe(row.metric).show(row.difference, signed=True), f"[{_probability(row.p_holm)}]"
                )
                for row in own.itertuples(index=False)
            }
            rows.append((method, tuple(cells.get(column, BLANK) for column in columns)))
        title = f"{dataset}, {model}: differences to {method_label(block['baseline'].iloc[0])} that are claimed"
        panels.append(Panel(title, tuple(heads), tuple(rows)))
    return panels


def claim_lines(claims: pd.DataFrame) -> list[str]:
    """What was tested, how, and what is claimed; says plainly when nothing is, and why. Nothing without a family."""
    if claims.empty:
        return []
    baseline, level, planned = method_label(claims["baseline"].iloc[0]), claims["level"].iloc[0], len(claims)
    seeds = int(claims["n_seeds"].max())
    tested = claims[claims["p"].notna()]
    if tested.empty:
        why = f"{seeds} seed{'s' * (seeds != 1)}, and {MIN_SEEDS} are the fewest that say anything about training again"
        return [f"No difference to {baseline} is claimed: {why if seeds < MIN_SEEDS else 'nothing could be tested'}."]
    labels = ", ".join(describe(metric).label for metric in dict.fromkeys(claims["metric"]))
    many = int(claims["claimed"].sum())
    test = f"{labels}; paired by seed and prompt, t over seeds, Holm over all {planned}, level {100 * level:g} %"
    found = f"{many} of {planned} differences to {baseline} claimed"
    if not many:
        found = f"No difference to {baseline} is claimed"
    lines = [f"{found} ({test}). The rest is undecided, not shown to be equal."]
    needs = [
        f"{needed_ratio(level, planned, int(df)):.1f} ({int(df) + 1} seeds)"
        for df in sorted(tested["df"].unique(), reverse=True)
    ]
    of = f"Of {planned} differences the clearest" if planned > 1 else "The difference"
    lines.append(f"{of} must be at least {' or '.join(needs)} standard errors from 0.")
    untested = claims[claims["p"].isna()]
    if len(untested):
        names = ", ".join(dict.fromkeys(method_label(method) for method in untested["method"]))
        lines.append(f"Not tested, and not claimed: {names} (too few seeds, or nothing varies).")
    return lines
