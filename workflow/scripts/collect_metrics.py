"""collect_metrics: the long table of a study, what its methods share, and what it took."""

from pathlib import Path

from marginbench.job import job

with job("collect_metrics", snakemake.log[0], snakemake.threads):
    from marginbench.files import write_json
    from marginbench.reporting.metrics import (
        collect_items,
        collect_metrics,
        run_files,
        write_csv,
        write_items,
        write_metrics,
    )
    from marginbench.reporting.shared import collect_shared
    from marginbench.reporting.timings import collect_timings
    from marginbench.reporting.wide import widen

    runs = [run_files(record) for record in snakemake.params.runs]
    shared = collect_shared(
        snakemake.wildcards.study,
        snakemake.params.study,
        pairs=snakemake.input.pairs,
        reward_models=snakemake.input.reward_models,
        margins=snakemake.input.margins,
        classifiers=snakemake.input.classifiers,
        scores=[path for record in snakemake.params.runs for path in record["scores"].values()],
    )
    benchmarks = Path(snakemake.output.timings).parent / "benchmarks"
    metrics = collect_metrics(runs)
    write_metrics(metrics, snakemake.output.metrics, snakemake.output.csv)
    write_csv(widen(metrics, snakemake.params.study["methods"]), snakemake.output.wide)
    write_items(collect_items(runs), snakemake.output.per_item)
    write_json(snakemake.output.shared, shared)
    write_csv(collect_timings(benchmarks.rglob("*.jsonl"), root=benchmarks), snakemake.output.timings)
