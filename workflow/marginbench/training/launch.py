"""One policy trained from files: in this process, or by several that share its batches.

Several processes on one machine are started through torchrun (`launch`). On several machines start it by hand there:
`torchrun ... -m marginbench.training.launch RUN.json`, where RUN.json holds the fields of `PolicyRun`.
"""

import json
import os
import subprocess
import sys
import tempfile
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import torch

from marginbench.errors import UserError
from marginbench.files import read_json, write_json
from marginbench.job import Progress, quiet
from marginbench.methods.registry import load_method
from marginbench.records import MARGINS, PAIR_TOKENS, REFERENCE, TRAIN_LOG, read_table, write_table
from marginbench.study import Optimisation
from marginbench.training.optimisation import accumulation_steps, process_index
from marginbench.training.preference import train_policy

MARK = "@marginbench "
"""Begins a line by which a process tells the one that started it about progress or a user's mistake."""


@dataclass(frozen=True)
class PolicyRun:
    """What `train_policy` is called with, as paths and plain values.

    Attributes:
        method: `name` and `params`.
        training: fields of Optimisation.
        start, tokens, reference, margins, frozen: files; margins and frozen may be None.
        template: hash of the template that the pairs were tokenised with.
        dataset, model, seed: axes of the random streams.
        out_dir: receives manifest and weights.
        log: receives the TRAIN_LOG table.
    """

    method: dict[str, Any]
    training: dict[str, Any]
    start: str
    tokens: str
    reference: str
    margins: str | None
    frozen: str | None
    template: str | None
    dataset: str
    model: str
    seed: int
    out_dir: str
    log: str


def train(run: PolicyRun, progress: Progress = quiet) -> None:
    """Read, train, and write policy and log; in every process of a group alike, of which the first one writes."""
    log = train_policy(
        method=load_method(run.method["name"], run.method["params"]),
        start_manifest=run.start,
        tokens=read_table(run.tokens, PAIR_TOKENS),
        reference=read_table(run.reference, REFERENCE),
        margins=read_table(run.margins, MARGINS) if run.margins else None,
        template_hash=run.template,
        frozen_states=run.frozen,
        opt=Optimisation.model_validate(run.training),
        dataset_id=run.dataset,
        model_id=run.model,
        seed=run.seed,
        out_dir=Path(run.out_dir),
        progress=progress,
    )
    if process_index() == 0:
        write_table(log, run.log, TRAIN_LOG)


def launch(run: PolicyRun, count: int, progress: Progress = quiet) -> None:
    """As `train`, in `count` processes of this machine, one for each GPU where there are any (else on the CPU).

    Raises UserError where they cannot share a batch or there are not enough GPUs, and with what a process raised.
    """
    if count == 1:
        return train(run, progress)
    accumulation_steps(Optimisation.model_validate(run.training), count)
    gpus = torch.cuda.device_count()
    if 0 < gpus < count:
        raise UserError(f"training: {count} processes are asked for and {gpus} GPUs are visible; ask for {gpus}")
    with tempfile.TemporaryDirectory() as folder:
        write_json(Path(folder) / "run.json", asdict(run))
        follow([*_torchrun(count), "-m", "marginbench.training.launch", f"{folder}/run.json"], progress)


def _torchrun(count: int) -> list[str]:
    options = ["--nnodes=1", f"--nproc-per-node={count}", "--max-restarts=0"]
    loopback = ["--rdzv-backend=c10d", "--rdzv-endpoint=127.0.0.1:0", "--local-addr=127.0.0.1"]
    return [sys.executable, "-m", "torch.distributed.run", *options, *loopback]


def follow(command: list[str], progress: Progress) -> None:
    """Run a command to its end; marked lines are progress or a user's mistake, which is raised, others are printed.

    Processes that outlive this one end at their next step, when they find nobody to report to.
    """
    interface = "lo" if sys.platform == "linux" else "lo0"
    local = {"GLOO_SOCKET_IFNAME": interface, "NCCL_SOCKET_IFNAME": interface}
    mistake = None
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True, env={**local, **os.environ}) as process:
        try:
            for line in process.stdout:
                if not line.startswith(MARK):
                    print(line, end="", flush=True)
                    continue
                found = json.loads(line.removeprefix(MARK))
                mistake = mistake or found.get("mistake")
                if "progress" in found:
                    progress(*found["progress"])
        except BaseException:
            process.terminate()
            raise
    if mistake:
        raise UserError(mistake)
    if process.returncode:
        raise RuntimeError(f"a training process failed, torchrun ended with code {process.returncode}")


def _tell(**values: Any) -> None:
    sys.stdout.write(f"{MARK}{json.dumps(values)}\n")
    sys.stdout.flush()


def _report(done: int, total: int, note: str = "") -> None:
    _tell(progress=[done, total, note])


def main(path: str) -> None:
    """One process of a group: train, tell the starting process, and end with code 2 on a user's mistake."""
    try:
        train(PolicyRun(**read_json(path)), _report if process_index() == 0 else quiet)
    except UserError as error:
        _tell(mistake=str(error))
        os._exit(2)  # the others may wait for this one, and are ended by torchrun
    if torch.distributed.is_initialized():
        torch.distributed.destroy_process_group()


if __name__ == "__main__":
    main(sys.argv[1])
