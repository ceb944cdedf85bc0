"""train_online: one arm, one seed: pool, candidates, scores, selection, labels, updates, evaluation, round by round."""

from contextlib import ExitStack
from pathlib import Path

from marginbench.job import job

name = f"train_online {snakemake.wildcards.method} seed{snakemake.wildcards.seed}"
with job(name, snakemake.log[0], snakemake.threads) as progress, ExitStack() as servers:
    from marginbench.files import write_json
    from marginbench.identity import file_sha256
    from marginbench.judging.server import local_server
    from marginbench.judging.spec import JudgeSpec
    from marginbench.methods.registry import load_method
    from marginbench.models.loading import load_tokenizer
    from marginbench.models.manifest import read_manifest
    from marginbench.models.template import template_hash
    from marginbench.online import labellers
    from marginbench.online.run import train_online
    from marginbench.records import TEXTS, read_table
    from marginbench.selection.registry import load_strategy
    from marginbench.spec import build_spec
    from marginbench.study import Capability, Online, Optimisation, parse_reward_model

    inputs, params, wildcards = snakemake.input, snakemake.params, snakemake.wildcards
    arm = params.arm

    def judge(raw, weights):
        spec = JudgeSpec.model_validate(raw)
        if spec.kind != "local_server":
            return labellers.Judge(spec, None)
        url = servers.enter_context(local_server(spec, weights, f"{snakemake.log[0]}.{spec.id}"))
        version = file_sha256(weights) if spec.backend == "classifier" else read_manifest(weights).weights_hash
        return labellers.Judge(spec, url, version)

    def labeller(name, weights):
        if name == "ground_truth":
            return labellers.classifier(name, next(weights))
        if name == "reward_model":
            return labellers.reward_model(name, next(weights), params.format)
        if name in arm["reward_models"]:
            model = parse_reward_model(arm["reward_models"][name])
            return labellers.hub_reward_model(name, model, params.format, next(weights))
        raw = arm["labelling_judges"][name]
        return judge(raw, next(weights) if raw["backend"] else None)

    def each(paths):
        return iter([paths] if isinstance(paths, str) else paths)

    weights, others = each(inputs.judges), each(inputs.others)
    judges = [judge(raw, next(weights) if raw["backend"] else None) for raw in arm["judges"]]
    judges += [labeller(name, others) for name in arm["others"]]
    texts = read_table(inputs.texts, TEXTS)
    training = Optimisation.model_validate(arm["training"])
    train_online(
        strategy=load_strategy(arm["strategy"]["name"], arm["strategy"]["params"]),
        method=load_method(arm["method"]["name"], arm["method"]["params"]),
        start_manifest=inputs.start,
        prompts=texts[texts["role"] == "prompt"].reset_index(drop=True),
        evaluation_prompts=texts[texts["role"] == "eval"].head(arm["prompts"]).reset_index(drop=True),
        format=params.format,
        labeller=labeller(arm["labeller"], each(inputs.labeller)),
        judges=judges,
        settings=Online.model_validate(arm["online"]),
        opt=training,
        study_id=wildcards.study,
        dataset_id=wildcards.dataset,
        model_id=wildcards.model,
        arm=wildcards.method,
        seed=int(wildcards.seed),
        out_dir=Path(snakemake.output.manifest).parent,
        capability=Capability.model_validate(arm["capability"]),
        texts=texts[texts["role"] == "perplexity"],
        progress=progress,
    )
    facts = read_manifest(snakemake.output.manifest).facts
    spec = build_spec(
        wildcards=dict(wildcards.items()),
        method={**arm["method"], "online": {key: arm[key] for key in ("strategy", "labeller", "online")}},
        training=arm["training"],
        n_train_pairs=facts["labelled_pairs"],
        inputs={"start": read_manifest(inputs.start).weights_hash, "labeller": facts["labeller"]["version"]},
        template_hash=template_hash(load_tokenizer(inputs.start), params.format),
        code=params.code,
        threads=snakemake.threads,
    )
    write_json(snakemake.output.spec, spec)
