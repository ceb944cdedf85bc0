"""Order, filter and permutation by margin; beta-DPO's draw, scope and edges."""

import math

import numpy as np
import pytest
import torch
from marginbench.methods.base import PairBatch, Plan
from marginbench.methods.beta_dpo import draw, log_weights
from marginbench.methods.curriculum import hard_pairs, threshold
from marginbench.methods.registry import load_method, variant_names

ORDER_VECTOR = np.array([1.0, 0.0, 3.5, 0.5, 3.5, 0.0, 2.0])


def test_order_vector_of_mixdpo() -> None:
    for name in ("mixdpo", "dpo_sorted", "dpo_easy_only"):
        assert load_method(name).plan(ORDER_VECTOR).order.tolist() == [2, 4, 6, 0, 3, 1, 5]
    hard = load_method("mixdpo").plan(ORDER_VECTOR).columns["hard"]
    assert hard[[2, 4, 6, 0, 3, 1, 5]].tolist() == [0, 0, 0, 0, 0, 1, 1]
    assert load_method("dpo", {"order": "margin_asc"}).plan(ORDER_VECTOR).order.tolist() == [1, 5, 3, 0, 6, 2, 4]
    assert load_method("mixdpo_shuffled").plan(ORDER_VECTOR).order is None
    assert load_method("mixdpo_shuffled").plan(ORDER_VECTOR).columns["hard"].tolist() == hard.tolist()


def test_thresholds_of_ultrafeedback() -> None:
    """Counts of the specification: 61,135 margins in steps of 0.5, and the pairs below three thresholds."""
    counts = {0.0: 7387, 0.5: 11266, 1.0: 11999, 1.3: 1, 1.5: 6989, 2.0: 5707, 2.5: 2890, 3.0: 3138, 3.5: 1606}
    counts |= {4.0: 2414, 4.3: 1, 4.5: 1579, 5.0: 1913, 5.3: 2, 5.5: 1361, 5.8: 1, 6.0: 1239, 6.5: 809, 7.0: 521}
    counts |= {7.5: 173, 8.0: 132, 8.5: 7}
    margins = np.repeat(list(counts), list(counts.values()))
    assert len(margins) == 61_135
    assert [int(hard_pairs(margins, tau, None, False).sum()) for tau in (0.5, 1.0, 1.5)] == [7387, 18653, 30653]
    assert threshold(margins, None, 0.1) == 0.0  # the hardest tenth are all ties: none is strictly below
    assert int(hard_pairs(margins, None, 0.1, True).sum()) == 7387


@pytest.mark.parametrize(
    ("n", "percentile", "index"), [(10, 0.1, 9), (10, 0.5, 5), (7, 0.25, 5), (5, 0.8, 1), (90, 0.3, 63), (3, 0.01, 2)]
)
def test_percentile_is_an_index_of_the_descending_order(n: int, percentile: float, index: int) -> None:
    margins = np.random.default_rng(0).permutation(n).astype(float)
    assert threshold(margins, None, percentile) == n - 1 - index
    assert int(hard_pairs(margins, None, percentile, False).sum()) == n - 1 - index
    assert int(hard_pairs(margins, None, percentile, True).sum()) == n - index


def test_filters() -> None:
    margins = np.array([0.4, -0.1, 0.0, 3.0, 0.5])
    keep = lambda name, **params: load_method(name, params).plan(margins).keep.tolist()  # noqa: E731
    assert keep("dpo_drop_contradicted") == [True, False, True, True, True]
    assert keep("dpo_easy_only") == [False, False, False, True, True]
    assert keep("sft_hard_only") == [True, True, True, False, False]
    assert keep("sft_hard_only", keep_inclusive=True) == [True, True, True, False, True]
    assert keep("selective_dpo", keep_fraction=0.4) == [False, False, False, True, True]
    assert keep("selective_dpo", keep_fraction=0.6, keep="hard", keep_tau=1.0) == [True, False, False, False, True]
    assert load_method("dpo").plan(margins) == Plan()


def test_permuted_margins_are_a_parameter() -> None:
    margins = np.arange(50.0)
    method = load_method("madpo_shuffled_margins")
    assert method.params.shuffle_margins == 0
    seen = method.margins_seen(margins)
    assert sorted(seen) == margins.tolist()
    assert (seen != margins).sum() > 40
    np.testing.assert_array_equal(seen, method.margins_seen(margins))
    assert (load_method("madpo", {"shuffle_margins": 1}).margins_seen(margins) != seen).any()
    np.testing.assert_array_equal(margins, np.arange(50.0))
    np.testing.assert_array_equal(load_method("madpo").margins_seen(margins), margins)


def test_controls_change_one_thing() -> None:
    """Each control is its method with the parameters that its name says."""
    assert {name: dict(load_method(name).variants[name]) for name in variant_names()} == {
        "beta_dpo_released": {
            "margin_scale": "raw", "beta_source": "kept", "std_ddof": 1, "beta_min": 1e-3, "ema_scope": "micro"
        },
        "cdpo": {"label_smoothing": 0.1},
        "cpo_released": {"sft_reduction": "mean"},
        "dpo_drop_contradicted": {"keep": "easy", "keep_tau": 0.0},
        "dpo_easy_only": {"order": "margin_desc", "keep": "easy"},
        "dpo_sorted": {"order": "margin_desc"},
        "ipo_avg": {"reduction": "mean"},
        "ipo_sum": {"reduction": "sum"},
        "madpo_amplify": {"part": "amplify"},
        "madpo_regularise": {"part": "regularise"},
        "madpo_shuffled_margins": {"shuffle_margins": 0},
        "madpo_unit_weight": {"part": "none"},
        "mixdpo_released": {"label_smoothing": 0.1},
        "mixdpo_shuffled": {"order": "seeded"},
        "sft_hard_only": {"keep": "hard"},
        "slic_hf_norm": {"normalise": "reference", "beta": 0.1, "sft_weight": 0.0},
    }  # fmt: skip


def test_phases_of_mixdpo() -> None:
    assert load_method("mixdpo").plan(ORDER_VECTOR).phase is None
    assert load_method("mixdpo", {"sft_schedule": "own"}).plan(ORDER_VECTOR).phase.tolist() == [0, 1, 0, 0, 0, 1, 0]


def _batch(margins: list[float], **changes: object) -> PairBatch:
    chosen = torch.tensor(margins, dtype=torch.float64)
    zero = torch.zeros_like(chosen)
    ids = [f"pair{i}" for i in range(len(margins))]
    return PairBatch(chosen, zero, zero, zero, pair_ids=ids, **changes)


def test_a_draw_has_the_probabilities_of_drawing_without_replacement() -> None:
    """First and second inclusion against the exact probabilities of successive draws, by 20,000 keyed draws."""
    weight = np.array([0.5, 0.3, 0.15, 0.05])
    pairs = [(i, j) for i in range(4) for j in range(4) if i != j]
    exact = np.zeros(4)
    for i, j in pairs:
        probability = weight[i] * weight[j] / (1 - weight[i])
        exact[[i, j]] += probability
    found = np.zeros(4)
    draws = 20_000
    for step in range(draws // 10):  # ten independent draws share a call: ids of their own
        for copy in range(10):
            ids = [f"{copy}:{i}" for i in range(4)]
            found[draw(np.log(weight), 2, ids, 0, step)] += 1
    np.testing.assert_allclose(found / draws, exact, atol=4 * 0.5 / math.sqrt(draws))


def test_weights_that_underflow_can_still_be_drawn() -> None:
    far = np.array([0.0, -1e4, -2e4, -3e4])
    assert draw(far, 3, list("abcd"), 0, 1) == [0, 1, 2]


@pytest.mark.parametrize("ddof", [0, 1])
@pytest.mark.parametrize("margins", [[0.0] * 5, [2.0] * 5, [3.0], [0.0]])
def test_no_deviation_is_no_nan(margins: list[float], ddof: int) -> None:
    """Policy = reference, equal margins, or one pair: with running values that start at 0."""
    for name in ("beta_dpo", "beta_dpo_released"):
        method = load_method(name, {"std_ddof": ddof})
        found = method.loss(_batch(margins), method.initial_state())
        assert torch.isfinite(found.per_pair).all()
        assert torch.isfinite(found.mean())
        assert len(found.kept) == max(1, int(0.8 * len(margins)))
        assert all(math.isfinite(value) for value in found.state.values())
    np.testing.assert_array_equal(log_weights(np.array([1.0, 2.0]), 0.0, 0.0), [0.0, 0.0])


@pytest.mark.parametrize("name", ["beta_dpo", "beta_dpo_released"])
def test_rounding_errors_draw_nothing(name: str) -> None:
    """At policy = reference margins are rounding errors of float32, and differ with the size of micro-batches."""
    method = load_method(name)
    noise = np.random.default_rng(0).normal(0, 1e-5, (2, 16))
    kept = [method.loss(_batch(list(margins)), method.initial_state()).kept for margins in noise]
    assert kept[0] == kept[1]
    assert method.loss(_batch(list(noise[0] * 1e5)), method.initial_state()).kept != kept[0]


def test_a_loss_leaves_the_state_that_it_was_given_alone() -> None:
    """What evaluation needs: the new state is returned, and whoever evaluates drops it."""
    method = load_method("beta_dpo")
    state = method.initial_state()
    found = method.loss(_batch([1.0, 2.0, 5.0]), state)
    assert state == {"mean": 0.0, "std": 0.0}
    assert found.state != state


def test_micro_batch_statistics_are_those_of_batches_one_after_another() -> None:
    margins = [4.0, -1.0, 2.5, 12.0, 0.5, 3.0, -7.0, 1.0]
    method = load_method("beta_dpo_released", {"ema_mean_init": 1.0, "ema_std_init": 2.0})
    whole = method.loss(_batch(margins, micro_batch_size=4, kept=[0, 1, 2, 5, 6, 7]), method.initial_state())
    state, parts = method.initial_state(), []
    for part, kept in ((margins[:4], [0, 1, 2]), (margins[4:], [1, 2, 3])):
        parts.append(method.loss(_batch(part, kept=kept), state))
        state = parts[-1].state
    torch.testing.assert_close(whole.per_pair, torch.cat([part.per_pair for part in parts]), rtol=1e-12, atol=0)
    torch.testing.assert_close(whole.mean(), (parts[0].mean() + parts[1].mean()) / 2, rtol=1e-12, atol=0)
    assert whole.state == state
    assert parts[0].logs["beta"] != parts[1].logs["beta"]
    batch_scope = load_method("beta_dpo_released", {"ema_scope": "batch"})
    alone = batch_scope.loss(_batch(margins, micro_batch_size=4), batch_scope.initial_state())
    torch.testing.assert_close(
        alone.per_pair, batch_scope.loss(_batch(margins), batch_scope.initial_state()).per_pair, rtol=0, atol=0
    )
