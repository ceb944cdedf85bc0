"""Published AlpacaEval judgments give the published scores, and the package is left as it was."""

import base64
import gzip
import hashlib
import importlib.metadata
import importlib.util
import json
import random
from pathlib import Path

import pytest
from marginbench.benchmarks.alpaca_eval import score

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


def installed_bytes():
    """SHA-256 of the package's files as its installer recorded them."""
    files = importlib.metadata.files("alpaca-eval")
    return {str(f): f.hash.value for f in files if f.parts[0] == "alpaca_eval" and f.hash and f.suffix != ".pyc"}


def present_bytes():
    """The same of what lies there now, new files included."""
    folder = Path(importlib.util.find_spec("alpaca_eval").submodule_search_locations[0])
    files = [path for path in folder.rglob("*") if path.is_file() and path.suffix != ".pyc"]
    digests = {path: hashlib.sha256(path.read_bytes()).digest() for path in files}
    return {
        path.relative_to(folder.parent).as_posix(): base64.urlsafe_b64encode(digest).decode().rstrip("=")
        for path, digest in digests.items()
    }


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


def test_length_control_joins_by_instruction():
    rows, expected = case("gpt35_turbo_instruct")
    joined = score(rows, GAMED, DIFFICULTY)["length_controlled_winrate"]
    assert joined == pytest.approx(expected["lc_joined_by_instruction_C2.78"], abs=0.01)


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


def test_the_package_is_left_as_it_was():
    import sklearn

    settings = sklearn.get_config()
    rows, _ = case("claude-2.1")
    assert score(rows, GAMED, DIFFICULTY)["length_controlled_winrate"] is not None
    assert present_bytes() == installed_bytes()
    assert sklearn.get_config() == settings


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
