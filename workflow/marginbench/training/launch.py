"""One policy trained from files: in this process, or by several that share its batches.

Several processes on one machine are started by `launch`. On several machines start torchrun or accelerate by hand:
`torchrun ... -m marginbench.training.launch RUN.json`, where RUN.json holds the fields of `PolicyRun`.
"""

import json
import os
import subprocess
import sys
import tempfile
import threading
import time
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import torch

from marginbench.errors import UserError
from marginbench.files import read_json, write_json, write_text
from marginbench.job import Progress, quiet
from marginbench.methods.registry import load_method
from marginbench.records import MARGINS, PAIR_TOKENS, REFERENCE, TRAIN_LOG, read_table, write_table
from marginbench.study import Optimisation
from marginbench.training.optimisation import accumulation_steps, process_index, processes
from marginbench.training.preference import train_policy

MEETING = "MARGINBENCH_MEETING"
"""Environment variable with the folder in which the processes of a group meet, and tell what `start` is to know."""

PAUSE = 0.2
"""Seconds between two looks at the processes."""


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
        start([sys.executable, "-m", "marginbench.training.launch", f"{folder}/run.json"], count, progress)


def start(command: list[str], count: int, progress: Progress = quiet) -> None:
    """Run a command `count` times side by side, as the processes of one group, until all have ended or one has failed.

    They are told who they are by the variables that torchrun sets, and meet (`meet`) through a file and the loopback
    interface: nothing listens to other machines, as torchrun's own store would. Raises UserError with the mistake that
    one of them told, and RuntimeError where one failed otherwise.
    """
    interface = "lo" if sys.platform == "linux" else "lo0"
    local = {"GLOO_SOCKET_IFNAME": interface, "NCCL_SOCKET_IFNAME": interface, "WORLD_SIZE": str(count)}
    with tempfile.TemporaryDirectory() as folder:
        told, read = Path(folder) / "told", 0
        told.touch()
        environment = {**os.environ, **local, "LOCAL_WORLD_SIZE": str(count), MEETING: folder}
        group = [
            subprocess.Popen(command, env={**environment, "RANK": str(rank), "LOCAL_RANK": str(rank)})
            for rank in range(count)
        ]
        try:
            while True:
                ended = [process.poll() for process in group]
                lines = told.read_text(encoding="utf-8").rpartition("\n")[0].splitlines()
                for line in lines[read:]:
                    progress(*json.loads(line))
                read = len(lines)
                if any(ended) or None not in ended:  # a code that is not 0, or all codes
                    break
                time.sleep(PAUSE)
        finally:  # where one has failed the others wait for it in vain
            for process in group:
                process.kill()
                process.wait()
        mistake = Path(folder) / "mistake"
        if mistake.exists():
            raise UserError(mistake.read_text(encoding="utf-8"))
        if any(ended):
            raise RuntimeError(f"a training process failed, the processes ended with codes {ended}")


def meet() -> None:
    """Join the group that `start` made; under torchrun or accelerate, whose group is made later, nothing."""
    if MEETING in os.environ:
        threading.Thread(target=_exit_with_parent, args=(os.getppid(),), daemon=True).start()
        backend = "nccl" if torch.cuda.is_available() else "gloo"
        if backend == "nccl":
            torch.cuda.set_device(int(os.environ["LOCAL_RANK"]))
        store = f"file://{os.environ[MEETING]}/store"
        torch.distributed.init_process_group(backend, init_method=store, rank=process_index(), world_size=processes())


def _exit_with_parent(parent: int) -> None:
    """End this process when its parent has gone: a killed run must not go on training beside its successor."""
    while os.getppid() == parent:
        time.sleep(PAUSE)
    os._exit(1)


def _report(done: int, total: int, note: str = "") -> None:
    with open(Path(os.environ[MEETING]) / "told", "a", encoding="utf-8") as told:
        told.write(json.dumps([done, total, note]) + "\n")


def main(path: str) -> None:
    """One process of a group: train, and end with code 2 on a user's mistake."""
    started = MEETING in os.environ
    try:
        meet()
        train(PolicyRun(**read_json(path)), _report if started and process_index() == 0 else quiet)
    except UserError as error:
        if not started:
            raise
        write_text(Path(os.environ[MEETING]) / "mistake", str(error))
        os._exit(2)  # the others may wait for this one, and are ended by `start`
    if torch.distributed.is_initialized():
        torch.distributed.destroy_process_group()


if __name__ == "__main__":
    main(sys.argv[1])
