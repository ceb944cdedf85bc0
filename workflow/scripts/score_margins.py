"""score_margins: the signed margin of every pair under one scorer."""

from marginbench.job import job

with job(f"score_margins {snakemake.wildcards.scorer}", snakemake.log[0], snakemake.threads) as progress:
    from marginbench.records import MARGINS, PAIR_TOKENS, PAIRS, read_table, write_table

    if snakemake.wildcards.scorer == "reward_model":
        from marginbench.margins.reward_model import score_pairs

        tokens = read_table(snakemake.input.tokens, PAIR_TOKENS)
        margins = score_pairs(snakemake.input.reward_model, tokens, batch_size=32, progress=progress)
    else:
        from marginbench.margins.dataset_ratings import score_pairs

        margins = score_pairs(read_table(snakemake.input.pairs, PAIRS))
    write_table(margins, snakemake.output.margins, MARGINS)
