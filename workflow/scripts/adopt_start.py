"""adopt_start: the SFT start as a run of its own, the baseline that every method is compared with."""

from marginbench.job import job

with job(f"adopt_start seed{snakemake.wildcards.seed}", snakemake.log[0], snakemake.threads):
    from marginbench.files import write_json
    from marginbench.models.loading import load_tokenizer
    from marginbench.models.manifest import read_manifest, write_manifest
    from marginbench.models.template import template_hash
    from marginbench.spec import build_spec
    from marginbench.study import START

    start = read_manifest(snakemake.input.start)
    write_manifest(snakemake.output.manifest, start.weights_dir, start.kind, facts={"start": start.weights_hash})
    spec = build_spec(
        wildcards=dict(snakemake.wildcards.items()),
        method={"name": START, "params": {}},
        training=None,
        n_train_pairs=0,
        inputs={"start": start.weights_hash},
        template_hash=template_hash(load_tokenizer(snakemake.input.start), snakemake.params.format),
        code=snakemake.params.code,
        threads=snakemake.threads,
    )
    write_json(snakemake.output.spec, spec)
