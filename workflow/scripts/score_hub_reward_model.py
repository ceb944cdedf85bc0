"""score_hub_reward_model: the margin of every pair by a reward model that was trained elsewhere."""

from marginbench.job import job

with job(f"score_hub_reward_model {snakemake.wildcards.dataset}", snakemake.log[0], snakemake.threads) as progress:
    from marginbench.margins.hub_reward_model import score_pairs
    from marginbench.records import MARGINS, PAIR_TOKENS, PAIRS, read_table, write_table
    from marginbench.study import parse_reward_model

    margins = score_pairs(
        parse_reward_model(snakemake.params.reward_model),
        read_table(snakemake.input.pairs, PAIRS),
        read_table(snakemake.input.tokens, PAIR_TOKENS),
        format=snakemake.params.format,
        sanity=snakemake.input.sanity,
        progress=progress,
    )
    write_table(margins, snakemake.output.margins, MARGINS)
