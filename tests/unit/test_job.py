"""What a script's work is wrapped in: log, progress on the terminal, one-line errors, exit codes."""

import subprocess
import sys


def run(body: str, tmp_path) -> subprocess.CompletedProcess[str]:
    code = f"from marginbench.job import job\nwith job('work', r'{tmp_path}/work.log', 1) as progress:\n    {body}\n"
    return subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False)


def test_chatter_goes_to_the_log_and_the_end_to_the_terminal(tmp_path):
    result = run("print('chatter'); progress(1, 2, 'half')", tmp_path)
    assert result.returncode == 0
    assert "chatter" in (tmp_path / "work.log").read_text()
    assert "chatter" not in result.stdout + result.stderr
    assert "work  done in 0:0" in result.stderr


def test_a_users_mistake_is_one_line(tmp_path):
    result = run("from marginbench.errors import UserError; raise UserError('beta is wrong; mend it')", tmp_path)
    assert result.returncode == 2
    assert result.stderr == "marginbench: work: error: beta is wrong; mend it\n"


def test_any_other_error_keeps_its_traceback_in_the_log(tmp_path):
    result = run("raise ValueError('surprise')", tmp_path)
    assert result.returncode == 1
    assert result.stderr.startswith("marginbench: work: ValueError: surprise (traceback: ")
    assert "Traceback" not in result.stderr
    assert "Traceback" in (tmp_path / "work.log").read_text()


def test_threads_are_fixed_before_torch_is_imported(tmp_path):
    result = run("import os, sys; assert os.environ['OMP_NUM_THREADS'] == '1' and 'torch' not in sys.modules", tmp_path)
    assert result.returncode == 0, result.stderr
