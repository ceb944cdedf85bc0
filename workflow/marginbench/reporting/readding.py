"""What can be re-added: printed numbers that others of the same source say, and how."""

from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass

import pandas as pd

from marginbench.reporting import rounding
from marginbench.reporting.published import range_of
from marginbench.reporting.rounding import Range

ALPACA_QUESTIONS = 805
MADPO_ANSWERS = 2000
TOUCH = 1e-6
"""One number is not printed as 21.4 here and 21.5 there, though 21.45 could be either: ranges must overlap."""

CELL = ["row", "dataset", "model", "setting", "metric", "judge"]

Find = Callable[[pd.DataFrame], Iterator[tuple[int, Range]]]


@dataclass(frozen=True)
class Check:
    """One kind of arithmetic. `find` gives the places of printed numbers with the range that each must meet.

    What is compared is `value`, or another `column` that is printed with so many `decimals`.
    """

    name: str
    find: Find
    column: str = "value"
    decimals: int = 0


def _cell(frame: pd.DataFrame, row: pd.Series, /, **other: str) -> pd.Series | None:
    """The first-ranked number of the same target whose cell is that of `row`, changed as told."""
    keep = (frame["target"] == row["target"]) & (frame["rank"] == 1)
    for name in CELL:
        keep &= frame[name] == other.get(name, row[name])
    found = frame[keep]
    return None if found.empty else found.iloc[0]


def _from_cells(
    target: str, metric: str, cells: Callable[[pd.Series], list[Mapping[str, str]]], rule: Callable[..., Range]
) -> Find:
    """Numbers `metric` of a target by a rule on the ranges of other cells; those that lack a part are left out."""

    def find(frame: pd.DataFrame) -> Iterator[tuple[int, Range]]:
        for place, row in frame[(frame["target"] == target) & (frame["metric"] == metric)].iterrows():
            parts = [_cell(frame, row, **other) for other in cells(row)]
            if all(part is not None for part in parts):
                yield place, rule(*map(range_of, parts))

    return find


def _metrics(*names: str) -> Callable[[pd.Series], list[Mapping[str, str]]]:
    return lambda row: [{"metric": name} for name in names]


def _rows(metric: str, *names: str) -> Callable[[pd.Series], list[Mapping[str, str]]]:
    return lambda row: [{"metric": metric, "row": name} for name in names]


def _without_beta(row: pd.Series) -> list[Mapping[str, str]]:
    return [{"metric": "win_rate"}, {"metric": "win_rate", "row": row["row"].removesuffix(" + dynamic beta")}]


def _mean(*parts: Range) -> Range:
    return rounding.mean(parts)


def _repeats(frame: pd.DataFrame) -> Iterator[tuple[int, Range]]:
    """A number that is said to stand in another target, too, or to be another source's for the same cell."""
    first = frame[frame["rank"] == 1]
    for place, row in frame[frame["repeats"] != ""].iterrows():
        keep = first["target"] == row["repeats"]
        for name in ("row", "dataset", "model", "metric", "judge"):
            keep &= first[name] == row[name]
        found = first[keep]
        if len(found) > 1:
            found = found[found["setting"] == row["setting"]]
        if len(found) == 1:
            same = range_of(found.iloc[0])
            yield place, Range(same.low + TOUCH, same.high - TOUCH)


def _replicates(frame: pd.DataFrame) -> Iterator[tuple[int, Range]]:
    rows = frame[frame["target"] == "table_mixdpo_replicates"]
    lc = rows[rows["metric"] == "alpaca_eval/length_controlled_winrate"].set_index("row")
    names = ["first run, called the best", "second entry", "third entry", "replicate with its own config"]
    for place, row in rows[rows["row"] == "mean of the four entries"].iterrows():
        if set(names) <= set(lc.index) and row["metric"] == "alpaca_eval/length_controlled_winrate":
            yield place, rounding.mean([range_of(lc.loc[name]) for name in names])


def _t_tests(frame: pd.DataFrame) -> Iterator[tuple[int, Range]]:
    for place, row in frame[frame["metric"] == "t_test_p"].iterrows():
        a, b = (_cell(frame, row, metric="win_rate", row=name) for name in ("CERTAINTY", "RANDOM"))
        if a is None or b is None or a["n_seeds"] != b["n_seeds"]:
            continue
        sds = [rounding.printed_range(float(side["sd"]), int(side["decimals"])) for side in (a, b)]
        yield place, rounding.t_test_p(range_of(a), sds[0], range_of(b), sds[1], int(a["n_seeds"]))


def _hard_labels(frame: pd.DataFrame) -> pd.DataFrame:
    judged = frame["judge"] == "gpt_4_1_alpaca_ranking"
    return frame[judged & (frame["metric"] == "alpaca_eval/win_rate") & (frame["relation"] == "=")]


def _counts(frame: pd.DataFrame) -> Iterator[tuple[int, Range]]:
    """A win rate of 805 hard verdicts is a count of halves over 805; a verdict that is missing breaks this, too."""
    for place, row in _hard_labels(frame).iterrows():
        yield place, rounding.nearest_win_rate(range_of(row), ALPACA_QUESTIONS)


def _standard_errors(frame: pd.DataFrame) -> Iterator[tuple[int, Range]]:
    """The standard error of a win rate of 805 hard verdicts."""
    rows = _hard_labels(frame)
    for place, row in rows[rows["se"].notna()].iterrows():
        yield place, rounding.hard_win_rate_se(range_of(row), ALPACA_QUESTIONS)


def _intervals(which: int) -> Find:
    """Ends of MADPO's normal intervals over answers."""

    def find(frame: pd.DataFrame) -> Iterator[tuple[int, Range]]:
        rows = frame[(frame["target"] == "table_madpo_main") & frame["sd"].notna() & frame["ci_level"].notna()]
        for place, row in rows.iterrows():
            sd = rounding.printed_range(float(row["sd"]), 3)
            yield place, rounding.normal_interval(range_of(row), sd, MADPO_ANSWERS, row["ci_level"])[which]

    return find


def _margins(frame: pd.DataFrame) -> pd.Series:
    """Pairs by margin, as printed; the whole under `all`."""
    rows = frame[frame["target"] == "figure_mixdpo_margins"]
    return pd.Series(rows["value"].to_numpy(), index=rows["setting"].str.removeprefix("margin="))


def _all_pairs(frame: pd.DataFrame) -> Iterator[tuple[int, Range]]:
    pairs = _margins(frame)
    for place in frame.index[(frame["target"] == "figure_mixdpo_margins") & (frame["setting"] == "margin=all")]:
        count = pairs.drop("all").sum()
        yield place, Range(count, count)


def _routed(metric: str) -> Find:
    def find(frame: pd.DataFrame) -> Iterator[tuple[int, Range]]:
        pairs = _margins(frame)
        if "all" not in pairs:
            return
        margins = pairs.drop("all").index.astype(float)
        for place, row in frame[(frame["target"] == "table_mixdpo_routing") & (frame["metric"] == metric)].iterrows():
            hard = pairs.drop("all")[margins < float(row["setting"].removeprefix("tau="))].sum()
            counts = {"sft_pairs": hard, "dpo_pairs": pairs["all"] - hard, "sft_share": 100 * hard / pairs["all"]}
            yield place, Range(counts[metric], counts[metric])

    return find


FIVE = ("mmlu/acc", "truthfulqa_mc2/acc", "hellaswag/acc", "arc_challenge/acc", "winogrande/acc")
SIX = ("gsm8k", "mathqa", "minerva_math", "mmlu_pro_math", "bbh", "arc")
ALL_COMPLETIONS = [
    {"row": row, "metric": metric, "judge": ""}
    for row in ("APL", "random")
    for metric in ("training_completions", "evaluation_completions")
]

CHECKS = (
    Check(
        "gain over beta-DPO",
        _from_cells(
            "table_madpo_main",
            "gain_over_beta_dpo",
            lambda row: [{"metric": "true_reward"}, {"metric": "true_reward", "row": "beta-DPO", "setting": ""}],
            rounding.gain_per_cent,
        ),
    ),
    Check("end of the interval", _intervals(0), "ci_low", 3),
    Check("end of the interval", _intervals(1), "ci_high", 3),
    Check(
        "gain by dynamic beta", _from_cells("figure_betadpo_variants", "gain", _without_beta, rounding.gain_per_cent)
    ),
    Check("average", _from_cells("table_mixdpo_capability", "average_of_five", _metrics(*FIVE), _mean)),
    Check("average", _from_cells("table_mixdpo_ultrainteract", "average_of_six", _metrics(*SIX), _mean)),
    Check(
        "difference",
        _from_cells(
            "table_mixdpo_logp_shift",
            "logp_shift_gap",
            _metrics("chosen_logp_shift", "rejected_logp_shift"),
            Range.__sub__,
        ),
    ),
    Check(
        "difference",
        _from_cells("table_mixdpo_subset_texts", "nll_gap", _metrics("rejected_nll", "chosen_nll"), Range.__sub__),
    ),
    *(
        Check(
            "difference",
            _from_cells(target, "win_rate_difference", _rows("win_rate", "CERTAINTY", "RANDOM"), Range.__sub__),
        )
        for target in ("table_apl_original_imdb", "table_apl_original_tldr")
    ),
    Check("p of the t-test", _t_tests),
    Check(
        "ratio",
        _from_cells(
            "table_apl_cost",
            "training_completions_ratio",
            lambda row: [{"metric": "training_completions"}, {"metric": "training_completions", "row": "random"}],
            rounding.ratio,
        ),
    ),
    Check(
        "ratio",
        _from_cells(
            "table_apl_cost",
            "all_completions_ratio",
            lambda row: ALL_COMPLETIONS,
            lambda apl, apl_eval, random, random_eval: rounding.ratio(apl + apl_eval, random + random_eval),
        ),
    ),
    Check("mean of the entries", _replicates),
    Check("same cell elsewhere", _repeats),
    Check("count of verdicts", _counts),
    Check("standard error of verdicts", _standard_errors, "se", 2),
    Check("sum", _all_pairs),
    *(Check("routing", _routed(metric)) for metric in ("sft_pairs", "dpo_pairs", "sft_share")),
)
