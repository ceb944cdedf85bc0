"""wide.csv: one row per run, one column per metric; the same values as the long table."""

from collections.abc import Sequence

import pandas as pd

from marginbench.reporting.catalog import order_of
from marginbench.study import START

RUN = ["study", "dataset", "model", "method", "seed"]


def widen(metrics: pd.DataFrame, methods: Sequence[str] = ()) -> pd.DataFrame:
    """The METRICS frame with a column per metric, in the catalog's order; runs in the order of `methods`, start first.

    A column is called `metric`, followed by `.generation` and `.judge` where the study has several of them.
    """
    several = [name for name in ("generation", "judge") if metrics.loc[metrics[name] != "", name].nunique() > 1]
    named = metrics.assign(column=metrics["metric"])
    for name in several:
        named["column"] += ("." + named[name]).where(named[name] != "", "")
    rows = named[["column", "metric", "generation", "judge"]].drop_duplicates().itertuples(index=False)
    columns = sorted(rows, key=lambda row: (order_of(row.metric), row.generation, row.judge))
    wide = named.pivot(index=[*RUN, "spec_hash"], columns="column", values="value").reset_index()
    order = {START: -1, **{method: number for number, method in enumerate(methods) if method != START}}
    wide = wide.assign(order=wide["method"].map(order).fillna(len(order)))
    wide = wide.sort_values(["study", "dataset", "model", "order", "method", "seed"], kind="stable")
    return wide[[*RUN, *(row.column for row in columns), "spec_hash"]].rename_axis(columns=None).reset_index(drop=True)
