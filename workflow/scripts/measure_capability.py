"""measure_capability: lm-eval tasks on a run's policy; per-sample values are kept for paired tests."""

from pathlib import Path

from marginbench.job import job

name = f"measure_capability {snakemake.wildcards.method} seed{snakemake.wildcards.seed}"
with job(name, snakemake.log[0], snakemake.threads) as progress:
    from marginbench.capability.run import run_tasks
    from marginbench.files import write_json
    from marginbench.records import TEXTS, read_table
    from marginbench.study import Capability

    texts = read_table(snakemake.input.texts, TEXTS)
    results = run_tasks(
        snakemake.input.policy,
        Capability.model_validate(snakemake.params.capability),
        texts[texts["role"] == "perplexity"],
        snakemake.params.format,
        progress=progress,
    )
    for task, result in results.items():
        write_json(Path(snakemake.output.capability) / f"{task}.json", result)
