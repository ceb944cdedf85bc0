# marginbench: one DAG from raw text to tables. `snakemake` alone runs the quickstart study; `snakemake --list` shows
# the targets. What is compared stands in config.yaml and studies/; where it runs stands in profiles/.
import sys
from pathlib import Path

from snakemake.utils import min_version

min_version("9.12")

ROOT = Path(workflow.basedir)
sys.path.insert(0, str(ROOT / "workflow"))

from marginbench.dag.plan import make_plan
from marginbench.errors import UserError


configfile: "config.yaml"


pathvars:
    study="results/{study}",
    corpus="results/{study}/corpora/{corpus}",
    start="results/{study}/corpora/{corpus}/{model}/{shared}",
    cell="results/{study}/{dataset}/{model}/{shared}",
    run="results/{study}/{dataset}/{model}/{method}/seed{seed}",
    trained_run="results/{study}/{dataset}/{model}/{method,(?!sft_start/)[a-z0-9_]+}/seed{seed}",
    start_run="results/{study}/{dataset}/{model}/{method,sft_start}/seed{seed}",


try:
    PLAN = make_plan(config, ROOT, "results")
except UserError as error:
    print(f"marginbench: error: {error}", file=sys.stderr)
    sys.exit(2)


include: "workflow/rules/common.smk"
include: "workflow/rules/data.smk"
include: "workflow/rules/start.smk"
include: "workflow/rules/margins.smk"
include: "workflow/rules/train.smk"
include: "workflow/rules/online.smk"
include: "workflow/rules/generate.smk"
include: "workflow/rules/judge.smk"
include: "workflow/rules/capability.smk"
include: "workflow/rules/report.smk"


rule all:
    default_target: True
    input:
        study_results("quickstart"),
    localrule: True


for NAME in PLAN.studies:

    rule:
        name:
            NAME
        input:
            study_results(NAME),
        localrule: True
