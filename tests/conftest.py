"""Fixtures that several test files share. Nothing heavy is imported before a test asks for it."""

from pathlib import Path

import pytest


@pytest.fixture(scope="session")
def toy_model(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Manifest of a randomly initialised two-layer Llama (seed 0), made once; read it, never write beside it."""
    from marginbench.models.loading import prepare_model
    from marginbench.models.manifest import write_manifest
    from marginbench.study import ToyModel

    folder = tmp_path_factory.mktemp("toy_model")
    facts = prepare_model(ToyModel(source="toy"), folder / "weights", seed=0)
    return write_manifest(folder / "manifest.json", folder / "weights", "model", facts=facts).path
