"""A toy project for tests that start Snakemake: generated reviews, a random tiny model, every stage cheap."""

import copy
import csv
import json
import os
import random
import shutil
import subprocess
import sys
from pathlib import Path
from typing import Any

import yaml

ROOT = Path(__file__).resolve().parents[1]

POSITIVE = ("wonderful", "brilliant", "moving", "superb", "lovely", "charming", "gripping", "fresh", "warm")
NEGATIVE = ("dreadful", "boring", "awful", "clumsy", "stale", "tedious", "wooden", "feeble", "dull")
PLAIN = ("the", "film", "story", "actor", "scene", "plot", "music", "camera", "ending", "dialogue", "cast", "script")


def write_reviews(path: Path, rows: int = 240, words: int = 40) -> None:
    """Reviews of made-up words whose label can be read off the adjectives."""
    rng = random.Random(7)
    with open(path, "w", newline="", encoding="utf-8") as handle:
        writer = csv.writer(handle)
        writer.writerow(["text", "label"])
        for row in range(rows):
            label = row % 2
            adjectives = POSITIVE if label else NEGATIVE
            text = " ".join(rng.choice(adjectives if position % 3 == 2 else PLAIN) for position in range(words))
            writer.writerow([f"{text} {row}", label])


def write_benchmarks(folder: Path) -> None:
    """Question files in the official formats of AlpacaEval and MT-Bench, a few made-up rows each."""
    reference = [
        {"instruction": f"Say something {word}", "output": f"it is {word}", "generator": "reference", "dataset": "toy"}
        for word in ("warm", "dull", "fresh", "stale")
    ]
    (folder / "reference.json").write_text(json.dumps(reference), encoding="utf-8")
    questions = [
        {"question_id": 81 + place, "category": category, "turns": [f"The film was {word}", "And the music?"]}
        for place, (category, word) in enumerate([("writing", "lovely"), ("stem", "boring"), ("extraction", "warm")])
    ]
    (folder / "questions.jsonl").write_text("".join(json.dumps(row) + "\n" for row in questions), encoding="utf-8")


def toy_study(reviews: str) -> dict[str, Any]:
    """A study that runs every stage in seconds; its numbers mean nothing."""
    optimisation: dict[str, Any] = {
        "epochs": 1,
        "batch_size": 4,
        "micro_batch_size": 4,
        "max_length": 96,
        "tuning": {"kind": "lora", "rank": 4, "alpha": 8},
    }
    return {
        "study": "quickstart",
        "title": "Toy",
        "seeds": [0],
        "corpora": {
            "toy": {
                "source": "reviews",
                "path": reviews,
                "classifier_texts": 60,
                "sft_texts": 8,
                "prompts": 16,
                "eval_prompts": 6,
                "perplexity_texts": 4,
                "prompt_words": 3,
                "candidates": {"samples_per_prompt": 2, "max_new_tokens": 8, "batch_size": 16},
            }
        },
        "datasets": {"toy_high": {"corpus": "toy", "tier": "high", "label_noise": "bradley_terry"}},
        "models": {"toy_llama": {"source": "toy"}},
        "sft": copy.deepcopy(optimisation),
        "reward_model": {**copy.deepcopy(optimisation), "holdout_fraction": 0.25},
        "training": optimisation,
        "methods": {
            "dpo": {"method": "dpo", "params": {"beta": 0.1}},
            "ipo": {"method": "ipo", "params": {"beta": 0.1, "reduction": "mean"}},
        },
        "generations": {"t08": {"temperature": 0.8, "max_new_tokens": 8, "batch_size": 16}},
        "benchmarks": {
            "in_domain": {"prompts": 6},
            "alpaca_eval": {"reference": {"source": "file", "path": "reference.json"}},
            "arena_hard": {"version": "v2.0"},
            "mt_bench": {"questions": {"source": "file", "path": "questions.jsonl"}},
        },
        "judges": ["sentiment_half_b", "sentiment_half_b_arena", "sentiment_half_b_rating"],
        "capability": {"batch_size": 8, "tasks": {"review_perplexity": {}}},
    }


def make_project(folder: Path) -> Path:
    """A copy of the workflow in `folder` whose default study is the toy; returns the folder."""
    folder.mkdir(parents=True, exist_ok=True)
    for name in ("Snakefile", "profiles", "envs", "resources"):
        source = ROOT / name
        (shutil.copytree if source.is_dir() else shutil.copy)(source, folder / name)
    shutil.copytree(ROOT / "workflow", folder / "workflow", ignore=shutil.ignore_patterns("__pycache__"))
    (folder / "studies").mkdir()
    write_reviews(folder / "reviews.csv")
    write_benchmarks(folder)
    write_config(folder, toy_study("reviews.csv"))
    return folder


def write_config(folder: Path, study: dict[str, Any]) -> None:
    """Write the default study of a project."""
    (folder / "config.yaml").write_text(yaml.safe_dump(study, sort_keys=False), encoding="utf-8")


def snakemake(folder: Path, *arguments: str, timeout: float = 900) -> subprocess.CompletedProcess[str]:
    """Run Snakemake in a project, with that project's own copy of the library."""
    own = {"PYTHONPATH": str(folder / "workflow"), "HF_HUB_OFFLINE": "1", "PYTHONHASHSEED": "random"}
    return subprocess.run(
        [sys.executable, "-m", "snakemake", *arguments],
        cwd=folder,
        env={**os.environ, **own},
        capture_output=True,
        text=True,
        timeout=timeout,
        check=False,
    )


def planned(output: str) -> dict[str, int]:
    """Rule -> jobs, from the table that a dry run prints."""
    counts: dict[str, int] = {}
    lines = iter(output.splitlines())
    for line in lines:
        if line.split() == ["job", "count"]:
            next(lines)
            for row in lines:
                parts = row.split()
                if len(parts) != 2 or not parts[1].isdigit():
                    break
                counts[parts[0]] = int(parts[1])
            break
    return counts
