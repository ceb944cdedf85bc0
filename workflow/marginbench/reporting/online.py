"""Online runs compared: what each arm and seed reached and spent, and whether two arms are equivalent at equal budgets.

Reads the ONLINE_METRICS frame (columns in `records.py`): a row per (run, evaluated round, metric, judge) with what the
run had spent until then.
"""

import math
from collections.abc import Mapping, Sequence
from typing import Any

import pandas as pd

from marginbench.errors import UserError, nearest
from marginbench.records import ONLINE_METRICS, check_table
from marginbench.statistics.agreement import difference_matrix
from marginbench.statistics.equalised import BOTH, OURS, Equalised, equalise
from marginbench.statistics.equivalence import paired_equivalence, smallest_margin

CELL = ["study", "dataset", "model", "labeller"]
BUDGETS = {
    "round": ("rounds", "{:.0f}"),
    "labels": ("labels", "{:,.0f}"),
    "generated_tokens": ("generated tokens", "{:,.0f}"),
    "seconds": ("seconds", "{:,.0f}"),
}
"""Column that is held equal -> (its name in words, how a value is written)."""

COLUMN_DOCS = {
    "study": "study id",
    "dataset": "dataset id",
    "model": "model id",
    "labeller": "what labelled in the loop",
    "metric": "metric id",
    "judge": "judge id; empty where no judge was asked",
    "judge_is_labeller": "True where it labelled the training pairs, or scores with the weights that did: it flatters",
    "ours": "arm that is asked about",
    "theirs": "arm that it is compared with",
    "budget": "what is held equal: `round`, `labels`, `generated_tokens` or `seconds`",
    "at": "how much of it: the most that every run of both arms had spent",
    "ends_first": "arm whose shortest run set `at`; `both` where they end together",
    "ours_mean": "mean over seeds of ours there, interpolated between evaluations, never extrapolated",
    "theirs_mean": "the same of theirs",
    "ours_from_start": "seeds of ours whose value rests on the line from the start to the first evaluation",
    "theirs_from_start": "the same of theirs",
    "n_seeds": "seeds that both have a value of",
    "difference": "mean of ours - theirs, paired by seed, in the metric's unit as stored",
    "se": "its standard error over seeds",
    "df": "degrees of freedom: seeds - 1",
    "low": "lower end of the 1 - 2 alpha interval",
    "high": "upper end",
    "margin": "equivalence margin, stated before the run",
    "alpha": "level of each one-sided test and of the test of a difference",
    "p_lower": "p of the hypothesis that the difference is -margin or less",
    "p_upper": "p of the hypothesis that it is margin or more",
    "p_tost": "the larger of the two; equivalent where it is at most alpha",
    "p_difference": "two-sided p of no difference",
    "verdict": "`equivalent`, `different`, `equivalent and different`, or `undecided`",
    "reason": "why nothing was tested; else empty",
    "smallest_margin": "margin that these seeds, with their sd, would just meet with 80 % power if the arms were equal",
}
VERDICT_COLUMNS = list(COLUMN_DOCS)
MATRIX_DOCS = {
    **{name: COLUMN_DOCS[name] for name in ("study", "dataset", "model", "ours", "theirs", "labeller")},
    "judge": "judge id: a judge of the study, or what labels in any arm of it",
    "judge_is_labeller": COLUMN_DOCS["judge_is_labeller"],
    "difference": "mean of ours - theirs in win rate at each run's last round, paired by seed, in points; empty where "
    "this judge never compared answers of both arms",
    "low": "lower end of its t-interval over seeds, at the study's confidence",
    "high": "upper end",
    "n_seeds": "seeds that both arms have",
    "how": "`seeds`, or `none` where there is no interval",
}
"""Columns of the labeller x judge matrix."""
NUMBERS = ["at", "ours_mean", "theirs_mean", "smallest_margin", "difference", "se", "df", "low", "high"]
NUMBERS += ["margin", "alpha", "p_lower", "p_upper", "p_tost", "p_difference"]
_COUNTS = ["ours_from_start", "theirs_from_start", "n_seeds"]


def check_online(frame: pd.DataFrame, where: str = "online metrics") -> pd.DataFrame:
    """The frame itself, if it keeps the contract of ONLINE_METRICS and is not empty; UserError otherwise."""
    check_table(frame, ONLINE_METRICS, where)
    if frame.empty:
        raise UserError(f"{where}: no online run has been evaluated; run the study first")
    return frame.reset_index(drop=True)


def _paths(rows: pd.DataFrame, arm: str, budget: str) -> dict[int, pd.Series]:
    own = rows[rows["arm"] == arm].sort_values("round")
    return {int(seed): run.set_index(budget)["value"] for seed, run in own.groupby("seed")}


def _ends_first(found: Equalised, ours: str, theirs: str) -> str:
    if found.ends_first in ("", BOTH):
        return found.ends_first
    return ours if found.ends_first == OURS else theirs


def _row(rows: pd.DataFrame, ours: str, theirs: str, budget: str, margin: float, alpha: float) -> dict[str, Any]:
    found = equalise(_paths(rows, ours, budget), _paths(rows, theirs, budget))
    test = paired_equivalence(found.ours, found.theirs, margin, alpha)
    shared = found.ours.index.intersection(found.theirs.index)
    sd = None if test.se is None else test.se * math.sqrt(test.n_seeds)
    could_show = None if sd is None else smallest_margin(sd, test.n_seeds, alpha)
    return {
        "ours": ours,
        "theirs": theirs,
        "budget": budget,
        "at": found.budget,
        "ends_first": _ends_first(found, ours, theirs),
        "ours_mean": found.ours.loc[shared].mean(),
        "theirs_mean": found.theirs.loc[shared].mean(),
        "ours_from_start": found.from_start[0],
        "theirs_from_start": found.from_start[1],
        "smallest_margin": could_show,
        **{name: value for name, value in vars(test).items() if name in VERDICT_COLUMNS},
    }


def compare_online(
    frame: pd.DataFrame, comparisons: Sequence[tuple[str, str]], margins: Mapping[str, float], alpha: float
) -> pd.DataFrame:
    """One row per (dataset, model, labeller), comparison, metric, judge and budget: columns VERDICT_COLUMNS.

    Args:
        frame: ONLINE_METRICS frame.
        comparisons: (ours, theirs) pairs of arms, as in [("apl", "random")].
        margins: metric -> equivalence margin, in the metric's unit as stored; only these metrics are compared.
        alpha: level of each one-sided test.

    Raises:
        UserError: an arm or a metric that no run has; a margin that is not above 0.
    """
    frame = check_online(frame)
    for name, known, wanted in (
        ("arm", set(frame["arm"]), {arm for pair in comparisons for arm in pair}),
        ("metric", set(frame["metric"]), set(margins)),
    ):
        for unknown in sorted(wanted - known):
            raise UserError(f"online comparison: no run has the {name} `{unknown}`; {nearest(unknown, known)}")
    for metric, margin in margins.items():
        if not 0 < margin < math.inf:
            raise UserError(f"online comparison: the margin of `{metric}` is {margin:g}; state one above 0")
    records = []
    for key, block in frame.groupby(CELL, sort=True):
        place = dict(zip(CELL, key, strict=True))
        for ours, theirs in comparisons:
            if not {ours, theirs} & set(block["arm"]):
                continue  # arms of another labeller
            for metric, margin in margins.items():
                for judge, rows in block[block["metric"] == metric].groupby("judge", sort=True):
                    place |= {"metric": metric, "judge": judge, "judge_is_labeller": rows["judge_is_labeller"].any()}
                    records += [{**place, **_row(rows, ours, theirs, budget, margin, alpha)} for budget in BUDGETS]
    verdicts = pd.DataFrame(records, columns=VERDICT_COLUMNS)
    verdicts[NUMBERS] = verdicts[NUMBERS].astype(float)
    return verdicts.astype(dict.fromkeys(_COUNTS, int)).astype({"judge_is_labeller": bool})


def matrix_online(frame: pd.DataFrame, comparisons: Sequence[tuple[str, str]], confidence: float) -> pd.DataFrame:
    """Labeller x judge: ours - theirs in win rate at each run's last round, columns MATRIX_COLUMNS.

    One row per (dataset, model), comparison, labeller of its arms, and judge: all judges that any run met, so that what
    was not measured is a row without a difference. Arguments as in `compare_online`; `confidence` is the level of the
    t-intervals over seeds.
    """
    wins = last_round(frame)
    wins = wins[wins["metric"] == "win_rate"]
    records = []
    for key, block in wins.groupby(CELL[:3], sort=True):
        flattered = set(block.loc[block["judge_is_labeller"], ["labeller", "judge"]].itertuples(index=False, name=None))
        for ours, theirs in comparisons:
            labellers = set(block.loc[block["arm"].isin([ours, theirs]), "labeller"])
            for row in difference_matrix(block, ours, theirs, confidence).to_dict("records"):
                if row["labeller"] in labellers:
                    pair = (row["labeller"], row["judge"])
                    place = {**dict(zip(CELL, key, strict=False)), "ours": ours, "theirs": theirs}
                    records.append({**place, **row, "judge_is_labeller": row["same"] or pair in flattered})
    return pd.DataFrame(records, columns=list(MATRIX_DOCS))


def last_round(frame: pd.DataFrame) -> pd.DataFrame:
    """Rows of each run's last evaluated round."""
    return frame[frame["round"] == frame.groupby([*CELL, "arm", "seed"])["round"].transform("max")]
