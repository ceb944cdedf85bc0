"""Published AlpacaEval judgments give the published scores, and the package is left as it was."""

import gzip
import hashlib
import importlib.util
import json
import random
from pathlib import Path

import pytest
from marginbench import cli
from marginbench.benchmarks.alpaca_eval import score
from marginbench.benchmarks.alpaca_files import (
    read_annotations,
    read_model_outputs,
    write_annotations,
    write_model_outputs,
)
from marginbench.errors import UserError

CASES = Path(__file__).parents[2].parent / "shared" / "parity" / "alpaca_eval"
GAMED = CASES / "_reference" / "df_gamed_reconstructed.csv.gz"
DIFFICULTY = CASES / "_reference" / "instruction_difficulty_recovered.csv"
MODELS = (
    "FuseChat-Llama-3.2-1B-Instruct",
    "ae1_zephyr-7b-beta",
    "claude-2.1",
    "gpt35_turbo_instruct",
    "gpt4_1106_preview",
)
RAW = ("win_rate", "standard_error", "discrete_win_rate", "n_wins", "n_wins_base", "n_draws", "n_total")

pytestmark = pytest.mark.skipif(not CASES.is_dir(), reason="published judgments (../shared/parity) are not at hand")


def case(model):
    with gzip.open(CASES / model / "annotations.json.gz") as handle:
        rows = json.load(handle)
    return rows, json.loads((CASES / model / "expected.json").read_text(encoding="utf-8"))


def package_digest():
    """SHA-256 of every file of the installed package, compiled ones left out."""
    folder = Path(importlib.util.find_spec("alpaca_eval").submodule_search_locations[0])
    files = [path for path in folder.rglob("*") if path.is_file() and "__pycache__" not in path.parts]
    return {path.relative_to(folder): hashlib.sha256(path.read_bytes()).hexdigest() for path in files}


@pytest.fixture(scope="module", autouse=True)
def package_is_left_as_it_was():
    """Around everything in this file: scores, length control, bootstrap and upstream's own evaluation."""
    before = package_digest()
    assert len(before) > 300
    yield
    assert package_digest() == before


@pytest.mark.parametrize("model", MODELS)
def test_raw_metrics(model):
    rows, expected = case(model)
    result = score(rows)
    exact = expected["recomputed_exact"]
    compared = [name for name in RAW if name in exact]
    assert len(compared) >= 6
    for name in compared:
        assert result[name] == pytest.approx(exact[name], abs=1e-9), name
    assert result["n_null"] == len(rows) - exact["n_total"]
    if "mean_chars_output_2_in_annotations" in expected:
        assert result["avg_length"] == expected["mean_chars_output_2_in_annotations"]


@pytest.mark.parametrize("model", ["claude-2.1", "FuseChat-Llama-3.2-1B-Instruct", "gpt4_1106_preview"])
def test_length_controlled(model):
    rows, expected = case(model)
    result = score(rows, GAMED, DIFFICULTY)
    published = expected["published"]["length_controlled_winrate"]
    assert result["length_controlled_winrate"] == pytest.approx(published, abs=expected["lc_tolerance_pp"])
    assert result["lc_reason"] is None
    if "C" in expected["lc_recomputed_with_reconstructed_gamed"]:
        assert result["lc_c"] == pytest.approx(expected["lc_recomputed_with_reconstructed_gamed"]["C"])


@pytest.mark.parametrize(("join", "published"), [("instruction", False), ("position", True)])
def test_a_missing_row_moves_length_control_by_position_only(join, published, capsys):
    _, expected = case("gpt35_turbo_instruct")
    files = [str(CASES / "gpt35_turbo_instruct" / "annotations.json.gz"), "--gamed", str(GAMED)]
    assert cli.main(["score", "alpaca-eval", *files, "--difficulty", str(DIFFICULTY), "--join", join]) == 0
    printed = capsys.readouterr()
    result = json.loads(printed.out)
    right = (
        expected["published"]["length_controlled_winrate"] if published else expected["lc_joined_by_instruction_C2.78"]
    )
    assert result["length_controlled_winrate"] == pytest.approx(right, abs=0.01)
    assert (result["n_total"], result["n_missing"], result["lc_gamed_official"]) == (804, 1, False)
    assert printed.err == "1 of AlpacaEval 2's instructions are missing\n"


def test_bootstrap_interval_is_that_of_prompts_and_repeats():
    rows, _ = case("claude-2.1")
    result = score(rows, GAMED, DIFFICULTY, bootstrap=300)
    assert 1.4 < result["lc_se"] < 2.0
    assert result["lc_ci_low"] == pytest.approx(21.9, abs=0.6)
    assert result["lc_ci_high"] == pytest.approx(28.6, abs=0.6)
    random.Random(1).shuffle(rows)
    again = score(rows, GAMED, DIFFICULTY, bootstrap=300)
    assert again["lc_ci_low"] == pytest.approx(result["lc_ci_low"], abs=1e-9)
    assert score(rows, GAMED, DIFFICULTY, bootstrap=3, seed=1)["lc_ci_low"] != pytest.approx(
        score(rows, GAMED, DIFFICULTY, bootstrap=3)["lc_ci_low"], abs=1e-3
    )


def test_answers_equal_to_the_baselines_give_one_half():
    """Under another name too, where the package would divide by no spread of lengths."""
    rows, _ = case("gpt4_1106_preview")
    result = score([{**row, "generator_2": "copy"} for row in rows], GAMED, DIFFICULTY)
    assert (result["win_rate"], result["length_controlled_winrate"], result["lc_c"]) == (50.0, 50.0, None)


def test_nulls_leave_length_control_on_all_rows():
    rows, _ = case("claude-2.1")
    rows = [{**row, "preference": None} if i % 100 == 7 else row for i, row in enumerate(rows)]
    result = score(rows, GAMED, DIFFICULTY)
    assert (result["n_null"], result["n_missing"]) == (8, 0)
    assert result["length_controlled_winrate"] == pytest.approx(25.25, abs=1.0)


@pytest.mark.parametrize("model", ["claude-2.1", "FuseChat-Llama-3.2-1B-Instruct"])
def test_shuffled_annotations_do_not_move_length_control(model):
    """Joined by position claude-2.1 would move by points; without a canonical order FuseChat would choose another C."""
    rows, _ = case(model)
    straight = score(rows, GAMED, DIFFICULTY)
    random.Random(0).shuffle(rows)
    shuffled = score(rows, GAMED, DIFFICULTY)
    assert shuffled["lc_c"] == straight["lc_c"]
    assert shuffled["length_controlled_winrate"] == pytest.approx(straight["length_controlled_winrate"], abs=1e-12)


def test_length_control_needs_its_constants_and_its_baseline():
    rows, _ = case("claude-2.1")
    assert score(rows)["lc_reason"] == "df_gamed.csv was not given"
    assert score([*rows, rows[0]], GAMED)["lc_reason"] == "an instruction occurs more than once"
    rows, _ = case("ae1_zephyr-7b-beta")
    result = score(rows, GAMED, DIFFICULTY)
    assert result["length_controlled_winrate"] is None
    assert "not text_davinci_003" in result["lc_reason"]


def test_settings_of_this_process_are_left_as_they_were():
    import logging

    import sklearn

    settings, root = sklearn.get_config(), logging.getLogger()
    before = (root.level, list(root.handlers), root.manager.disable)
    rows, _ = case("claude-2.1")
    assert score(rows, GAMED, DIFFICULTY)["length_controlled_winrate"] is not None
    assert sklearn.get_config() == settings
    assert (root.level, list(root.handlers), root.manager.disable) == before


def test_stored_logprobs_give_the_stored_preferences():
    """Our verdict and un-swap rules against the official judge's raw replies."""
    from marginbench.judging.prompts import is_switched
    from marginbench.judging.verdicts import read, unswap

    compared = 0
    rows, expected = case("claude-2.1")
    for row in rows:
        raw = row.get("raw_completion")
        if not raw or row["output_1"] == row["output_2"] or not raw.get("logprobs"):
            continue
        verdict = read("logprobs", {"logprobs": raw["logprobs"]})
        assert unswap(verdict.value, is_switched(row["instruction"])) == pytest.approx(row["preference"], abs=1e-6)
        compared += 1
    assert compared == expected["preferences_rederived_from_logprobs"]


def exported(model, folder):
    """Our files of a published model: outputs, the baseline's outputs, annotations."""
    rows = read_annotations(CASES / model / "annotations.json.gz")
    reference = read_model_outputs(CASES / "_reference" / "alpaca_eval_gpt4_baseline.json.gz")
    texts = [{"prompt_text": row["instruction"], "text": row["output_2"]} for row in rows]
    base = [{"prompt_text": row["instruction"], "text": row["output"]} for row in reference]
    write_model_outputs(folder / "model_outputs.json", texts, generator=model, dataset="alpaca_eval")
    write_model_outputs(folder / "reference.json", base, generator="gpt4_1106_preview", dataset="alpaca_eval")
    write_annotations(folder / "cache.json", rows)
    return rows


def test_upstream_reads_our_files_and_prints_our_numbers(tmp_path, monkeypatch):
    """Upstream's own `evaluate` merges our outputs with the baseline's and finds every verdict in our annotations."""
    from alpaca_eval import evaluate
    from alpaca_eval.metrics import glm_winrate

    rows = exported("claude-2.1", tmp_path)
    gamed = tmp_path / "df_gamed.csv"
    gamed.write_bytes(gzip.decompress(GAMED.read_bytes()))
    monkeypatch.setattr(glm_winrate, "hf_hub_download", lambda **_: str(gamed))
    board, annotations = evaluate(
        model_outputs=str(tmp_path / "model_outputs.json"),
        reference_outputs=str(tmp_path / "reference.json"),
        annotators_config="weighted_alpaca_eval_gpt4_turbo",
        caching_path=tmp_path / "cache.json",
        output_path=None,
        precomputed_leaderboard=None,
        metric_kwargs={"save_weights_dir": None},
        is_return_instead_of_print=True,
    )
    ours = score(rows, GAMED)
    theirs = board.loc["claude-2.1"]
    assert len(annotations) == 805
    for name in (*RAW, "length_controlled_winrate"):
        assert float(theirs[name]) == pytest.approx(ours[name], abs=1e-9), name
    assert int(theirs["avg_length"]) == ours["avg_length"]


def test_a_fit_that_is_not_the_packages_is_an_error(monkeypatch):
    from marginbench.benchmarks import alpaca_metrics

    rows, _ = case("claude-2.1")
    monkeypatch.setattr(alpaca_metrics, "GAMED_WEIGHT", 0.101)
    with pytest.raises(UserError, match=r"our own fit at C 2\.78256 differ by"):
        score(rows, GAMED, DIFFICULTY)


def test_another_scikit_learn_gives_no_length_control(monkeypatch):
    from marginbench.benchmarks import alpaca_length_control

    rows, _ = case("claude-2.1")
    monkeypatch.setattr(alpaca_length_control, "sklearn_version", lambda: "1.10.0")
    result = score(rows, GAMED, DIFFICULTY)
    assert result["length_controlled_winrate"] is None
    assert result["lc_reason"].startswith("C was chosen with scikit-learn >=1.9,<1.10, and 1.10.0 is installed")


@pytest.mark.parametrize(
    ("change", "words"),
    [
        (lambda lines: lines[:-1], "two rows for each index 0 to 804"),
        (
            lambda lines: [*lines[:-1], lines[-1].replace(lines[-1].split(",")[2], "far")],
            "`std_delta_len` is missing or",
        ),
        (lambda lines: [lines[0].replace("index", "place"), *lines[1:]], "column `index` is missing"),
        (lambda lines: [], "not a CSV file"),
    ],
)
def test_constants_that_cannot_be_are_refused(tmp_path, change, words):
    rows, _ = case("claude-2.1")
    broken = tmp_path / "df_gamed.csv"
    broken.write_text("\n".join(change(gzip.decompress(GAMED.read_bytes()).decode().splitlines())))
    with pytest.raises(UserError, match=words):
        score(rows, broken)
    with pytest.raises(UserError, match="two columns are expected"):
        score(rows, GAMED, GAMED)
