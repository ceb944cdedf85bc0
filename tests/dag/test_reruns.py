"""What reruns: one method's parameter reruns that method, its file reruns it, touching files reruns nothing."""

import os
import re
import shutil
import time
from pathlib import Path

import pytest
import yaml
from dag_tools import make_project, planned, snakemake

pytestmark = pytest.mark.slow


@pytest.fixture(scope="module")
def finished(tmp_path_factory):
    """A toy project whose results Snakemake believes to be complete (`--touch` on placeholder files).

    The rules' own work is tested elsewhere; here only the decision what to run again matters, so outputs are made up
    and recorded by Snakemake itself, with the parameters and hashes of this moment.
    """
    folder = make_project(tmp_path_factory.mktemp("reruns"))
    for script in (folder / "workflow" / "scripts").glob("*.py"):
        text = script.read_text(encoding="utf-8")
        # The script still imports all that it imports (so that the code hash is real), but only makes its outputs.
        imports = "\n".join(sorted(set(re.findall(r"^ *(from marginbench\S* import [\w, ]+)$", text, re.M))))
        body = "\n".join(f"    {line}" for line in imports.splitlines())
        script.write_text(
            "from pathlib import Path\n"
            f"if False:\n{body or '    pass'}\n"
            "for output in snakemake.output:\n"
            "    path = Path(output)\n"
            "    folder = path if path.name == 'capability' else path.parent\n"
            "    folder.mkdir(parents=True, exist_ok=True)\n"
            "    (path / 'task.json' if folder == path else path).write_text(output)\n",
            encoding="utf-8",
        )
    result = snakemake(folder, "--cores", "2")
    assert result.returncode == 0, result.stderr
    assert planned(snakemake(folder, "-n").stdout) == {}
    return folder


def plan_after(folder: Path, change) -> tuple[dict[str, int], str]:
    """The jobs that a change in a copy of the project would run."""
    copy = folder.parent / f"copy{time.monotonic_ns()}"
    shutil.copytree(folder, copy, copy_function=shutil.copy2)
    try:
        change(copy)
        result = snakemake(copy, "-n")
        assert result.returncode == 0, result.stderr
        return planned(result.stdout), result.stdout
    finally:
        shutil.rmtree(copy)


def methods_trained(output: str) -> set[str]:
    return set(re.findall(r"Training (\w+) on toy_high", output))


DESCENDANTS_OF_ONE_RUN = {
    "train_policy": 1,
    "generate_answers": 3,  # Arena-Hard judges the in-domain answers
    "score_answers": 3,
    "judge_answers": 2,
    "score_judgments": 2,
    "judge_arena_hard": 1,
    "score_arena_hard": 1,
    "judge_mt_bench": 1,
    "score_mt_bench": 1,
    "measure_capability": 1,
    "collect_metrics": 1,
    "make_table": 1,
    "plot_figures": 1,
    "all": 1,
}


def test_beta_of_dpo_reruns_dpo_and_nothing_else(finished):
    def change(folder):
        study = yaml.safe_load((folder / "config.yaml").read_text())
        study["methods"]["dpo"]["params"]["beta"] = 0.2
        (folder / "config.yaml").write_text(yaml.safe_dump(study, sort_keys=False))

    jobs, output = plan_after(finished, change)
    jobs.pop("total", None)
    assert methods_trained(output) == {"dpo"}
    assert jobs == DESCENDANTS_OF_ONE_RUN


def test_editing_a_method_file_reruns_that_method_only(finished):
    def change(folder):
        path = folder / "workflow" / "marginbench" / "methods" / "ipo.py"
        path.write_text(path.read_text() + "\n# an edit\n")

    jobs, output = plan_after(finished, change)
    jobs.pop("total", None)
    assert methods_trained(output) == {"ipo"}
    assert jobs == DESCENDANTS_OF_ONE_RUN


def test_touching_files_reruns_nothing(finished):
    def change(folder):
        later = time.time() + 10
        for path in folder.rglob("*"):
            if path.is_file() and ".snakemake" not in path.parts:
                os.utime(path, (later, later))

    jobs, _ = plan_after(finished, change)
    assert jobs == {}


def test_editing_shared_training_code_reruns_both_methods_but_no_data(finished):
    def change(folder):
        path = folder / "workflow" / "marginbench" / "training" / "trainer.py"
        path.write_text(path.read_text() + "\n# an edit\n")

    jobs, output = plan_after(finished, change)
    assert methods_trained(output) == {"dpo", "ipo"}
    assert not {"read_corpus", "train_sft", "sample_candidates", "make_pairs"} & set(jobs)


def test_another_method_leaves_the_others_alone(finished):
    def change(folder):
        study = yaml.safe_load((folder / "config.yaml").read_text())
        study["methods"]["dpo_b05"] = {"method": "dpo", "params": {"beta": 0.5}}
        (folder / "config.yaml").write_text(yaml.safe_dump(study, sort_keys=False))

    _, output = plan_after(finished, change)
    assert methods_trained(output) == {"dpo_b05"}
