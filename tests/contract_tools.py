"""Running a contract suite on one added file, as somebody who adds a method or a strategy would."""

import os
import subprocess
import sys
from pathlib import Path

SUITES = Path(__file__).resolve().parent / "contract"


def run_contract(suite: str, name: str, variable: str, folder: Path) -> subprocess.CompletedProcess[str]:
    """The cases of `suite` that `name`, found in `folder` through the environment's `variable`, is part of."""
    command = [sys.executable, "-m", "pytest", "-q", "-p", "no:cacheprovider", "-k", name, str(SUITES / suite)]
    return subprocess.run(
        command, env={**os.environ, variable: str(folder)}, capture_output=True, text=True, check=False
    )
