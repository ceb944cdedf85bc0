"""sample_candidates: several answers of the SFT start to every training prompt; pairs are made from them."""

from marginbench.job import job

with job(f"sample_candidates {snakemake.wildcards.model}", snakemake.log[0], snakemake.threads) as progress:
    from marginbench.generation.candidates import sample_candidates
    from marginbench.records import CANDIDATES, TEXTS, read_table, write_table
    from marginbench.study import Decoding

    texts = read_table(snakemake.input.texts, TEXTS)
    candidates = sample_candidates(
        snakemake.input.start,
        texts[texts["role"] == "prompt"],
        snakemake.params.format,
        Decoding.model_validate(snakemake.params.decoding),
        seed=snakemake.params.seed,
        progress=progress,
    )
    write_table(candidates, snakemake.output.candidates, CANDIDATES)
