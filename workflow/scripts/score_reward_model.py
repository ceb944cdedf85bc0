"""score_reward_model: the margin of every pair by the study's own reward model."""

from marginbench.job import job

with job(f"score_reward_model {snakemake.wildcards.dataset}", snakemake.log[0], snakemake.threads) as progress:
    from marginbench.margins.reward_model import score_pairs
    from marginbench.records import MARGINS, PAIR_TOKENS, read_table, write_table

    tokens = read_table(snakemake.input.tokens, PAIR_TOKENS)
    margins = score_pairs(snakemake.input.reward_model, tokens, batch_size=32, progress=progress)
    write_table(margins, snakemake.output.margins, MARGINS)
