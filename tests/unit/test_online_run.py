"""A whole online run on the toy: its tables, and that a kill anywhere changes nothing and repeats no finished round."""

import json
from contextlib import contextmanager
from pathlib import Path

import pytest
from marginbench.data.corpora import parse_corpus, read_corpus
from marginbench.errors import UserError
from marginbench.generation import engine
from marginbench.identity import file_sha256
from marginbench.models.loading import load_model
from marginbench.models.manifest import read_manifest
from marginbench.online.evaluation import Evaluation, due, win_rate
from marginbench.online.labellers import Scored
from marginbench.online.stages import RunStages
from marginbench.online.state import RoundFolders
from marginbench.online.update import Updater
from marginbench.records import ONLINE_COSTS, ONLINE_METRICS, ONLINE_TABLES, ROUNDS, TRAIN_LOG, read_table
from marginbench.selection.registry import load_strategy
from marginbench.study import Capability, CapabilityTask
from online_tools import OPT, SETTINGS, labeller, length_judge, texts, toy_run


@pytest.fixture(autouse=True)
def early_stops(monkeypatch):
    """A tenth of the toy's vocabulary ends an answer, so that answers differ in length and some end."""
    monkeypatch.setattr(engine, "stop_ids", lambda model, tokenizer: list(range(30)))


def results(folder: Path) -> dict:
    """What must be equal between runs: weights and tables without seconds."""
    found = {"weights": file_sha256(folder / "weights" / "adapter_model.safetensors")}
    for table in (*ONLINE_TABLES, TRAIN_LOG):
        frame = read_table(folder / f"{table.name}.parquet", table)
        found[table.name] = frame.drop(columns="seconds", errors="ignore").to_json()
    return found


@pytest.fixture(scope="module")
def whole(toy_model, tmp_path_factory):
    """Runs that nothing interrupted, by strategy."""
    made = {}

    def run(strategy: str) -> Path:
        if strategy not in made:
            made[strategy] = tmp_path_factory.mktemp(strategy)
            toy_run(toy_model, made[strategy], strategy)
        return made[strategy]

    return run


@pytest.mark.parametrize(
    ("strategy", "completions"), [("random", 24), ("apl", 72), ("k_centre", 48), ("apl_original", 96)]
)
def test_a_run_leaves_tables_that_keep_their_contract(whole, strategy, completions):
    folder = whole(strategy)
    names = {f"{table.name}.parquet" for table in (*ONLINE_TABLES, TRAIN_LOG)}
    assert {path.name for path in folder.iterdir()} == names | {"labels.jsonl", "manifest.json", "weights"}
    rounds, costs, metrics = (read_table(folder / f"{table.name}.parquet", table) for table in ONLINE_TABLES)
    assert len(rounds) == completions
    assert rounds.groupby("round")["selected"].sum().tolist() == [8, 8, 8]
    assert not rounds["ended"].all()
    assert rounds["ended"].any()
    training = costs[costs["stage"] != "evaluate"]
    assert training["completions"].sum() == completions
    assert training["generated_tokens"].sum() == rounds["n_tokens"].sum()
    assert costs["labels"].sum() == 12
    steps = {"apl_original": 2 + 4 + 6}.get(strategy, 6)
    assert costs["pair_updates"].sum() == 4 * steps
    log = read_table(folder / "train.parquet", TRAIN_LOG)
    assert log["step"].max() == steps
    assert log[(log["step"] == 1) & (log["quantity"] == "loss")]["value"].item() == pytest.approx(0.6931, abs=1e-4)
    last = metrics[metrics["round"] == 3].set_index(["metric", "judge"])
    assert (last["completions"] == completions).all()
    assert (last["labels"] == 12).all()
    assert set(last.index) == {
        *((metric, judge) for metric in ("win_rate", "judge_null") for judge in ("letters", "shorter")),
        *((metric, "") for metric in ("answer_tokens", "eos_rate", "kl")),
    }
    manifest = read_manifest(folder / "manifest.json", verify=True)
    assert manifest.facts["strategy"]["name"] == strategy
    assert manifest.facts["labelled_pairs"] == 12
    load_model(manifest)


def test_the_start_draws_with_itself(whole):
    metrics = read_table(whole("apl") / "online_metrics.parquet", ONLINE_METRICS)
    assert metrics["round"].unique().tolist() == [0, 2, 3]
    start = metrics[metrics["round"] == 0].set_index(["metric", "judge"])["value"]
    assert start["win_rate"].tolist() == [50.0, 50.0]
    assert start["kl", ""] == 0.0
    assert metrics[metrics["round"] == 0]["labels"].sum() == 0
    later = metrics[(metrics["round"] == 3) & (metrics["metric"] == "kl")]["value"].item()
    assert later != 0.0


def test_arms_share_pools_streams_and_answers(whole):
    """The first round's policy is the start in every arm: the same prompt gets the same answers."""
    arms = {}
    for name in ("random", "random_same_pool", "k_centre"):
        rounds = read_table(whole(name) / "rounds.parquet", ROUNDS)
        first = rounds[rounds["rng_key"] == "seed1/round1/pair0"]
        arms[name] = first.set_index(["prompt_id", "sample_id"])["text_hash"]
    both = arms["random"].index.intersection(arms["k_centre"].index)
    assert len(both) == 8, "random's prompts are the first of the block that k_centre looks at"
    assert (arms["random"][both] == arms["k_centre"][both]).all()
    assert set(arms["random_same_pool"].index) <= set(arms["k_centre"].index)


class _Killed(BaseException):
    """No error that anything could catch, as if the process had gone."""


@contextmanager
def killed(owner, name, call, after=False):
    """In the block, the `call`-th call (from 1) of a function dies before or after its work."""
    sound, calls = getattr(owner, name), []

    def dying(*args, **kwargs):
        calls.append(1)
        if len(calls) == call and not after:
            raise _Killed
        found = sound(*args, **kwargs)
        if len(calls) == call:
            raise _Killed
        return found

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(owner, name, dying)
        with pytest.raises(_Killed):
            yield


POINTS = [
    (Evaluation, "measure", 1, False),  # the start
    (RunStages, "generate", 3, False),  # round 2, before any candidate
    (RunStages, "log_probs", 3, False),
    (RunStages, "label", 2, False),
    (RunStages, "label", 2, True),  # labelled, and not yet trained on
    (Updater, "_step", 4, True),  # between two steps of a round
    (Evaluation, "measure", 2, True),
    (RoundFolders, "write", 3, False),
    (RoundFolders, "write", 3, True),  # round 2 is finished, round 3 not begun
    (RoundFolders, "table", 2, False),  # all rounds are finished, the results half written
]


@pytest.mark.parametrize(
    ("strategy", "owner", "name", "call", "after"),
    [*(("apl", *point) for point in POINTS), *(("apl_original", *point) for point in (POINTS[5], POINTS[8]))],
)
def test_killed_anywhere_and_started_again(whole, toy_model, tmp_path, monkeypatch, strategy, owner, name, call, after):
    with killed(owner, name, call, after):
        toy_run(toy_model, tmp_path, strategy)
    done = max((int(mark.parent.name) for mark in (tmp_path / "rounds").glob("*/state.json")), default=0)
    calls = {"generate": [], "label": []}
    for stage, seen in calls.items():
        sound = getattr(RunStages, stage)

        def watched(self, *args, sound=sound, seen=seen):
            seen.append(args[-1])
            return sound(self, *args)

        monkeypatch.setattr(RunStages, stage, watched)
    toy_run(toy_model, tmp_path, strategy)
    sampled = {int(key.split("/")[1].removeprefix("round")) for key in calls["generate"]}
    assert sampled == set(range(done + 1, 4)), "a finished round is not sampled again"
    assert len(calls["label"]) == 3 - done
    assert results(tmp_path) == results(whole(strategy))
    assert not (tmp_path / "rounds").exists()


def test_labels_that_were_paid_for_are_not_paid_again(toy_model, tmp_path, monkeypatch):
    """Killed between label and update: the pairs of that round have their verdicts on disk."""
    calls = []

    class Paid(Scored):
        def compare(self, questions):
            calls.append(len(questions))
            return super().compare(questions)

    def paid():
        return Paid("letters", "version of letters", "", labeller().score)

    with killed(RunStages, "label", 2, after=True):
        toy_run(toy_model, tmp_path, labeller=paid(), settings=SETTINGS.model_copy(update={"evaluate_every": 9}))
    assert calls == [6, 4, 4]  # the start's evaluation, then two rounds
    calls.clear()
    toy_run(toy_model, tmp_path, labeller=paid(), settings=SETTINGS.model_copy(update={"evaluate_every": 9}))
    assert calls == [4, 6]  # the third round, then the last evaluation
    costs = read_table(tmp_path / "online_costs.parquet", ONLINE_COSTS)
    assert costs[costs["stage"] == "label"]["labels"].tolist() == [0, 4, 4, 4]


def test_another_run_takes_nothing_up(whole, toy_model, tmp_path, monkeypatch):
    with killed(RoundFolders, "write", 3, True):
        toy_run(toy_model, tmp_path, "apl", opt=OPT.model_copy(update={"learning_rate": 1e-3}))
    toy_run(toy_model, tmp_path, "apl")
    assert results(tmp_path) == results(whole("apl"))


def test_another_seed_is_another_run(whole, toy_model, tmp_path):
    toy_run(toy_model, tmp_path, seed=2)
    assert results(tmp_path)["weights"] != results(whole("random"))["weights"]


def test_a_judge_that_labels_is_refused(toy_model, tmp_path):
    same = labeller("other")
    same.version = labeller().version
    for judge in (labeller(), same):
        with pytest.raises(UserError, match=r"judge `\w+` is the labeller `letters` of the loop"):
            toy_run(toy_model, tmp_path, judges=[judge])
    allowed = SETTINGS.model_copy(update={"judge_may_label": True, "steps": 2})
    metrics = toy_run(toy_model, tmp_path, judges=[labeller(), length_judge()], settings=allowed)
    assert set(metrics["judge"]) == {"", "letters", "shorter"}


def test_judges_that_share_the_labellers_weights_are_marked(toy_model, tmp_path):
    truth, served, other = labeller(), labeller("served"), length_judge()
    truth.weights = served.weights = "one"
    with pytest.raises(UserError, match="judge `served` is the labeller `letters`"):
        toy_run(toy_model, tmp_path, labeller=truth, judges=[served])
    settings = SETTINGS.model_copy(update={"judge_may_label": True, "steps": 2})
    metrics = toy_run(toy_model, tmp_path, labeller=truth, judges=[served, other], settings=settings)
    marks = metrics.groupby("judge")["judge_is_labeller"].agg(["all", "any"]).to_dict("index")
    yes, no = {"all": True, "any": True}, {"all": False, "any": False}
    assert marks == {"letters": yes, "served": yes, "shorter": no, "": no}


def test_what_cannot_be_run_is_said_beforehand(toy_model, tmp_path):
    with pytest.raises(UserError, match=r"`apl` looks at 128 prompts a round, but a round has 8"):
        toy_run(toy_model, tmp_path, strategy=load_strategy("apl"))
    with pytest.raises(UserError, match="is trained on and evaluated"):
        toy_run(toy_model, tmp_path, evaluation_prompts=texts(3))
    with pytest.raises(UserError, match="there are 24"):
        toy_run(toy_model, tmp_path, settings=SETTINGS.model_copy(update={"pool": 25}))
    assert not (tmp_path / "manifest.json").exists()


def test_capability_is_measured_at_every_evaluation(toy_model, tmp_path):
    held_out = texts(2, "perplexity").assign(completion=[" a good film", " not a good film"])
    tasks = Capability(tasks={"review_perplexity": CapabilityTask()})
    metrics = toy_run(toy_model, tmp_path, capability=tasks, texts=held_out)
    found = metrics[metrics["metric"] == "review_perplexity"]
    assert found["round"].tolist() == [0, 2, 3]
    assert found["value"].nunique() == 3
    assert sorted(path.name for path in tmp_path.iterdir() if path.name.startswith(".")) == []


def test_halves_and_dates():
    assert win_rate([1.0, 1.0, 1.0, 0.5, 0.0]) == 70.0  # vector V8
    assert win_rate([1.0, None, 0.0]) == 50.0
    assert win_rate([None]) is None
    assert [done for done in range(158) if due(done, 63, 157)] == [0, 63, 126, 157]


def test_a_run_on_a_preference_file_with_top_k_leaves_out_prompts_without_room(toy_model, tmp_path):
    rows = [{"prompt": f"q {i}" + " of the" * (i % 8), "chosen": f"a {i}", "rejected": "b"} for i in range(60)]
    (tmp_path / "pairs.jsonl").write_text("\n".join(map(json.dumps, rows)))
    corpus = parse_corpus({"source": "file", "path": str(tmp_path / "pairs.jsonl"), "eval_fraction": 0.2})
    frame, _ = read_corpus(corpus, 0)
    prompts = frame[frame["role"] == "prompt"].reset_index(drop=True)
    changes = {"top_k": 5}
    settings = SETTINGS.model_copy(update={"decoding": SETTINGS.decoding.model_copy(update=changes)})
    given = {
        "prompts": prompts,
        "evaluation_prompts": frame[frame["role"] == "eval"].head(4),
        "format": "chat",
        "settings": settings,
        "opt": OPT.model_copy(update={"max_length": 24}),
    }
    toy_run(toy_model, tmp_path / "run", "apl", **given)
    rounds = read_table(tmp_path / "run" / "rounds.parquet", ROUNDS)
    words = dict(zip(prompts["text_id"], prompts["prompt"].str[0].str["content"].str.split().str.len(), strict=True))
    asked = {words[prompt_id] for prompt_id in rounds["prompt_id"]}
    dropped = read_manifest(tmp_path / "run" / "manifest.json").facts["dropped_long_prompts"]
    assert 0 < dropped < len(prompts)
    assert max(asked) < max(words.values()), "long prompts are not asked"
    assert dropped <= sum(length > max(asked) for length in words.values())
    with pytest.raises(UserError, match=r"0 of 48 prompts leave room for answers of 6 tokens within .* 8, a round's"):
        toy_run(toy_model, tmp_path / "other", "apl", **{**given, "opt": OPT.model_copy(update={"max_length": 8})})
