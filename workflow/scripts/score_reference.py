"""score_reference: log-probabilities of every pair under the frozen start, once for all methods and seeds."""

from marginbench.job import job

with job(f"score_reference {snakemake.wildcards.dataset}", snakemake.log[0], snakemake.threads) as progress:
    from marginbench.models.loading import load_model, load_tokenizer
    from marginbench.models.manifest import read_manifest
    from marginbench.models.template import template_hash
    from marginbench.records import PAIR_TOKENS, REFERENCE, read_table, write_table
    from marginbench.training.reference import compute_reference

    tokenizer = load_tokenizer(snakemake.input.start)
    reference = compute_reference(
        load_model(snakemake.input.start),
        read_table(snakemake.input.tokens, PAIR_TOKENS),
        max_length=snakemake.params.reference["max_length"],
        precision=snakemake.params.reference["precision"],
        batch_size=16,
        model_hash=read_manifest(snakemake.input.start).weights_hash,
        template_hash=template_hash(tokenizer, snakemake.params.format),
        pad_id=tokenizer.pad_token_id,
        progress=progress,
    )
    write_table(reference, snakemake.output.reference, REFERENCE)
