"""plot_margins: a histogram of the margins of every scorer, and how the scorers agree."""

from marginbench.job import job

with job("plot_margins", snakemake.log[0], snakemake.threads):
    from marginbench.reporting.margins import plot_margins

    plot_margins(snakemake.input.margins, [snakemake.output.margins, snakemake.output.margins_pdf])
