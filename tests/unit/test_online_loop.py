"""A round without a model: who is scored, kept, paired and labelled. Each guard is shown a defect and must see it."""

from collections import Counter
from types import SimpleNamespace

import numpy as np
import pandas as pd
import pytest
from marginbench.errors import UserError
from marginbench.online import loop
from marginbench.online.candidates import Candidate, Pair
from marginbench.online.ledger import Ledger, spent
from marginbench.online.loop import Setting, pool_of, run_round, stage_decoding
from marginbench.online.schedule import schedule
from marginbench.online.update import row_of
from marginbench.records import ONLINE_COSTS, ROUNDS, check_table
from marginbench.selection.base import Stage
from marginbench.selection.registry import load_strategy, strategy_names
from marginbench.study import Decoding, Online
from scipy.stats import chi2

DECODING = Decoding(temperature=0.9, max_new_tokens=4)


class FakeStages:
    """Answers that say whose they are, log-probabilities from tables, and a labeller that likes sample 1."""

    def __init__(self, entropy=None, margin=None):
        self.entropy, self.margin = entropy or {}, margin or {}
        self.calls = []
        self.pairs = []

    def generate(self, prompt_ids, decoding, key):
        self.calls.append((key, len(prompt_ids), decoding.samples_per_prompt, decoding.temperature))
        return [
            Candidate(p, s, f"{p} {s} {key}", (1, 2 + s), True, -float(np.mean(self.entropy.get(p, 1.0))), key)
            for p in prompt_ids
            for s in range(decoding.samples_per_prompt)
        ]

    def log_probs(self, candidates, reference):
        return [
            -5.0 if reference or candidate.sample_id else -5.0 + 10 * self.margin.get(candidate.prompt_id, 0.0)
            for candidate in candidates
        ]

    def embed(self, prompt_ids, candidates):
        assert [c.prompt_id for c in candidates[::2]] == list(prompt_ids)
        return np.array([[float(prompt_id[1:]), 0.0] for prompt_id in prompt_ids])

    def label(self, pairs):
        return [False] * len(pairs), len(pairs)

    def update(self, pairs, round):
        self.pairs = pairs
        return 4 * len(pairs)


def one_round(strategy, pool, query=2, stages=None, number=1, seed=0, check=True):
    stages = stages or FakeStages()
    ledger = Ledger(number)
    setting = Setting(query, DECODING, 0.1, seed)
    table, pairs = run_round(number, pool, load_strategy(strategy), setting, stages, ledger)
    if check:
        check_table(table, ROUNDS, "rounds")
        check_table(pd.DataFrame(ledger.rows()), ONLINE_COSTS, "costs")
    return table, pairs, ledger, stages


POOL = [f"p{i}" for i in range(8)]
ENTROPY = dict(zip(POOL, [10, 42, 35, 8, 27, 31, 27, 55], strict=True))
MARGIN = dict(zip(POOL, [0.90, 0.05, 0.40, 0.80, 0.70, 0.10, 0.95, 0.20], strict=True))


def test_apl_keeps_by_entropy_then_by_margin():
    """The two stages of vector V5, on samples of their own."""
    table, pairs, ledger, stages = one_round("apl", POOL, stages=FakeStages(ENTROPY, MARGIN))
    assert [pair.prompt_id for pair in pairs] == ["p2", "p7"]
    assert stages.calls == [("seed0/round1/score0", 8, 2, 1.0), ("seed0/round1/pair0", 4, 2, 0.9)]
    assert table["entropy"].notna().sum() == 16
    assert table.set_index("prompt_id").loc["p2", "margin"].dropna().tolist() == pytest.approx([0.4, 0.4])
    assert table["selected"].sum() == 4
    cost = ledger.costs
    assert (cost["generate"].completions, cost["generate"].generated_tokens) == (24, 48)
    assert (cost["score"].scored_sequences, cost["label"].labels, cost["update"].pair_updates) == (16, 2, 8)
    assert all(pair.chosen.sample_id == 1 and pair.rejected.sample_id == 0 for pair in pairs)


@pytest.mark.parametrize(
    ("strategy", "prompts", "draws"),
    [
        ("margin", ["p0", "p6"], ["pair0"]),
        ("entropy", ["p1", "p7"], ["score0", "pair0"]),
        ("random", None, ["pair0"]),
        ("random_same_pool", None, ["score0", "pair0"]),
        ("k_centre", ["p3", "p7"], ["pair0"]),
    ],
)
def test_strategies_drive_their_stages(strategy, prompts, draws):
    table, pairs, _, stages = one_round(strategy, POOL, stages=FakeStages(ENTROPY, MARGIN))
    if prompts:
        assert [pair.prompt_id for pair in pairs] == prompts
    assert [key.rpartition("/")[2] for key, *_ in stages.calls] == draws
    assert len(table) == load_strategy(strategy).completions(2, 8)


def test_a_completion_belongs_to_its_prompt():
    _, pairs, _, _ = one_round("apl", POOL, stages=FakeStages(ENTROPY, MARGIN))
    for pair in pairs:
        assert pair.chosen.text.split()[0] == pair.rejected.text.split()[0] == pair.prompt_id


class Shifted(FakeStages):
    """Seeded defect: answers come back in the order of another list of prompts."""

    def generate(self, prompt_ids, decoding, key):
        found = super().generate(prompt_ids, decoding, key)
        return found[decoding.samples_per_prompt :] + found[: decoding.samples_per_prompt]


def test_answers_in_another_order_are_refused():
    with pytest.raises(ValueError, match="samples are not 2 for each of 8 prompts"):
        one_round("apl", POOL, stages=Shifted())


def test_pairs_across_prompts_are_refused(monkeypatch):
    """Seeded defect: the released code cuts a block of samples in the middle, D2."""

    def cut_in_the_middle(kept, alive, *rest):
        flat = [candidate for prompt_id in kept for candidate in alive[prompt_id]]
        half = len(flat) // 2
        return sound(kept, {p: [flat[i], flat[half + i]] for i, p in enumerate(kept)}, *rest)

    sound = loop._labelled
    monkeypatch.setattr(loop, "_labelled", cut_in_the_middle)
    with pytest.raises(ValueError, match=r"a pair of prompt p\d holds an answer to prompt p\d"):
        one_round("random", POOL)


def test_a_trained_row_holds_its_own_prompt():
    one, other = (Candidate("a", sample, "x", (sample,), True, -1.0) for sample in (0, 1))
    assert row_of(Pair("a", one, other), "a", [7])["prompt_ids"] == [7]
    with pytest.raises(ValueError, match="an answer to prompt a was put under prompt b"):
        row_of(Pair("a", one, other), "b", [7])


PAIRS_OF_SAMPLES = {"p0": [1, 2], "p1": [3, 4], "p2": [50, 60], "p3": [7, 8]}


class Unequal(FakeStages):
    """Each sample of a prompt has its own log-probability (vector V7)."""

    def generate(self, prompt_ids, decoding, key):
        found = super().generate(prompt_ids, decoding, key)
        return [
            Candidate(
                c.prompt_id, c.sample_id, c.text, (1,), True, -float(PAIRS_OF_SAMPLES[c.prompt_id][c.sample_id]), key
            )
            for c in found
        ]


def test_only_samples_of_one_prompt_are_averaged(monkeypatch):
    def chosen():
        table, pairs, _, _ = one_round("entropy", list(PAIRS_OF_SAMPLES), stages=Unequal())
        scores = table.dropna(subset="entropy").groupby("prompt_id")["entropy"].first()
        return scores.tolist(), sorted(pair.prompt_id for pair in pairs)

    assert chosen() == ([1.5, 3.5, 55.0, 7.5], ["p2", "p3"])

    def reshaped(ids, values, samples):
        """Seeded defect D1: prompt-major values read as if they were sample-major."""
        means = np.asarray(values).reshape(samples, -1).mean(axis=0)
        return pd.Series(means, index=list(dict.fromkeys(ids)))

    monkeypatch.setattr(loop, "mean_by_prompt", reshaped)
    assert chosen() == ([25.5, 31.0, 5.0, 6.0], ["p0", "p1"])


class Lengths(FakeStages):
    """Answers of one, two or three tokens: per token, or by place, another prompt has the highest score."""

    def generate(self, prompt_ids, decoding, key):
        tokens = {"p2": 3, "p0": 1, "p1": 2}
        return [
            Candidate(c.prompt_id, c.sample_id, c.text, (1,) * tokens[c.prompt_id], True, c.log_prob, key)
            for c in super().generate(prompt_ids, decoding, key)
        ]


def test_entropies_are_summed_and_joined_by_prompt_whatever_the_order_of_the_pool():
    table, pairs, _, _ = one_round("entropy", ["p2", "p0", "p1"], query=1, stages=Lengths({"p2": 6, "p0": 5, "p1": 4}))
    scores = table.dropna(subset="entropy").groupby("prompt_id")[["entropy", "entropy_per_token"]].first()
    assert scores["entropy"].to_dict() == {"p0": 5.0, "p1": 4.0, "p2": 6.0}
    assert scores["entropy_per_token"].to_dict() == {"p0": 5.0, "p1": 2.0, "p2": 2.0}
    assert [pair.prompt_id for pair in pairs] == ["p2"], "not the one of the highest entropy per token, p0"


@pytest.mark.parametrize(("strategy", "taken"), [("apl", ["p2", "p7"]), ("margin", ["p0", "p6"])])
def test_another_order_of_the_pool_takes_the_same_prompts(strategy, taken):
    pool = [POOL[i] for i in (5, 2, 7, 0, 3, 6, 1, 4)]
    _, pairs, _, _ = one_round(strategy, pool, stages=FakeStages(ENTROPY, MARGIN))
    assert sorted(pair.prompt_id for pair in pairs) == taken


def bins(strategy, rounds, pool):
    """Picks of 16 in each of `rounds` rounds, counted in 50 equal parts of 10,000 prompts."""
    prompt_ids = [str(i) for i in range(10_000)]
    found = Counter()
    for number in range(1, rounds + 1):
        _, pairs, _, _ = one_round(strategy, pool(prompt_ids, number), query=16, number=number, seed=42, check=False)
        found.update(int(pair.prompt_id) // 200 for pair in pairs)
    counts = np.array([found[i] for i in range(50)])
    return counts, float(((counts - counts.mean()) ** 2 / counts.mean()).sum())


def test_random_is_uniform_over_the_rounds_of_a_run():
    random = load_strategy("random")
    counts, found = bins("random", 157, lambda ids, number: pool_of(ids, 512, random, 16, number, 42, "d"))
    assert counts.sum() == 2512
    assert found < chi2.ppf(0.999, 49)
    # Seeded defect D3: every round draws with the run's seed; the pool has 512 of a window that hardly moves.
    counts, found = bins(
        "random", 157, lambda ids, number: np.random.default_rng(42).choice(ids[number:], 16, False).tolist()
    )
    assert found > chi2.ppf(0.999, 49)


def test_arms_of_a_seed_see_the_same_pools():
    ids = [str(i) for i in range(100)]
    for number in range(1, 8):
        many = pool_of(ids, 32, load_strategy("apl", {"pool_factor": 8}), 4, number, 3, "d")
        few = pool_of(ids, 32, load_strategy("random"), 4, number, 3, "d")
        assert len(many) == 32
        assert few == many[:4]
    assert pool_of(ids, 32, load_strategy("random"), 4, 1, 4, "d") != pool_of(
        ids, 32, load_strategy("random"), 4, 1, 3, "d"
    )


class Constant(FakeStages):
    """Embeddings that tell nothing, either."""

    def embed(self, prompt_ids, candidates):
        return np.ones((len(prompt_ids), 2))


@pytest.mark.parametrize("strategy", strategy_names())
def test_with_constant_scores_every_strategy_is_random(strategy):
    ids = [f"p{i}" for i in range(12)]
    bound = load_strategy(strategy)
    found = Counter()
    for seed in range(120):
        pool = pool_of(ids, 8, bound, 2, 1, seed, "d")
        _, pairs, _, _ = one_round(strategy, pool, seed=seed, stages=Constant(), check=False)
        found.update(pair.prompt_id for pair in pairs)
    counts = np.array([found[i] for i in ids])
    # Two without replacement: a count varies by (1 - 1 / 6) of what independent draws would.
    assert ((counts - 20) ** 2 / 20).sum() / (1 - 2 / 12) * 11 / 12 < chi2.ppf(0.999, 11)


def test_every_ranking_has_a_stream_of_its_own():
    """One generator made anew with the run's seed would repeat its draws from round to round (D3)."""
    drawn = []

    def rank(rows, n, rng, stage):
        drawn.append(rng.random())
        return rows["prompt_id"].tolist()[:n]

    spy = SimpleNamespace(stages=(Stage("none", lambda size, n: 4), Stage("none", lambda size, n: n)), rank=rank)
    for number, seed in ((1, 0), (2, 0), (1, 1)):
        run_round(number, POOL, spy, Setting(2, DECODING, 0.1, seed), FakeStages(), Ledger(number))
    assert len(set(drawn)) == 6, "rounds, seeds and stages"
    run_round(1, POOL, spy, Setting(2, DECODING, 0.1, 0), FakeStages(), Ledger(1))
    assert drawn[6:] == drawn[:2]


def test_random_keys_never_repeat():
    keys = [key for number in (1, 2) for key, *_ in one_round("apl", POOL, number=number)[3].calls]
    assert len(set(keys)) == len(keys) == 4
    assert one_round("random", POOL[:2])[3].calls[0][0] in keys, "arms share the streams of their pairs"


def test_a_strategy_that_gives_other_prompts_is_refused():
    strange = SimpleNamespace(stages=(Stage("none", lambda size, n: n),), rank=lambda *rest: ["p0", "elsewhere"])
    with pytest.raises(ValueError, match="stage 0 kept 1 prompts of its table, not 2"):
        run_round(1, POOL, strange, Setting(2, DECODING, 0.1, 0), FakeStages(), Ledger(1))
    with pytest.raises(ValueError, match="holds a prompt twice"):
        one_round("random", ["p0", "p0"])


@pytest.mark.parametrize(("own", "loop", "found"), [(None, 50, 50), (0, 50, None), (20, None, 20), (None, None, None)])
def test_a_stage_samples_with_the_loops_top_k_unless_it_says_otherwise(own, loop, found):
    stage = Stage("entropy", lambda size, n: n, top_k=own)
    assert stage_decoding(stage, DECODING.model_copy(update={"top_k": loop})).top_k == found


def test_sizes_of_the_released_setting():
    """Vector V6, from the defaults of the study's section, without the released code's step too few (D9)."""
    online = Online()
    plan = schedule(online.steps, online.updates_per_query, online.query, 16, "continual")
    assert (plan.rounds, plan.labelled_pairs, plan.pair_updates) == (157, 2512, 10_000)
    assert plan.updates == (4,) * 156 + (1,)
    assert online.pool_size == 512
    apl, random = load_strategy("apl"), load_strategy("random")
    assert (apl.completions(16, 512), random.completions(16)) == (1536, 32)
    assert (apl.completions(16, 512) * plan.rounds, random.completions(16) * plan.rounds) == (241_152, 5024)


def test_a_run_of_the_released_setting_pays_what_its_sizes_say():
    """Vector V6 in the loop: 157 rounds of `random`, and the first of `apl`, counted by the ledger."""
    online, ids = Online(), [str(i) for i in range(10_000)]
    plan = schedule(online.steps, online.updates_per_query, online.query, 16, "continual")

    def costs(strategy, number):
        pool = pool_of(ids, online.pool_size, load_strategy(strategy), online.query, number, 42, "d")
        _, pairs, ledger, _ = one_round(strategy, pool, online.query, number=number, seed=42, check=False)
        found = ledger.costs
        keys = {(pair.prompt_id, pair.chosen.text, pair.rejected.text) for pair in pairs}
        return found["generate"].completions, found["score"].scored_sequences, found["label"].labels, keys

    random = [costs("random", number) for number in range(1, plan.rounds + 1)]
    assert [sum(column) for column in list(zip(*random, strict=True))[:3]] == [5024, 0, 2512]
    assert len(set().union(*(keys for *_, keys in random))) == 2512
    assert costs("apl", 1)[:3] == (1536, 2 * 512, 16), "policy and start; entropies come with the samples"
    assert costs("random_same_pool", 1)[:3] == (1536, 0, 16)


def test_schedules():
    assert schedule(8, 4, 4, 4, "continual").updates == (4, 4)
    assert schedule(6, 2, 4, 2, "accumulate").updates == (4, 8, 12)
    assert schedule(6, 2, 5, 2, "accumulate").updates == (4, 10, 14)
    with pytest.raises(UserError, match="fewer than the 8 pairs of a batch"):
        schedule(6, 2, 4, 8, "continual")


def test_the_ledger_counts_by_stage_and_leaves_evaluation_out():
    times = iter([0.0, 2.0, 2.0, 5.0, 5.0, 6.0])
    ledger = Ledger(1, lambda: next(times))
    with ledger.stage("generate") as cost:
        cost.completions += 3
    with ledger.stage("evaluate") as cost:
        cost.completions += 7
    with ledger.stage("generate") as cost:
        cost.completions += 1
    frame = pd.DataFrame(ledger.rows())
    assert frame.set_index("stage").loc["generate", ["completions", "seconds"]].tolist() == [4, 3.0]
    assert spent(frame, 1) == {"labels": 0, "completions": 4, "generated_tokens": 0, "seconds": 3.0}
    assert spent(frame, 0)["completions"] == 0
