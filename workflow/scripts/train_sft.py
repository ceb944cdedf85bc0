"""train_sft: the SFT start, from which every method and the reward model begin."""

from pathlib import Path

from marginbench.job import job

with job(f"train_sft {snakemake.wildcards.model}", snakemake.log[0], snakemake.threads) as progress:
    from marginbench.records import TEXTS, TRAIN_LOG, read_table, write_table
    from marginbench.study import Optimisation
    from marginbench.training.sft import train_sft

    texts = read_table(snakemake.input.texts, TEXTS)
    log = train_sft(
        model_manifest=snakemake.input.model,
        texts=texts[texts["role"] == "sft"],
        format=snakemake.params.format,
        opt=Optimisation.model_validate(snakemake.params.sft),
        corpus_id=snakemake.wildcards.corpus,
        model_id=snakemake.wildcards.model,
        seed=snakemake.params.seed,
        out_dir=Path(snakemake.output.manifest).parent,
        progress=progress,
    )
    write_table(log, snakemake.output.log, TRAIN_LOG)
