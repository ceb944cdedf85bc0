"""train_reward_model: Bradley-Terry reward model on the labelled pairs, with its accuracy on prompts kept out."""

from pathlib import Path

from marginbench.job import job

with job(f"train_reward_model {snakemake.wildcards.dataset}", snakemake.log[0], snakemake.threads) as progress:
    from marginbench.files import write_json
    from marginbench.records import PAIR_TOKENS, PAIRS, TRAIN_LOG, read_table, write_table
    from marginbench.study import RewardModel
    from marginbench.training.reward_model import train_reward_model

    log, report = train_reward_model(
        start_manifest=snakemake.input.start,
        tokens=read_table(snakemake.input.tokens, PAIR_TOKENS),
        pairs=read_table(snakemake.input.pairs, PAIRS),
        opt=RewardModel.model_validate(snakemake.params.reward_model),
        dataset_id=snakemake.wildcards.dataset,
        model_id=snakemake.wildcards.model,
        seed=snakemake.params.seed,
        out_dir=Path(snakemake.output.manifest).parent,
        progress=progress,
    )
    write_table(log, snakemake.output.log, TRAIN_LOG)
    write_json(snakemake.output.report, report)
