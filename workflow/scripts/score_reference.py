"""score_reference: log-probabilities of every pair under the frozen start, once for all methods and seeds.

The same pass keeps the hidden states under the blocks that adapters will train, so that no run computes them again.
"""

from contextlib import nullcontext

from marginbench.job import job

with job(f"score_reference {snakemake.wildcards.dataset}", snakemake.log[0], snakemake.threads) as progress:
    from marginbench.models.loading import load_model, load_tokenizer
    from marginbench.models.manifest import read_manifest
    from marginbench.models.template import template_hash
    from marginbench.records import PAIR_TOKENS, REFERENCE, read_table, write_table
    from marginbench.training.frozen import fits, frozen_blocks, save_states
    from marginbench.training.reference import answer_sequences, compute_reference

    settings = snakemake.params.reference
    tokens = read_table(snakemake.input.tokens, PAIR_TOKENS)
    tokenizer, model = load_tokenizer(snakemake.input.start), load_model(snakemake.input.start)
    model_hash = read_manifest(snakemake.input.start).weights_hash
    frozen = frozen_blocks(model, settings["last_layers"], settings["precision"])
    frozen = frozen if frozen and fits(model, answer_sequences(tokens)) else None
    with frozen.watch() if frozen else nullcontext():
        reference = compute_reference(
            model,
            tokens,
            max_length=settings["max_length"],
            precision=settings["precision"],
            batch_size=16,
            model_hash=model_hash,
            template_hash=template_hash(tokenizer, snakemake.params.format),
            pad_id=tokenizer.pad_token_id,
            progress=progress,
        )
    write_table(reference, snakemake.output.reference, REFERENCE)
    save_states(frozen, snakemake.output.frozen, model_hash)
