"""score_judgments: win rates from annotations, by alpaca-eval's own metrics."""

from marginbench.job import job

with job(f"score_judgments {snakemake.wildcards.method}", snakemake.log[0], snakemake.threads):
    from marginbench.benchmarks.alpaca_eval import score
    from marginbench.data.given_files import given_path
    from marginbench.files import read_json, write_json
    from marginbench.study import parse_benchmark

    benchmark = parse_benchmark(snakemake.wildcards.bench, snakemake.params.benchmark)
    given = [getattr(benchmark, name, None) for name in ("gamed", "difficulty")]
    gamed, difficulty = (given_path(file) if file else None for file in given)
    write_json(snakemake.output.scores, score(read_json(snakemake.input.annotations), gamed, difficulty))
