"""score_judgments: win rates from annotations, by alpaca-eval's own metrics."""

from marginbench.job import job

with job(f"score_judgments {snakemake.wildcards.method}", snakemake.log[0], snakemake.threads):
    from marginbench.files import read_json, write_json
    from marginbench.judging.alpaca_eval import score

    write_json(snakemake.output.scores, score(read_json(snakemake.input.annotations)))
