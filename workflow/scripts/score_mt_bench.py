"""score_mt_bench: mean ratings by turn, with an error clustered by question, from judgments in FastChat's format."""

from marginbench.job import job

with job(f"score_mt_bench {snakemake.wildcards.method}", snakemake.log[0], snakemake.threads):
    from marginbench.benchmarks.mt_bench_files import read_judgments
    from marginbench.benchmarks.mt_bench_scores import score_run
    from marginbench.files import write_json

    write_json(snakemake.output.scores, score_run(list(read_judgments(snakemake.input.official))))
