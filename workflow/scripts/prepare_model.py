"""prepare_model: a model from its source to safetensors on disk, described by a small manifest."""

from pathlib import Path

from marginbench.job import job

with job(f"prepare_model {snakemake.params.name}", snakemake.log[0], snakemake.threads) as progress:
    from marginbench.models.loading import prepare_model
    from marginbench.models.manifest import write_manifest
    from marginbench.study import parse_model

    spec = parse_model(snakemake.params.model)
    weights = Path(snakemake.output.manifest).parent / "weights"
    facts = prepare_model(spec, weights, seed=0, progress=progress)
    write_manifest(snakemake.output.manifest, weights, "model", facts=facts)
