"""make_table: every method with its interval, its difference to the SFT start, and which differences are claimed."""

from marginbench.job import job

with job("make_table", snakemake.log[0], snakemake.threads):
    from marginbench.files import read_json
    from marginbench.records import METRICS, read_table
    from marginbench.reporting.claims import collect_claims
    from marginbench.reporting.comparison import compare
    from marginbench.reporting.metrics import read_items
    from marginbench.reporting.table import write_tables

    study, output = snakemake.params.study, snakemake.output
    metrics = read_table(snakemake.input.metrics, METRICS)
    items = read_items(snakemake.input.per_item)
    write_tables(
        compare(metrics, study["confidence"], items, study["methods"]),
        read_json(snakemake.input.shared),
        collect_claims(metrics, items, snakemake.params.claims),
        csv=output.csv,
        claims_csv=output.claims,
        md=output.md,
        tex=output.tex,
    )
