"""What a run keeps of its finished rounds: one folder each, there whole or not at all."""

import shutil
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import pandas as pd
from safetensors.torch import load_file, save_file
from torch import Tensor

from marginbench.errors import UserError
from marginbench.files import atomic_folder, read_json, write_json
from marginbench.records import Table, read_table, write_table

MARK, TENSORS = "state.json", "state.safetensors"


class RoundFolders:
    """The folders of a run's rounds, numbered from 0 (the start).

    Tables stay in every folder; tensors (adapter and optimiser) only in the last, from which a run is taken up. A
    folder appears by one rename, so a round is finished or has never been.

    Args:
        folder: where they lie; emptied when it holds another run's.
        run_key: hash of everything that the run depends on.
    """

    def __init__(self, folder: str | Path, run_key: str) -> None:
        self.folder, self.run_key = Path(folder), run_key
        marks = sorted(self.folder.glob(f"[0-9]*/{MARK}"))
        if any(read_json(mark)["run_key"] != run_key for mark in marks):
            shutil.rmtree(self.folder)

    def finished(self) -> int | None:
        """Number of the last finished round; None before the start is. Raises UserError on a gap."""
        found = sorted(int(mark.parent.name) for mark in self.folder.glob(f"[0-9]*/{MARK}"))
        if found != list(range(len(found))):
            raise UserError(f"{self.folder}: rounds are missing among {len(found)} folders; delete it and run again")
        return found[-1] if found else None

    def path(self, number: int) -> Path:
        """Folder of a round."""
        return self.folder / f"{number:05d}"

    def write(
        self,
        number: int,
        tables: Sequence[tuple[Table, pd.DataFrame]],
        tensors: Mapping[str, Tensor],
        facts: Mapping[str, Any],
    ) -> None:
        """Keep a finished round, then drop the tensors of the one before."""
        with atomic_folder(self.path(number)) as temporary:
            for table, frame in tables:
                write_table(frame, temporary / f"{table.name}.parquet", table)
            if tensors:
                save_file({name: value.contiguous() for name, value in tensors.items()}, temporary / TENSORS)
            write_json(temporary / MARK, {"run_key": self.run_key, **facts})
        if number:
            (self.path(number - 1) / TENSORS).unlink(missing_ok=True)

    def tensors(self, number: int) -> dict[str, Tensor]:
        """Tensors of the last finished round."""
        file = self.path(number) / TENSORS
        if not file.is_file():
            raise UserError(f"{file}: is missing; delete {self.folder} and run again")
        return load_file(file)

    def facts(self, number: int) -> dict[str, Any]:
        """Facts of any finished round."""
        return read_json(self.path(number) / MARK)

    def table(self, table: Table, last: int) -> pd.DataFrame:
        """The rows of all rounds up to the last, in order."""
        files = [self.path(number) / f"{table.name}.parquet" for number in range(last + 1)]
        frames = [read_table(file, table) for file in files if file.is_file()]
        frames = [frame for frame in frames if len(frame)]
        if not frames:
            return pd.DataFrame(columns=list(table.columns))
        return pd.concat(frames, ignore_index=True)

    def remove(self) -> None:
        """Drop all folders, when the results are written."""
        shutil.rmtree(self.folder, ignore_errors=True)
