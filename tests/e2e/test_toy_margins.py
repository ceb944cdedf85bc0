"""Every scorer that pairs from reviews can have, run for real through its rule, down to the figure."""

from pathlib import Path

import pandas as pd
import pytest
from dag_tools import make_project, snakemake, toy_study, write_config
from marginbench.models.loading import folder_tokenizer
from marginbench.models.manifest import read_manifest
from marginbench.records import MARGINS, read_table
from transformers import AutoModelForSequenceClassification

pytestmark = pytest.mark.slow

CELL = Path("results/quickstart/toy_high/toy_llama/shared")
SCORERS = ["reward_model", "held_out_loss", "implicit_reward", "hub_reward_model"]


@pytest.fixture(scope="module")
def project(toy_model: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = make_project(tmp_path_factory.mktemp("project") / "project")
    source = read_manifest(toy_model).weights_dir
    AutoModelForSequenceClassification.from_pretrained(source, num_labels=1).save_pretrained(folder / "rm")
    folder_tokenizer(source).save_pretrained(folder / "rm")
    study = toy_study("reviews.csv")
    study["training"]["tuning"] = {"kind": "lora", "rank": 4, "alpha": 8, "last_layers": 1}
    study["margins"] = SCORERS
    study["hub_reward_model"] = {"source": "folder", "path": "rm", "max_length": 128, "sanity_losses": 16}
    study["methods"]["selective"] = {"method": "selective_dpo", "params": {"beta": 0.1}}
    write_config(folder, study)
    targets = ["results/quickstart/figures/margins.png", str(CELL.parent / "selective/seed0/policy/manifest.json")]
    result = snakemake(folder, "--cores", "1", *targets)
    logs = "\n".join(f"{log}\n{log.read_text()[-1500:]}" for log in sorted((folder / "logs").rglob("*.log")))
    assert result.returncode == 0, result.stderr[-4000:] + logs[-6000:]
    return folder


def test_every_scorer_scores_every_pair(project: Path) -> None:
    tokens = pd.read_parquet(project / CELL / "pair_tokens.parquet")
    for scorer in SCORERS:
        margins = read_table(project / CELL / "margins" / f"{scorer}.parquet", MARGINS)
        assert margins["pair_id"].tolist() == tokens["pair_id"].tolist(), scorer
        assert set(margins["scorer"]) == {scorer}
        assert margins["margin"].nunique() > len(margins) / 2, scorer
    assert sorted(path.name for path in (project / CELL / "margins").iterdir()) == sorted(
        f"{scorer}.parquet" for scorer in SCORERS
    )
    assert (project / "results/quickstart/figures/margins.png").stat().st_size > 20_000


def test_implicit_rewards_are_those_of_the_dpo_run(project: Path) -> None:
    margins = read_table(project / CELL / "margins" / "implicit_reward.parquet", MARGINS)
    policy = read_manifest(project / CELL.parent / "dpo/seed0/policy/manifest.json")
    assert set(margins["scorer_hash"]) == {policy.weights_hash}


def test_selective_dpo_trains_on_the_half_with_the_smallest_held_out_loss(project: Path) -> None:
    margins = read_table(project / CELL / "margins" / "held_out_loss.parquet", MARGINS)
    facts = read_manifest(project / CELL.parent / "selective/seed0/policy/manifest.json").facts
    assert facts["plan"]["pairs"] == len(margins) // 2


def test_a_reward_model_that_fails_its_sanity_set_stops_in_one_line(project: Path) -> None:
    """The toy's head is random: with no row to lose it is refused, and the message names the rows."""
    config = (project / "config.yaml").read_text()
    try:
        (project / "config.yaml").write_text(config.replace("sanity_losses: 16", "sanity_losses: 0"))
        result = snakemake(project, "--cores", "1", str(CELL / "margins" / "hub_reward_model.parquet"))
    finally:
        (project / "config.yaml").write_text(config)
    assert result.returncode != 0
    (line,) = [line for line in result.stderr.splitlines() if line.startswith("marginbench: ")]
    assert "the known better answer loses in" in line
    assert "resources/reward_sanity.jsonl" in line
