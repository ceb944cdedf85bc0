"""make_table: every method with its interval, its difference to the SFT start and what it cost (csv, md, tex)."""

from marginbench.job import job

with job("make_table", snakemake.log[0], snakemake.threads):
    from marginbench.files import read_json
    from marginbench.records import METRICS, read_table
    from marginbench.reporting.comparison import compare
    from marginbench.reporting.metrics import read_items
    from marginbench.reporting.table import write_tables

    study = snakemake.params.study
    cells = compare(
        read_table(snakemake.input.metrics, METRICS),
        study["confidence"],
        read_items(snakemake.input.per_item),
        study["methods"],
    )
    output = snakemake.output
    write_tables(cells, read_json(snakemake.input.shared), csv=output.csv, md=output.md, tex=output.tex)
