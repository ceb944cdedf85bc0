"""train_policy: one method, one seed, from the shared start; reference log-probs come from the cache."""

from pathlib import Path

from marginbench.job import job

name = f"train_policy {snakemake.wildcards.method} seed{snakemake.wildcards.seed}"
with job(name, snakemake.log[0], snakemake.threads) as progress:
    from marginbench.files import write_json
    from marginbench.identity import file_sha256
    from marginbench.models.loading import load_tokenizer
    from marginbench.models.manifest import read_manifest
    from marginbench.models.template import template_hash
    from marginbench.spec import build_spec
    from marginbench.training.launch import PolicyRun, launch

    inputs, params = snakemake.input, snakemake.params
    template = template_hash(load_tokenizer(inputs.start), params.format)
    processes = max(1, snakemake.resources.gpu)  # one for each GPU
    run = PolicyRun(
        method=params.method,
        training=params.training,
        start=inputs.start,
        tokens=inputs.tokens,
        reference=inputs.reference,
        margins=inputs.margins or None,
        frozen=inputs.frozen,
        template=template,
        dataset=snakemake.wildcards.dataset,
        model=snakemake.wildcards.model,
        seed=int(snakemake.wildcards.seed),
        out_dir=str(Path(snakemake.output.manifest).parent),
        log=snakemake.output.log,
    )
    launch(run, processes, progress)
    spec = build_spec(
        wildcards=dict(snakemake.wildcards.items()),
        method=params.method,
        training=params.training,
        n_train_pairs=read_manifest(snakemake.output.manifest).facts["plan"]["pairs"],
        inputs={
            "start": read_manifest(inputs.start).weights_hash,
            "tokens": file_sha256(inputs.tokens),
            "reference": file_sha256(inputs.reference),
            **({"margins": file_sha256(inputs.margins)} if inputs.margins else {}),
        },
        template_hash=template,
        code=params.code,
        threads=snakemake.threads,
        processes=processes,
    )
    write_json(snakemake.output.spec, spec)
