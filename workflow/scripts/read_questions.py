"""read_questions: the questions of a benchmark in one shape, with its baseline's answers and references."""

from marginbench.job import job

with job(f"read_questions {snakemake.wildcards.bench}", snakemake.log[0], snakemake.threads):
    from marginbench.benchmarks.questions import read_questions
    from marginbench.files import write_jsonl
    from marginbench.study import parse_benchmark

    benchmark = parse_benchmark(snakemake.wildcards.bench, snakemake.params.benchmark)
    write_jsonl(snakemake.output.questions, read_questions(benchmark))
