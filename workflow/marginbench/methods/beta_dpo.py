"""beta-DPO (Wu et al. 2024, arXiv 2407.08639 v2, section 4 and algorithm 1): one beta per batch, and a filter.

With DPO's log-ratio margins g_i of a batch (no gradient goes through what follows) and M_i = beta g_i:

    mean <- m mean + (1 - m) average(M),       std <- m std + (1 - m) deviation(M)
    keep int(keep_ratio B) pairs, drawn without replacement with weights exp(-((M_i - mean) / std)^2 / 2)
    beta_batch = beta (1 + alpha (average(M) - mean)), not below beta_min
    the loss of a pair is -log sigma(beta_batch g_i); the batch's is the mean over the kept pairs.

The paper leaves open whether the second average is over the batch or over the kept pairs, and names neither the running
values' start nor a floor. The released code differs from the paper: its margins have no beta in them (`margin_scale:
raw`, which makes the same alpha ten times as strong at beta = 0.1), the average is over the kept pairs (`beta_source:
kept`), the deviation is the sample's (`std_ddof: 1`), beta has a floor of 0.001, and statistics and filter are those of
micro-batches (`ema_scope: micro`). That is the variant `beta_dpo_released`. Deliberately different from it here:

- evaluation never changes the running values (theirs does);
- where std is below a thousandth of a nat (policy = reference at the first step) the draw is uniform: theirs follows
  rounding errors there, which differ with the size of micro-batches, or is 0 / 0;
- the draw is a Gumbel top-k keyed by (seed, step, pair): the same distribution, which cannot underflow and does not
  depend on the order of the pairs;
- at least one pair is kept, and one pair's sample deviation is 0.

rho is the share kept in the paper's text and the share dropped in its sensitivity figure; `keep_ratio` is the former.
"""

import math
from typing import Literal

import numpy as np
from pydantic import Field

from marginbench.identity import stream
from marginbench.methods.base import Case, Needs, PairBatch, PairLoss, State, log_ratio_margin
from marginbench.methods.curriculum import PairParams
from marginbench.methods.formulas import ROUNDING, sigmoid_loss


class Params(PairParams):
    """Parameters of beta-DPO."""

    beta: float = Field(0.1, gt=0, description="beta_0, per nat: the beta of an average batch.")
    alpha: float = Field(0.6, ge=0, description="How strongly beta follows the batch; 0 is a constant beta.")
    keep_ratio: float = Field(0.8, gt=0, le=1, description="Share of a batch that is kept; 1 keeps all.")
    momentum: float = Field(0.9, ge=0, lt=1, description="m of the running mean and deviation.")
    margin_scale: Literal["beta0", "raw"] = Field(
        "beta0", description="Margins times beta (paper) or as they are (code)."
    )
    beta_source: Literal["full", "kept"] = Field("full", description="Pairs whose average margin sets beta.")
    std_ddof: Literal[0, 1] = Field(0, description="0: deviation of the population; 1: of a sample (code).")
    beta_min: float | None = Field(0.0, ge=0, description="Floor of beta; 0.001 in the code; null: may be negative.")
    ema_mean_init: float = Field(0.0, description="Start of the running mean, in units of the margins.")
    ema_std_init: float = Field(0.0, ge=0, description="Start of the running deviation, in units of the margins.")
    ema_scope: Literal["batch", "micro"] = Field(
        "batch", description="Statistics and filter of the optimiser batch, or of each micro-batch in turn (code)."
    )


VARIANTS = {
    "beta_dpo_released": {
        "margin_scale": "raw",
        "beta_source": "kept",
        "std_ddof": 1,
        "beta_min": 1e-3,
        "ema_scope": "micro",
    }
}


def needs(params: Params) -> Needs:
    """The reference, the whole batch, the running values; and draws where something is filtered."""
    return Needs(reference=True, whole_batch=True, state=True, draws=params.keep_ratio < 1)


def initial_state(params: Params) -> State:
    """The running values before the first batch."""
    return {"mean": params.ema_mean_init, "std": params.ema_std_init}


def log_weights(margins: np.ndarray, mean: float, std: float, floor: float = 0.0) -> np.ndarray:
    """Log of the filter's weights, up to a constant; all 0 where std is not above floor: nothing to measure by."""
    return -0.5 * ((margins - mean) / std) ** 2 if std > floor else np.zeros_like(margins)


def draw(log_weight: np.ndarray, count: int, pair_ids: list[str], seed: int, step: int) -> list[int]:
    """Positions of `count` pairs drawn without replacement, in ascending order.

    The largest of log-weight + Gumbel noise are a draw without replacement (Kool et al. 2019, arXiv 1903.06059). The
    noise of a pair depends on (seed, step, pair) and on nothing else.
    """
    noise = [stream("pair_filter", seed, step, pair_id).gumbel() for pair_id in pair_ids]
    keys = sorted(range(len(pair_ids)), key=lambda i: (-(log_weight[i] + noise[i]), pair_ids[i]))
    return sorted(keys[:count])


def _kept(batch: PairBatch, params: Params, log_weight: np.ndarray, start: int) -> list[int]:
    """Positions, within the group that begins at `start`, of the pairs that are kept."""
    size = len(log_weight)
    if batch.kept is not None:
        return [i - start for i in batch.kept if start <= i < start + size]
    if params.keep_ratio == 1:
        return list(range(size))
    count = max(1, math.floor(params.keep_ratio * size + 1e-9))
    return draw(log_weight, count, list(batch.pair_ids[start : start + size]), batch.seed, batch.step)


def loss(batch: PairBatch, params: Params, state: State) -> PairLoss:
    """Loss of every pair, the kept ones, and the running values after this batch; see the module's formulas."""
    margin = log_ratio_margin(batch)
    scale = params.beta if params.margin_scale == "beta0" else 1.0
    scaled = margin.detach().double().cpu().numpy() * scale
    micro = batch.micro_batch_size if params.ema_scope == "micro" else None
    mean, std = state["mean"], state["std"]
    betas, weights, kept = np.empty_like(scaled), np.empty_like(scaled), []
    for start in range(0, len(scaled), micro or len(scaled)):
        part = slice(start, start + (micro or len(scaled)))
        group = scaled[part]
        deviation = float(group.std(ddof=params.std_ddof)) if len(group) > params.std_ddof else 0.0
        mean = params.momentum * mean + (1 - params.momentum) * float(group.mean())
        std = params.momentum * std + (1 - params.momentum) * deviation
        log_weight = log_weights(group, mean, std, ROUNDING * scale)
        chosen = _kept(batch, params, log_weight, start)
        source = group if params.beta_source == "full" or not chosen else group[chosen]
        beta = params.beta * (1 + params.alpha * (float(source.mean()) - mean))
        betas[part] = beta if params.beta_min is None else max(beta, params.beta_min)
        weights[part] = np.exp(log_weight)
        kept += [start + i for i in chosen]
    per_pair = sigmoid_loss(margin.new_tensor(betas) * margin)
    logs = {
        "beta": margin.new_tensor(betas.mean()),
        "ema_mean": margin.new_tensor(mean),
        "ema_std": margin.new_tensor(std),
        "weight": margin.new_tensor(weights),
    }
    filtered = batch.kept is not None or params.keep_ratio < 1
    return PairLoss(per_pair, logs=logs, state={"mean": mean, "std": std}, kept=kept if filtered else None)


def _pairs(margins: list[float]) -> dict[str, list]:
    """Pairs with the given log-ratio margins, of which all but the fourth are kept."""
    zero = [0.0] * len(margins)
    return {
        "chosen_logp": margins,
        "rejected_logp": zero,
        "ref_chosen_logp": zero,
        "ref_rejected_logp": zero,
        "kept": [0, 1, 2, 4],
    }


_RELEASED = VARIANTS["beta_dpo_released"]

EXAMPLE = (
    Case(  # the released code; beta 0.1144
        {**_RELEASED, "ema_mean_init": 1.0, "ema_std_init": 2.0},
        [_pairs([4.0, -1.0, 2.5, 12.0, 0.5])],
        [[0.4902966668, 0.7519822093, 0.5603370226, 0.2258570307, 0.6649561048]],
        [0.6168930009],
    ),
    Case(  # the paper; beta 0.11404
        {"ema_mean_init": 0.1, "ema_std_init": 0.2},
        [_pairs([4.0, -1.0, 2.5, 12.0, 0.5])],
        [[0.4908549925761097, 0.7517919406209215, 0.5607232068942878, 0.2267319021353044, 0.6650435355654997]],
        [0.6171034189],
    ),
)
