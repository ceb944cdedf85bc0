"""`marginbench loss`: pairs as numbers in, JSON out; mistakes are one line and exit code 2."""

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from marginbench.cli import main
from marginbench.discovery import parse_settings
from marginbench.methods.curriculum import SHARED
from marginbench.methods.evaluate import evaluate
from marginbench.methods.registry import load_method, method_names

BATCH = {
    "chosen_logp": [-40.0, -55.5, -30.25],
    "rejected_logp": [-60.0, -50.0, -30.25],
    "ref_chosen_logp": [-42.0, -54.0, -31.25],
    "ref_rejected_logp": [-57.0, -51.0, -29.25],
    "chosen_len": [20, 30, 11],
    "rejected_len": [25, 24, 13],
    "margin": [2.0, -1.0, 0.25],
}


def _without(*names: str, **changes: Any) -> dict[str, Any]:
    return {**{name: values for name, values in BATCH.items() if name not in names}, **changes}


@pytest.fixture
def run(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> Any:
    def call(
        method: str, *batches: Any, options: tuple[str, ...] = (), text: str | None = None
    ) -> tuple[int, str, str]:
        file = tmp_path / "pairs.json"
        file.write_text(json.dumps({"batches": list(batches)}) if text is None else text)
        code = main(["loss", method, "--pairs", str(file), *options])
        captured = capsys.readouterr()
        return code, captured.out, captured.err

    return call


def test_json_on_stdout(run: Any) -> None:
    code, out, err = run("dpo", BATCH, options=("--set", "beta=0.5"))
    assert (code, err) == (0, "")
    (batch,) = json.loads(out)["batches"]
    assert batch["loss"] == pytest.approx(0.6313601677, rel=1e-9)
    assert batch["per_pair"] == pytest.approx([0.0788897343, 1.5019290810, 0.3132616875], rel=1e-8)


@pytest.mark.parametrize("name", method_names())
def test_every_method_runs_on_a_file_of_pairs(run: Any, name: str) -> None:
    code, out, err = run(name, BATCH, BATCH)
    assert (code, err) == (0, "")
    batches = json.loads(out)["batches"]
    assert len(batches) == 2
    for batch in batches:
        assert len(batch["per_pair"]) == 3
        counted = [batch["per_pair"][i] for i in batch.get("kept", range(3))]
        assert batch["loss"] == pytest.approx(np.mean(counted), rel=1e-12)


def test_what_a_method_logs_stands_beside_its_loss(run: Any) -> None:
    logged = {
        "madpo": ["weight"],
        "mixdpo": ["hard", "frac_sft", "loss_pref", "loss_sft"],
        "beta_dpo": ["beta", "ema_mean", "ema_std", "weight", "kept"],
    }
    for name, keys in logged.items():
        (batch,) = json.loads(run(name, BATCH)[1])["batches"]
        assert list(batch) == ["loss", "per_pair", *keys]
    (batch,) = json.loads(run("mixdpo", BATCH)[1])["batches"]
    assert batch["hard"] == [False, True, True]
    assert batch["frac_sft"] == pytest.approx(2 / 3)


def test_settings_are_taken_however_they_are_given(run: Any) -> None:
    both = ("--set", "tau=1", "inclusive=true")
    apart = ("--set", "tau=1.0", "--set", "inclusive=True")
    assert run("mixdpo", BATCH, options=both) == run("mixdpo", BATCH, options=apart)
    assert parse_settings(["a=1", "b=x", "c=null", "d=-inf", "e=.5", "f=a=b"]) == {
        "a": 1, "b": "x", "c": None, "d": "-inf", "e": ".5", "f": "a=b"
    }  # fmt: skip
    ends = [json.loads(run("mixdpo", BATCH, options=("--set", f"tau={t}"))[1])["batches"][0] for t in ("-inf", "inf")]
    assert [end["frac_sft"] for end in ends] == [0.0, 1.0]


def test_a_threshold_by_percentile_is_that_of_all_batches() -> None:
    batches = [_without(margin=[9.0, 8.0, 7.0]), _without(margin=[6.0, 5.0, 4.0])]
    found = evaluate(load_method("mixdpo", {"percentile": 0.5}), batches)
    assert [batch["hard"] for batch in found] == [[False] * 3, [False, True, True]]  # index 3 of 6, strictly below 6


def test_an_injected_draw_counts_as_it_is(run: Any) -> None:
    (batch,) = json.loads(run("beta_dpo", {**BATCH, "kept": [2, 0]})[1])["batches"]
    assert batch["kept"] == [2, 0]
    assert batch["loss"] == pytest.approx((batch["per_pair"][0] + batch["per_pair"][2]) / 2, rel=1e-12)


def test_a_draw_depends_on_pair_and_step() -> None:
    method = load_method("beta_dpo", {"keep_ratio": 0.5, "ema_std_init": 100.0})
    many = {name: [value[0]] * 40 for name, value in BATCH.items()}
    first, second = (batch["kept"] for batch in evaluate(method, [many, many]))
    assert first != second
    assert evaluate(method, [many])[0]["kept"] == first
    assert evaluate(method, [many], seed=1)[0]["kept"] != first
    named = {**many, "pair_ids": [f"other{i}" for i in range(40)]}
    assert evaluate(method, [named])[0]["kept"] != first


def test_a_filter_by_margin_shows_all_pairs_and_counts_some(run: Any) -> None:
    (plain,) = json.loads(run("dpo", BATCH)[1])["batches"]
    (batch,) = json.loads(run("dpo_drop_contradicted", BATCH)[1])["batches"]
    assert batch["per_pair"] == plain["per_pair"]
    assert batch["kept"] == [0, 2]
    assert batch["loss"] == pytest.approx((plain["per_pair"][0] + plain["per_pair"][2]) / 2)
    (none,) = json.loads(run("dpo_drop_contradicted", _without(margin=[-1.0, -2.0, -3.0]))[1])["batches"]
    assert none["loss"] is None


def test_shuffled_margins_are_the_same_margins_elsewhere() -> None:
    plain = evaluate(load_method("madpo"), [BATCH])[0]["weight"]
    seen = {tuple(evaluate(load_method("madpo", {"shuffle_margins": s}), [BATCH])[0]["weight"]) for s in range(12)}
    assert all(sorted(weights) == sorted(plain) for weights in seen)
    assert len(seen) > 2


def test_only_the_columns_that_are_read_are_needed(run: Any) -> None:
    for name, needed in (
        ("sft", ["chosen_logp", "chosen_len"]),
        ("cpo", ["chosen_logp", "rejected_logp"]),
        ("orpo", ["chosen_logp", "rejected_logp", "chosen_len", "rejected_len"]),
        ("mixdpo", ["margin", "chosen_len", "chosen_logp", "rejected_logp", "ref_chosen_logp", "ref_rejected_logp"]),
    ):
        assert run(name, {key: BATCH[key] for key in needed})[0] == 0
        for missing in needed:
            code, out, err = run(name, {key: BATCH[key] for key in needed if key != missing})
            assert (code, out) == (2, "")
            assert f"column `{missing}` is missing" in err


@pytest.mark.parametrize(
    ("method", "batch", "options", "words"),
    [
        ("dppo", BATCH, (), "unknown method `dppo`; did you mean `dpo`?"),
        ("dpo", BATCH, ("--set", "bta=1"), "unknown parameter `bta`; did you mean `beta`?"),
        ("dpo", BATCH, ("--set", "beta"), "--set beta: not of the form key=value"),
        ("dpo", BATCH, ("--set", "beta=1", "--set", "beta=2"), "`beta` is set twice"),
        ("dpo", BATCH, ("--set", "beta=much"), "must be a valid number"),
        ("dpo", BATCH, ("--set", "beta=NaN"), "`beta` = nan"),
        ("madpo", BATCH, ("--set", "c_min=1.5"), "`c_min` = 1.5: must be less than 1"),
        ("mixdpo", _without("margin"), (), "batches[0]: column `margin` is missing"),
        ("madpo", _without("margin"), (), "batches[0]: column `margin` is missing"),
        ("dpo_sorted", _without("margin"), (), "batches[0]: column `margin` is missing"),
        ("dpo", _without("chosen_logp"), (), "column `chosen_logp` is missing"),
        ("dpo", _without("ref_chosen_logp"), (), "column `ref_chosen_logp` is missing"),
        ("ipo", _without("rejected_len"), ("--set", "reduction=mean"), "column `rejected_len` is missing"),
        ("dpo", _without(rejected_logp=[-1.0]), (), "batches[0].rejected_logp: 1 values, but chosen_logp has 3"),
        ("dpo", _without(rejected_logp=[-1.0, float("nan"), -1.0]), (), "rejected_logp[1] = nan: must be a finite"),
        ("dpo", _without(margin=[1.0, float("inf"), 1.0]), (), "margin[1] = inf: must be a finite number"),
        ("dpo", _without(chosen_logp=[-1.0, None, -1.0]), (), "chosen_logp[1] = None: must be a finite number"),
        ("dpo", _without(chosen_logp=[-1.0, "x", -1.0]), (), "chosen_logp[1] = 'x': must be a finite number"),
        ("sft", _without(chosen_len=[20, 0, 11]), (), "chosen_len[1] = 0: an answer has at least 1 token"),
        ("dpo", _without(chosen_logps=[1.0]), (), "unknown column; did you mean `chosen_logp`?"),
        ("dpo", _without(chosen_logp=[]), (), "must be a list with one value per pair"),
        ("dpo", [1], (), "batches[0]: must be an object of columns"),
        ("dpo", {**BATCH, "kept": [0]}, (), "method `dpo` draws nothing"),
        ("beta_dpo", {**BATCH, "kept": [0, 3]}, (), "kept: must be different positions from 0 to 2"),
        ("beta_dpo", {**BATCH, "kept": []}, (), "kept: must be different positions from 0 to 2"),
        ("beta_dpo", {**BATCH, "pair_ids": ["a", "a", "b"]}, (), "pair_ids: must be different strings"),
        ("beta_dpo", BATCH, ("--set", "keep=easy"), "a filter by margin changes its batches"),
        ("ipo", _without(chosen_logp=[-1.0, -1e200, -1.0]), (), "the loss of pair 1 is inf"),
    ],
)
def test_a_mistake_is_one_line_and_exit_code_2(run: Any, method: str, batch: Any, options: Any, words: str) -> None:
    code, out, err = run(method, batch, options=options)
    assert (code, out) == (2, "")
    assert len(err.splitlines()) == 1
    assert err.startswith("marginbench: error: ")
    assert words in err


@pytest.mark.parametrize(
    "text", ["", "{", "[]", '{"batches": []}', '{"batches": 1}', '{"batch": []}', '{"batches": [3]}']
)
def test_a_file_of_another_shape(run: Any, text: str) -> None:
    code, out, err = run("dpo", text=text)
    assert (code, out) == (2, "")
    assert len(err.splitlines()) == 1
    assert "pairs.json" in err


def test_a_file_that_is_not_there(capsys: pytest.CaptureFixture[str], tmp_path: Path) -> None:
    for path in (tmp_path / "nowhere.json", tmp_path):
        assert main(["loss", "dpo", "--pairs", str(path)]) == 2
        assert len(capsys.readouterr().err.splitlines()) == 1


def test_shared_parameters_stand_apart_on_a_page(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["methods", "show", "dpo_sorted"]) == 0
    page = capsys.readouterr().out
    own, shared = page.split("Parameters that all methods of pairs share:")
    assert "order: default 'margin_desc' (seeded | margin_desc | margin_asc)" in shared
    assert "beta: default 0.1 (gt 0)" in own
    assert all(f"  {name}:" in shared for name in SHARED)
    assert "dpo_easy_only: order = margin_desc, keep = easy" in shared
