"""What goes into a preference run beside the model: margins, the method's plan, and the rows that are collated."""

import numpy as np
import pandas as pd
from datasets import Dataset

from marginbench.errors import UserError
from marginbench.methods.base import Plan
from marginbench.methods.registry import Method
from marginbench.training.reference import pair_rows


def margins_of(method: Method, tokens: pd.DataFrame, margins: pd.DataFrame | None) -> np.ndarray | None:
    """Margins as the method sees them, in the order of `tokens`, shape (pairs,); None where none are read.

    Raises UserError on a gap. Where the method's parameters permute the margins, they are permuted here; the file with
    the margins is as it was.
    """
    if not method.needs.margins:
        return None
    if margins is None:
        raise UserError(f"method `{method.name}` needs margins and got none; score the pairs first")
    known = margins.set_index("pair_id", verify_integrity=True)["margin"]
    missing = tokens.loc[~tokens["pair_id"].isin(known.index), "pair_id"]
    if len(missing):
        raise UserError(
            f"margins: {len(missing)} of {len(tokens)} pairs have none, the first is {missing.iloc[0]}; "
            "score these pairs too"
        )
    values = known.loc[tokens["pair_id"]].to_numpy(dtype=np.float64)
    if not np.isfinite(values).all():
        raise UserError(f"margins: pair {tokens['pair_id'].iloc[int(np.argmin(np.isfinite(values)))]} is not finite")
    return method.margins_seen(values)


def check_plan(plan: Plan, method: Method, n: int) -> None:
    """Raise ValueError, a defect of the method file, when a plan does not fit the method or the number of pairs."""
    if (plan.order is not None) != method.needs.order:
        raise ValueError(f"method {method.name}: a plan with an order and needs.order belong together")
    if plan.phase is not None and np.shape(plan.phase) != (n,):
        raise ValueError(f"method {method.name}: the plan's phase is not {n} numbers")
    for name, values in plan.columns.items():
        if np.shape(values) != (n,) or not np.isfinite(np.asarray(values, dtype=float)).all():
            raise ValueError(f"method {method.name}: plan column {name} is not {n} finite numbers")


def positions_of(plan: Plan, n: int) -> np.ndarray:
    """Positions of the pairs of one pass: all, or those kept, in the plan's order where it has one."""
    positions = np.arange(n) if plan.order is None else np.asarray(plan.order)
    if plan.order is not None and sorted(positions) != list(range(n)):
        raise ValueError("a plan's order must name every pair once")
    return positions if plan.keep is None else positions[np.asarray(plan.keep, dtype=bool)[positions]]


def phases_of_steps(plan: Plan, order: np.ndarray, batch_size: int) -> np.ndarray | None:
    """The phase of every optimiser step, shape (steps,): the last among its pairs. None where there is one phase.

    Args:
        order: positions of the pairs as they are trained on, shape (steps x batch_size,).
    """
    if plan.phase is None:
        return None
    return np.asarray(plan.phase, dtype=np.int64)[order].reshape(-1, batch_size).max(axis=1)


def plan_facts(plan: Plan, positions: np.ndarray) -> dict[str, object]:
    """What a run's manifest tells of a plan: pairs that are trained on, and a histogram of every planned column."""
    columns = {}
    for name, values in plan.columns.items():
        kept = np.asarray(values, dtype=np.float64)[positions]
        counts, edges = np.histogram(kept, bins=20)
        columns[name] = {"mean": float(kept.mean()), "edges": edges.tolist(), "counts": counts.tolist()}
    return {"pairs": len(positions), "columns": columns}


def pair_dataset(joined: pd.DataFrame, margin: np.ndarray | None, plan: Plan) -> Dataset:
    """Rows for the collator: token lists, reference log-probabilities, margin and the plan's columns."""
    rows = pair_rows(joined)
    for i, row in enumerate(rows):
        row["ref_chosen_logps"] = float(joined["ref_chosen_logp"].iloc[i])
        row["ref_rejected_logps"] = float(joined["ref_rejected_logp"].iloc[i])
        if margin is not None:
            row["margin"] = float(margin[i])
        for name, values in plan.columns.items():
            row[name] = float(values[i])
    return Dataset.from_list(rows)
