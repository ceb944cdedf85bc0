"""score_held_out_loss: minus the DPO loss of every pair under policies trained on other prompts."""

from pathlib import Path

from marginbench.job import job

with job(f"score_held_out_loss {snakemake.wildcards.dataset}", snakemake.log[0], snakemake.threads) as progress:
    from marginbench.margins.held_out_loss import score_pairs
    from marginbench.models.loading import load_tokenizer
    from marginbench.models.template import template_hash
    from marginbench.records import MARGINS, PAIR_TOKENS, REFERENCE, read_table, write_table
    from marginbench.study import HeldOutLoss, Optimisation

    inputs, params = snakemake.input, snakemake.params
    margins = score_pairs(
        start_manifest=inputs.start,
        tokens=read_table(inputs.tokens, PAIR_TOKENS),
        reference=read_table(inputs.reference, REFERENCE),
        settings=HeldOutLoss.model_validate(params.held_out["settings"]),
        opt=Optimisation.model_validate(params.held_out["training"]),
        dataset_id=snakemake.wildcards.dataset,
        model_id=snakemake.wildcards.model,
        seed=params.seed,
        template_hash=template_hash(load_tokenizer(inputs.start), params.format),
        frozen_states=inputs.frozen,
        work_dir=Path(snakemake.output.margins).with_suffix(".part"),
        progress=progress,
    )
    write_table(margins, snakemake.output.margins, MARGINS)
