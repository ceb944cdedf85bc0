"""score_judgments: win rates from annotations, by alpaca-eval's own metrics."""

from marginbench.job import job

with job(f"score_judgments {snakemake.wildcards.method}", snakemake.log[0], snakemake.threads):
    from marginbench.benchmarks.alpaca_eval import score
    from marginbench.files import read_json, write_json

    write_json(snakemake.output.scores, score(read_json(snakemake.input.annotations)))
