"""Malformed studies: one line that names the key, the value and the nearest valid name; nothing is left behind."""

import copy
import os
import subprocess
import sys
from pathlib import Path

import pytest
import yaml
from dag_tools import make_project, snakemake, toy_study, write_config, write_reviews
from marginbench.dag.checks import load_studies
from marginbench.errors import UserError
from marginbench.judging.spec import load_judges

ROOT = Path(__file__).resolve().parents[2]


def put(path, value):
    """A change of a study: the value at a dotted path."""

    def change(study):
        *parents, last = path.split(".")
        here = study
        for part in parents:
            here = here[part]
        here[last] = value

    return change


def drop(path):
    def change(study):
        *parents, last = path.split(".")
        here = study
        for part in parents:
            here = here[part]
        del here[last]

    return change


BAD_STUDIES = {
    "unknown key at the top": (put("metods", {}), ["metods", "did you mean `methods`?"]),
    "unknown key in a section": (put("training.learning_rat", 0.1), ["training.learning_rat", "`learning_rate`"]),
    "unknown key in a corpus": (put("corpora.toy.promts", 5), ["corpora.toy.promts", "`prompts`"]),
    "unknown key in a nested section": (put("sft.tuning.rnk", 5), ["sft.tuning.rnk", "`rank`"]),
    "missing key": (drop("judges"), ["judges: missing"]),
    "wrong type": (put("training.epochs", "two"), ["training.epochs", "`'two'`"]),
    "wrong type of a section": (put("methods", ["dpo"]), ["methods", "valid dictionary", "`['dpo']`"]),
    "seeds are words": (put("seeds", ["zero"]), ["seeds[0]", "`'zero'`"]),
    "no seeds": (put("seeds", []), ["seeds"]),
    "a seed of its own": (put("methods.dpo.seeds", [0, 7]), ["methods.dpo.seeds", "7", "[0]"]),
    "a seed twice": (put("seeds", [1, 1]), ["seeds", "more than once"]),
    "unknown method": (put("methods.dpo.method", "ddpo"), ["methods.dpo.method", "`ddpo`", "did you mean `dpo`?"]),
    "unknown parameter": (put("methods.dpo.params", {"bta": 0.1}), ["methods.dpo.params", "`bta`", "`beta`"]),
    "negative beta": (put("methods.dpo.params", {"beta": -0.1}), ["methods.dpo.params", "`beta`", "-0.1"]),
    "beta is a word": (put("methods.dpo.params", {"beta": "big"}), ["methods.dpo.params", "`beta`", "big"]),
    "unknown reduction": (put("methods.ipo.params", {"beta": 0.1, "reduction": "avg"}), ["reduction", "avg"]),
    "unknown scorer": (
        put("methods.dpo", {"method": "selective_dpo", "params": {"scorer": "held_out"}}),
        ["methods.dpo.params.scorer", "`held_out`", "did you mean `held_out_loss`?"],
    ),
    "margins that nobody makes": (
        lambda study: study.update(margins=[], methods={"mixed": {"method": "mixdpo"}}),
        ["methods.mixed", "needs margins", "`margins`"],
    ),
    "two thresholds": (
        put("methods.dpo", {"method": "mixdpo", "params": {"tau": 1, "percentile": 0.1}}),
        ["methods.dpo.params", "`tau` and `percentile`"],
    ),
    "unknown variant": (put("methods.dpo.method", "dpo_sorte"), ["methods.dpo.method", "`dpo_sorte`", "`dpo_sorted`"]),
    "unknown training override": (
        put("methods.dpo.training", {"epoch": 3}),
        ["methods.dpo.training.epoch", "`epochs`"],
    ),
    "unknown corpus": (put("datasets.toy_high.corpus", "tooy"), ["datasets.toy_high.corpus", "`tooy`", "`toy`"]),
    "unknown source": (put("corpora.toy.source", "review"), ["corpora.toy.source", "`review`", "`reviews`"]),
    "unknown model source": (put("models.toy_llama.source", "hug"), ["models.toy_llama.source", "`hug`"]),
    "unknown judge": (put("judges", ["sentiment_half_a"]), ["judges", "`sentiment_half_a`", "`sentiment_half_b`"]),
    "unknown task": (put("capability.tasks", {"piqqa": {}}), ["capability.tasks", "`piqqa`", "`piqa`"]),
    "unknown tier": (put("datasets.toy_high.tier", "hihg"), ["datasets.toy_high.tier", "`high`"]),
    "tier missing": (drop("datasets.toy_high.tier"), ["datasets.toy_high.tier", "missing"]),
    "impossible split": (put("benchmarks.in_domain.prompts", 600), ["impossible split", "600", "eval_prompts"]),
    "holdout of everything": (put("reward_model.holdout_fraction", 1.0), ["reward_model.holdout_fraction", "`1.0`"]),
    "negative learning rate": (put("training.learning_rate", -1), ["training.learning_rate", "`-1`"]),
    "micro-batch does not divide": (put("training.micro_batch_size", 3), ["micro_batch_size 3", "batch_size 4"]),
    "one sample makes no pair": (
        put("corpora.toy.candidates.samples_per_prompt", 1),
        ["samples_per_prompt", "2 or more"],
    ),
    "no such file": (put("corpora.toy.path", "nowhere.csv"), ["corpora.toy.path", "`nowhere.csv`"]),
    "id that is a path": (put("datasets", {"../up": {"corpus": "toy"}}), ["datasets", "../up"]),
    "reserved id": (put("methods.shared", {"method": "dpo"}), ["methods.shared", "reserved"]),
    "unknown key of claims": (put("claims", {"metric": ["kl"]}), ["claims.metric", "did you mean `metrics`?"]),
    "unknown baseline": (put("claims", {"baseline": "ddpo"}), ["claims.baseline", "`ddpo`", "did you mean `dpo`?"]),
    "unknown entry of the family": (put("claims", {"methods": ["iipo"]}), ["claims.methods", "`iipo`", "`ipo`?"]),
    "the baseline against itself": (put("claims", {"methods": ["dpo"]}), ["claims.methods", "`dpo`", "remove it"]),
    "an entry twice in the family": (put("claims", {"methods": ["ipo", "ipo"]}), ["claims", "ipo", "more than once"]),
    "metric that nobody measures": (put("claims", {"metrics": ["piqa"]}), ["claims.metrics", "`piqa`", "not measured"]),
    "misspelt metric": (put("claims", {"metrics": ["winrate"]}), ["claims.metrics", "did you mean `win_rate`?"]),
    "level of certainty": (put("claims", {"level": 1}), ["claims.level", "`1`"]),
    "a family without a baseline": (
        lambda study: study.update(methods={"mine": {"method": "dpo"}}, claims={"methods": ["mine"]}),
        ["claims.methods", "no entry `dpo`", "claims.baseline"],
    ),
    "the start is not a method": (put("methods.sft_start", {"method": "dpo"}), ["methods.sft_start", "remove"]),
}


@pytest.mark.parametrize("name", BAD_STUDIES)
def test_one_line_that_says_what_and_how(name, tmp_path, monkeypatch):
    change, expected = BAD_STUDIES[name]
    monkeypatch.chdir(tmp_path)
    write_reviews(tmp_path / "reviews.csv", rows=20)
    study = copy.deepcopy(toy_study("reviews.csv"))
    change(study)
    with pytest.raises(UserError) as caught:
        load_studies(study, [], load_judges(ROOT / "resources" / "judges.yaml"))
    message = str(caught.value)
    assert "\n" not in message
    assert message.startswith("config.yaml: ")
    for words in expected:
        assert words in message, message


BAD_FILES = {
    "not YAML": (b"study: [1, 2\n", "not valid YAML"),
    "not a mapping": (b"- a\n- b\n", "a study is a mapping"),
    "not UTF-8": (b"study: \xff\xfe\n", "not valid YAML"),
    "unknown base": (b"extends: qickstart\nstudy: mine\n", "did you mean `quickstart`?"),
    "id that is taken": (b"extends: quickstart\n", "already the id of another study"),
    "python object": (b"study: !!python/object/apply:os.system ['true']\n", "not valid YAML"),
}


@pytest.mark.parametrize("name", BAD_FILES)
def test_broken_study_files(name, tmp_path, monkeypatch):
    content, words = BAD_FILES[name]
    monkeypatch.chdir(tmp_path)
    write_reviews(tmp_path / "reviews.csv", rows=20)
    (tmp_path / "mine.yaml").write_bytes(content)
    judges = load_judges(ROOT / "resources" / "judges.yaml")
    with pytest.raises(UserError, match=r"mine\.yaml") as caught:
        load_studies(toy_study("reviews.csv"), ["mine.yaml"], judges)
    assert words in str(caught.value)
    assert "\n" not in str(caught.value)


@pytest.mark.slow
def test_snakemake_stops_at_once_without_a_traceback(tmp_path):
    folder = make_project(tmp_path / "project")
    before = sorted(path for path in folder.rglob("*") if path.is_file())
    for change, words in (BAD_STUDIES["negative beta"], BAD_STUDIES["unknown key at the top"]):
        study = toy_study("reviews.csv")
        change(study)
        write_config(folder, study)
        result = snakemake(folder, "--cores", "1")
        lines = [line for line in result.stderr.splitlines() if "profile" not in line]
        assert result.returncode != 0
        assert len(lines) == 1, result.stderr
        assert lines[0].startswith("marginbench: error: config.yaml: ")
        assert all(word in lines[0] for word in words)
        assert "Traceback" not in result.stderr + result.stdout
    after = sorted(path for path in folder.rglob("*") if path.is_file() and "__pycache__" not in path.parts)
    assert [path for path in after if path not in before and ".snakemake" not in path.parts] == []


@pytest.mark.slow
def test_the_command_line_refuses_with_exit_code_2(tmp_path):
    write_reviews(tmp_path / "reviews.csv", rows=20)
    study = {**toy_study(str(tmp_path / "reviews.csv")), "study": "mine", "judges": ["nobody"]}
    (tmp_path / "mine.yaml").write_text(yaml.safe_dump(study))
    command = [sys.executable, "-m", "marginbench", "check", str(tmp_path / "mine.yaml")]
    result = subprocess.run(command, capture_output=True, text=True, env={**os.environ}, check=False)
    assert result.returncode == 2
    assert result.stdout == ""
    assert len(result.stderr.splitlines()) == 1
    assert "unknown judge `nobody`" in result.stderr
