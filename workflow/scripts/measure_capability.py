"""measure_capability: lm-eval tasks on a run's policy; per-sample values are kept for paired tests.

The start's check keeps the hidden states under the blocks that adapters train; a policy's check begins from them.
"""

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
        start_rows=snakemake.input.get("start_rows"),
        keep_rows=(rows, snakemake.params.last_layers) if (rows := snakemake.output.get("rows")) else None,
    )
    for task, result in results.items():
        write_json(Path(snakemake.output.capability) / f"{task}.json", result)
