"""score_implicit_reward: the margin of every pair by the implicit reward of one of the study's policies."""

from marginbench.job import job

with job(f"score_implicit_reward {snakemake.wildcards.dataset}", snakemake.log[0], snakemake.threads) as progress:
    from marginbench.margins.implicit_reward import score_pairs
    from marginbench.models.loading import load_tokenizer
    from marginbench.models.template import template_hash
    from marginbench.records import MARGINS, PAIR_TOKENS, REFERENCE, read_table, write_table

    inputs, params = snakemake.input, snakemake.params
    margins = score_pairs(
        inputs.policy,
        read_table(inputs.tokens, PAIR_TOKENS),
        read_table(inputs.reference, REFERENCE),
        **params.implicit,
        template_hash=template_hash(load_tokenizer(inputs.start), params.format),
        progress=progress,
    )
    write_table(margins, snakemake.output.margins, MARGINS)
