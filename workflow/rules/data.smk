# Data. From a corpus (reviews, a local file, a hub dataset) to texts with roles, classifiers, and preference pairs.
# In: the user's file or a package. Out: texts.parquet, classifiers/, pairs.parquet, pair_tokens.parquet.
# Steps: read_corpus -> fit_classifiers; make_pairs (from candidates or the corpus) -> tokenise_pairs.


rule read_corpus:
    input:
        unpack(PLAN.corpus_file),
    output:
        texts="<corpus>/texts.parquet",
        report="<corpus>/texts.json",
    log:
        "logs/{study}/read_corpus/{corpus}.log",
    benchmark:
        "<study>/benchmarks/read_corpus/{corpus}.jsonl"
    conda:
        "../../envs/train.yaml"
    resources:
        mem_mb=1500,
    params:
        corpus=PLAN.corpus_params,
        code=PLAN.code("read_corpus"),
    message:
        "Reading corpus {wildcards.corpus}"
    script:
        "../scripts/read_corpus.py"


rule fit_classifiers:
    input:
        unpack(PLAN.corpus_file),
    output:
        ground_truth="<corpus>/classifiers/ground_truth.npz",
        judge="<corpus>/classifiers/judge.npz",
        report="<corpus>/classifiers/report.json",
    log:
        "logs/{study}/fit_classifiers/{corpus}.log",
    benchmark:
        "<study>/benchmarks/fit_classifiers/{corpus}.jsonl"
    conda:
        "../../envs/train.yaml"
    resources:
        mem_mb=2000,
    params:
        corpus=PLAN.corpus_params,
        code=PLAN.code("fit_classifiers"),
    message:
        "Fitting the ground truth and the independent judge of {wildcards.corpus}"
    script:
        "../scripts/fit_classifiers.py"


rule make_pairs:
    input:
        unpack(PLAN.pair_sources),
    output:
        pairs="<cell>/pairs.parquet",
        report="<cell>/pairs.json",
    log:
        "logs/{study}/make_pairs/{dataset}-{model}-{shared}.log",
    benchmark:
        "<study>/benchmarks/make_pairs/{dataset}-{model}-{shared}.jsonl"
    conda:
        "../../envs/train.yaml"
    resources:
        mem_mb=1500,
    params:
        corpus=PLAN.corpus_params,
        dataset=PLAN.dataset_params,
        holdout_fraction=PLAN.holdout_fraction,
        seed=PLAN.shared_seed("data"),
        code=PLAN.code("make_pairs"),
    message:
        "Making the preference pairs of {wildcards.dataset}"
    script:
        "../scripts/make_pairs.py"


rule tokenise_pairs:
    input:
        pairs="<cell>/pairs.parquet",
        start=PLAN.start_manifest,
    output:
        tokens="<cell>/pair_tokens.parquet",
        report="<cell>/pair_tokens.json",
    log:
        "logs/{study}/tokenise_pairs/{dataset}-{model}-{shared}.log",
    benchmark:
        "<study>/benchmarks/tokenise_pairs/{dataset}-{model}-{shared}.jsonl"
    conda:
        "../../envs/train.yaml"
    resources:
        mem_mb=1500,
    params:
        format=PLAN.format,
        max_length=PLAN.max_length,
        code=PLAN.code("tokenise_pairs"),
    message:
        "Tokenising the pairs of {wildcards.dataset}"
    script:
        "../scripts/tokenise_pairs.py"
