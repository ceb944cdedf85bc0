"""What every workflow script does around its one call: threads, offline mode, log file, progress, errors of users."""

import os
import sys
import time
import traceback
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

from marginbench.errors import UserError

Progress = Callable[[int, int, str], None]
"""`progress(done, total, note)`: called as often as the work likes; the terminal is written to every few seconds."""


def quiet(done: int, total: int, note: str = "") -> None:
    """A progress that says nothing: the default of every library function."""


def limit_threads(threads: int) -> None:
    """Fix the number of compute threads. Call before torch or numpy is imported: it is part of a run's identity."""
    for name in ("OMP_NUM_THREADS", "MKL_NUM_THREADS", "OPENBLAS_NUM_THREADS"):
        os.environ[name] = str(threads)
    os.environ.setdefault("TOKENIZERS_PARALLELISM", "false")
    if "torch" in sys.modules:
        sys.modules["torch"].set_num_threads(threads)


def _clock(seconds: float) -> str:
    return f"{int(seconds) // 60}:{int(seconds) % 60:02d}"


def terminal_progress(name: str, every: float = 5.0) -> Progress:
    """A progress that prints `name  12/48  loss 0.61  0:24 elapsed, 1:12 left` to the terminal every few seconds."""
    start = time.monotonic()
    last = start
    terminal = os.fdopen(os.dup(2), "w", buffering=1)

    def report(done: int, total: int, note: str = "") -> None:
        nonlocal last
        now = time.monotonic()
        if done >= total or now - last < every:
            return
        last = now
        elapsed = now - start
        left = f", {_clock(elapsed / done * (total - done))} left" if done else ""
        terminal.write(f"  {name}  {done}/{total}  {note + '  ' if note else ''}{_clock(elapsed)} elapsed{left}\n")

    return report


@contextmanager
def job(name: str, log: str | Path, threads: int = 1) -> Iterator[Progress]:
    """Run one script's work: everything printed goes to the log, the terminal gets progress and one-line errors.

    A UserError ends the process with exit code 2 and one line; any other error with exit code 1, one line and the
    traceback in the log.
    """
    limit_threads(threads)
    os.environ.setdefault("HF_HUB_DISABLE_TELEMETRY", "1")
    os.environ.setdefault("MPLBACKEND", "Agg")
    progress = terminal_progress(name)
    terminal = os.fdopen(os.dup(2), "w", buffering=1)
    Path(log).parent.mkdir(parents=True, exist_ok=True)
    log_file = open(log, "w", buffering=1, encoding="utf-8")  # noqa: SIM115 - stays open until the process ends
    sys.stdout.flush()
    sys.stderr.flush()
    os.dup2(log_file.fileno(), 1)
    os.dup2(log_file.fileno(), 2)
    start = time.monotonic()
    try:
        yield progress
        terminal.write(f"  {name}  done in {_clock(time.monotonic() - start)}\n")
    except UserError as error:
        log_file.write(f"error: {error}\n")
        terminal.write(f"marginbench: {name}: error: {error}\n")
        terminal.flush()
        os._exit(2)
    except Exception as error:
        traceback.print_exc(file=log_file)
        first_line = (str(error).splitlines() or [""])[0]
        terminal.write(f"marginbench: {name}: {type(error).__name__}: {first_line} (traceback: {log})\n")
        terminal.flush()
        os._exit(1)
