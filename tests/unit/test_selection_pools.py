"""The schedule of pools: uniform over the data, the same for every arm (vector V9; specification D3)."""

from collections.abc import Callable

import numpy as np
import pytest
from marginbench.errors import UserError
from marginbench.selection.pools import pool_of_round
from scipy import stats

Draw = Callable[[int], np.ndarray]
PROMPTS, ROUNDS, N, BLOCK = 10_000, 157, 16, 512


def _arm(seed: int, size: int = BLOCK) -> Draw:
    """The random arm: the first n of the block that the other arms look at."""
    return lambda round: pool_of_round(PROMPTS, size, round, seed, "data")[:N]


def _spread(draw: Draw) -> tuple[float, int, int, float]:
    """Chi-square over 50 bins (49 degrees of freedom), empty bins, largest bin, share of neighbours."""
    taken = np.concatenate([draw(round) for round in range(ROUNDS)])
    assert len(taken) == ROUNDS * N == 2512
    bins = np.histogram(taken, bins=50, range=(0, PROMPTS))[0]
    chi_square = float(np.square(bins - bins.mean()).sum() / bins.mean())
    return chi_square, int((bins == 0).sum()), int(bins.max()), float((np.diff(np.sort(taken)) == 1).mean())


def random_is_uniform(draw: Draw) -> None:
    """The guard: no part of the data is visited more often than chance allows, 1 in 10,000."""
    chi_square, empty, _, neighbours = _spread(draw)
    assert chi_square < stats.chi2.isf(1e-4, 49)
    assert empty == 0
    assert neighbours < 0.35


@pytest.mark.parametrize("seed", range(6))
@pytest.mark.parametrize("size", [BLOCK, N])
def test_random_is_uniform(seed: int, size: int) -> None:
    random_is_uniform(_arm(seed, size))


def _released(seed: int, anew: bool) -> Draw:
    """The released draw: n of what is left, from one generator, or from one made anew in every round."""
    one, left, taken = np.random.default_rng(seed), [np.arange(PROMPTS)], []

    def draw(round: int) -> np.ndarray:
        generator = np.random.default_rng(seed) if anew else one
        taken.append(generator.choice(left[0], size=N, replace=False))
        left[0] = np.setdiff1d(left[0], taken[-1])
        return taken[-1]

    return draw


def test_v9_a_generator_that_is_seeded_anew_is_found_out() -> None:
    chi_square, empty, largest, neighbours = _spread(_released(42, anew=True))
    assert (empty, largest) == (23, 200)
    assert chi_square == pytest.approx(3507.9, abs=0.05)
    assert neighbours == pytest.approx(0.61, abs=5e-3)
    with pytest.raises(AssertionError):
        random_is_uniform(_released(42, anew=True))


def test_v9_one_stream_passes() -> None:
    chi_square, empty, largest, neighbours = _spread(_released(42, anew=False))
    assert (empty, largest) == (0, 64)
    assert chi_square == pytest.approx(45.8, abs=0.05)
    assert neighbours == pytest.approx(0.26, abs=5e-3)
    random_is_uniform(_released(42, anew=False))


@pytest.mark.parametrize(
    "defect",
    [
        lambda round: pool_of_round(PROMPTS, BLOCK, 0, 3, "data")[:N],
        lambda round: (np.arange(N) + round * N) % PROMPTS,
        lambda round: np.sort(pool_of_round(PROMPTS, BLOCK, round, 3, "data"))[:N],
    ],
    ids=["the first block again", "the order of the file", "the lowest of a sorted block"],
)
def test_defects_of_a_schedule_are_found_out(defect: Draw) -> None:
    with pytest.raises(AssertionError):
        random_is_uniform(defect)


def test_blocks_of_an_epoch_are_disjoint_and_the_next_epoch_is_another() -> None:
    per_epoch = PROMPTS // BLOCK
    epochs = [
        np.concatenate([pool_of_round(PROMPTS, BLOCK, epoch * per_epoch + i, 0, "data") for i in range(per_epoch)])
        for epoch in range(2)
    ]
    for blocks in epochs:
        assert len(set(blocks.tolist())) == per_epoch * BLOCK
    # V9: pools of consecutive rounds overlap by 26 % in the released code. Left over are 272 prompts, each time others.
    left = [set(range(PROMPTS)) - set(blocks.tolist()) for blocks in epochs]
    assert [len(rest) for rest in left] == [272, 272]
    assert len(left[0] & left[1]) < 40
    boundary = set(pool_of_round(PROMPTS, BLOCK, per_epoch - 1, 0, "data").tolist())
    assert len(boundary & set(pool_of_round(PROMPTS, BLOCK, per_epoch, 0, "data").tolist())) < 60


def test_a_pool_is_keyed_by_seed_dataset_and_round_only() -> None:
    first = pool_of_round(100, 20, 3, 0, "data")
    np.testing.assert_array_equal(pool_of_round(100, 20, 3, 0, "data"), first)
    for other in ((100, 20, 2, 0, "data"), (100, 20, 3, 1, "data"), (100, 20, 3, 0, "other")):
        assert pool_of_round(*other).tolist() != first.tolist()


def test_a_block_may_be_the_whole_dataset() -> None:
    for round in range(3):
        assert sorted(pool_of_round(5, 5, round, 0, "data")) == [0, 1, 2, 3, 4]


def test_a_block_larger_than_the_dataset_is_refused() -> None:
    with pytest.raises(UserError, match="looks at 6 prompts, but there are 5; lower pool_factor"):
        pool_of_round(5, 6, 0, 0, "data")
    with pytest.raises(ValueError, match="rounds count from 0"):
        pool_of_round(5, 5, -1, 0, "data")
