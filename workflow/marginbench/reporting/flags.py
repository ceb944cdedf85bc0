"""Methods that did nothing or left the language, found in the cells: a reader must know before comparing rewards."""

from typing import Any

import pandas as pd

from marginbench.reporting.catalog import describe
from marginbench.reporting.layout import method_label
from marginbench.study import START

NO_MOVE_NATS = 0.05
"""Sequence KL below which answers can hardly be told from the start's: the total variation is at most sqrt(KL / 2) =
0.16 (Pinsker), so that the best guess where one answer comes from is right at most 58 % of the time."""
FAR_NATS = 20.0
"""Where the axis of the reward-KL frontier of controlled sentiment ends (Rafailov et al. 2023, figure 2)."""
FAR_NATS_PER_TOKEN = 0.5
"""Long answers gather KL without harm; half a nat per token means that the average token was e^0.5 = 1.6 times likelier
than under the start. Both bounds must be passed."""
WORSE_BITS = 1.25
"""Bits per byte of untouched texts, relative to the start: each byte is predicted a quarter worse. In docs/findings
(small, three seeds) DPO at a KL of 4 nats cost 3 %, IPO at 30 nats 40 %."""
REPEATED_TRIGRAMS = 0.20
"""Share of an answer's word trigrams that repeat an earlier one: every fifth. The start in docs/findings had 0.5 %."""
BITS = "review_perplexity"


def _mean(own: pd.DataFrame, metric: str) -> float | None:
    """A metric's value (the largest, where there are several generations), or None."""
    values = own.loc[own["metric"] == metric, "mean"].dropna()
    return None if values.empty else float(values.max())


def _signs(own: pd.DataFrame, start: pd.DataFrame) -> list[str]:
    """Every sign that a policy has left the language of its start, in words."""
    signs = []
    kl, tokens = _mean(own, "kl"), _mean(own, "answer_tokens")
    if kl is not None and kl > FAR_NATS and kl > FAR_NATS_PER_TOKEN * (tokens or 0.0):
        signs.append(f"KL {kl:.0f} nats")
    bits, before = _mean(own, BITS), _mean(start, BITS)
    if bits is not None and before and bits > WORSE_BITS * before:
        signs.append(f"{describe(BITS).label} +{100 * (bits / before - 1):.0f} %")
    repeated = _mean(own, "repeated_trigrams")
    if repeated is not None and repeated > REPEATED_TRIGRAMS:
        signs.append(f"{100 * repeated:.0f} % of trigrams repeated")
    return signs


def _stillness(own: pd.DataFrame) -> str:
    """KL in words where it is as good as none (with its upper end: few answers tell little), or nothing."""
    kl = own[(own["metric"] == "kl") & own["mean"].notna()]
    if kl.empty or not (kl["mean"].abs() < NO_MOVE_NATS).all():
        return ""
    show = describe("kl").show
    most = kl["mean_high"].max()
    return f"{show(kl['mean'].abs().max())} nats" + ("" if pd.isna(most) else f", at most {show(most)}")


def flags(cells: pd.DataFrame) -> list[str]:
    """One remark on methods that hardly moved, one on methods that left the language; none where there are none."""
    still: list[str] = []
    gone: list[str] = []
    several = cells[["dataset", "model"]].drop_duplicates()
    for (dataset, model), block in cells.groupby(["dataset", "model"], sort=False):
        start = block[block["method"] == START]
        for method, own in block[block["method"] != START].groupby("method", sort=False):
            name: Any = method_label(method) + (f", {dataset}, {model}" if len(several) > 1 else "")
            signs = _signs(own, start)
            if signs:
                gone.append(f"{name} ({', '.join(signs)})")
            elif _stillness(own):
                still.append(f"{name} ({_stillness(own)})")
    found = []
    if gone:
        found.append(f"Left the language of the start, so that rewards and win rates mean little: {'; '.join(gone)}.")
    if still:
        found.append(f"Hardly moved, by a KL below {NO_MOVE_NATS:g} nats: {'; '.join(still)}.")
    return found
