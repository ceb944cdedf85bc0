# Aggregation: the long table of metrics, the paper's table, the figures.
# In: every run's scores.
# Out: metrics.{parquet,csv}, wide.csv, timings.csv, shared.json, table.{csv,md,tex}, claims.csv, figures/.


rule collect_metrics:
    input:
        unpack(PLAN.shared_inputs),
        runs=PLAN.run_inputs,
    output:
        metrics="<study>/metrics.parquet",
        csv=report("<study>/metrics.csv", category="Metrics", caption="../report/metrics.rst"),
        wide=report("<study>/wide.csv", category="Metrics", caption="../report/wide.rst"),
        per_item="<study>/items.parquet",
        shared="<study>/shared.json",
        timings="<study>/timings.csv",
    log:
        "logs/{study}/collect_metrics.log",
    benchmark:
        "<study>/benchmarks/collect_metrics.jsonl"
    conda:
        "../../envs/report.yaml"
    resources:
        mem_mb=1000,
    params:
        runs=PLAN.study_runs,
        study=PLAN.table_params,
        code=PLAN.code("collect_metrics"),
    message:
        "Collecting the metrics of {wildcards.study}"
    script:
        "../scripts/collect_metrics.py"


rule make_table:
    input:
        metrics="<study>/metrics.parquet",
        per_item="<study>/items.parquet",
        shared="<study>/shared.json",
    output:
        csv="<study>/table.csv",
        claims=report("<study>/claims.csv", category="Tables", caption="../report/claims.rst"),
        md=report("<study>/table.md", category="Tables", caption="../report/table.rst"),
        tex="<study>/table.tex",
    log:
        "logs/{study}/make_table.log",
    benchmark:
        "<study>/benchmarks/make_table.jsonl"
    conda:
        "../../envs/report.yaml"
    resources:
        mem_mb=1000,
    params:
        study=PLAN.table_params,
        claims=PLAN.claims_params,
        code=PLAN.code("make_table"),
    message:
        "Making the table of {wildcards.study}"
    script:
        "../scripts/make_table.py"


rule plot_figures:
    input:
        metrics="<study>/metrics.parquet",
        per_item="<study>/items.parquet",
        logs=PLAN.train_logs,
    output:
        learning_curves=report(
            "<study>/figures/learning_curves.png",
            category="Figures",
            caption="../report/learning_curves.rst",
        ),
        learning_curves_pdf="<study>/figures/learning_curves.pdf",
        reward_kl=report(
            "<study>/figures/reward_kl.png",
            category="Figures",
            caption="../report/reward_kl.rst",
        ),
        reward_kl_pdf="<study>/figures/reward_kl.pdf",
    log:
        "logs/{study}/plot_figures.log",
    benchmark:
        "<study>/benchmarks/plot_figures.jsonl"
    conda:
        "../../envs/report.yaml"
    resources:
        mem_mb=1000,
    params:
        study=PLAN.table_params,
        runs=PLAN.study_runs,
        code=PLAN.code("plot_figures"),
    message:
        "Drawing the figures of {wildcards.study}"
    script:
        "../scripts/plot_figures.py"


rule plot_margins:
    input:
        margins=PLAN.margin_files,
    output:
        margins=report(
            "<study>/figures/margins.png",
            category="Figures",
            caption="../report/margins.rst",
        ),
        margins_pdf="<study>/figures/margins.pdf",
    log:
        "logs/{study}/plot_margins.log",
    benchmark:
        "<study>/benchmarks/plot_margins.jsonl"
    conda:
        "../../envs/report.yaml"
    resources:
        mem_mb=1000,
    params:
        code=PLAN.code("plot_margins"),
    message:
        "Drawing the margins of {wildcards.study}"
    script:
        "../scripts/plot_margins.py"
