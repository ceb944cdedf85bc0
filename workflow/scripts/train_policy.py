"""train_policy: one method, one seed, from the shared start; reference log-probs come from the cache."""

from pathlib import Path

from marginbench.job import job

name = f"train_policy {snakemake.wildcards.method} seed{snakemake.wildcards.seed}"
with job(name, snakemake.log[0], snakemake.threads) as progress:
    from marginbench.files import write_json
    from marginbench.identity import file_sha256
    from marginbench.methods.registry import load_method
    from marginbench.models.loading import load_tokenizer
    from marginbench.models.manifest import read_manifest
    from marginbench.models.template import template_hash
    from marginbench.records import MARGINS, PAIR_TOKENS, REFERENCE, TRAIN_LOG, read_table, write_table
    from marginbench.spec import build_spec
    from marginbench.study import Optimisation
    from marginbench.training.preference import train_policy

    inputs, params = snakemake.input, snakemake.params
    tokens = read_table(inputs.tokens, PAIR_TOKENS)
    template = template_hash(load_tokenizer(inputs.start), params.format)
    margins = read_table(inputs.margins, MARGINS) if inputs.margins else None
    log = train_policy(
        method=load_method(params.method["name"], params.method["params"]),
        start_manifest=inputs.start,
        tokens=tokens,
        reference=read_table(inputs.reference, REFERENCE),
        margins=margins,
        template_hash=template,
        frozen_states=inputs.frozen,
        opt=Optimisation.model_validate(params.training),
        dataset_id=snakemake.wildcards.dataset,
        model_id=snakemake.wildcards.model,
        seed=int(snakemake.wildcards.seed),
        out_dir=Path(snakemake.output.manifest).parent,
        progress=progress,
    )
    write_table(log, snakemake.output.log, TRAIN_LOG)
    spec = build_spec(
        wildcards=dict(snakemake.wildcards.items()),
        method=params.method,
        training=params.training,
        n_train_pairs=len(tokens),
        inputs={
            "start": read_manifest(inputs.start).weights_hash,
            "tokens": file_sha256(inputs.tokens),
            "reference": file_sha256(inputs.reference),
            **({"margins": file_sha256(inputs.margins)} if inputs.margins else {}),
        },
        template_hash=template,
        code=params.code,
        threads=snakemake.threads,
    )
    write_json(snakemake.output.spec, spec)
