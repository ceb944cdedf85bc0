"""score_dataset_ratings: the margin of every pair by the ratings that come with the data."""

from marginbench.job import job

with job(f"score_dataset_ratings {snakemake.wildcards.dataset}", snakemake.log[0], snakemake.threads):
    from marginbench.margins.dataset_ratings import score_pairs
    from marginbench.records import MARGINS, PAIRS, read_table, write_table

    write_table(score_pairs(read_table(snakemake.input.pairs, PAIRS)), snakemake.output.margins, MARGINS)
