"""Methods for people: a list of all, and a page for one, made from its file."""

import textwrap
from collections.abc import Iterator
from typing import Literal, get_args, get_origin

from marginbench.methods.base import Needs
from marginbench.methods.curriculum import SHARED
from marginbench.methods.registry import Method, load_method, method_names

NEED_WORDS = {
    "reference": "reference log-probabilities",
    "lengths": "answer lengths",
    "margins": "margins of a scorer",
    "order": "an order of its own",
    "whole_batch": "the whole optimiser batch",
    "state": "state from batch to batch",
    "draws": "random draws",
}
WIDTH = 110


def _needs(needs: Needs) -> str:
    return ", ".join(words for name, words in NEED_WORDS.items() if getattr(needs, name)) or "nothing but the policy"


def formula(doc: str) -> str:
    """The first indented block of a method's docstring: its formula."""
    lines: list[str] = []
    for line in doc.splitlines():
        if line.startswith("    "):
            lines.append(line[4:])
        elif lines and line.strip():
            break
    return "\n".join(lines).strip().rstrip(",.:")


def _own(method: Method) -> list[str]:
    """Names of the parameters that are the method's own, or have a default of its own."""
    inherited = type(method.params).__mro__[1].model_fields
    fields = type(method.params).model_fields
    return [name for name, field in fields.items() if name not in SHARED or field.default != inherited[name].default]


def _brief(name: str) -> Iterator[str]:
    method = load_method(name)
    shown = ", ".join(f"{key} = {getattr(method.params, key)}" for key in _own(method))
    rows = {"needs": _needs(method.needs), "parameters": shown or "none of its own"}
    if method.variants:
        rows["variants"] = ", ".join(method.variants)
    yield f"{name}: {method.doc.strip().splitlines()[0]}"
    yield textwrap.indent(formula(method.doc), " " * 6)
    for label, text in rows.items():
        yield textwrap.fill(f"{label}: {text}", WIDTH, initial_indent="  ", subsequent_indent="      ")


def method_list() -> str:
    """A block for every method: its name and paper, formula, needs, parameters with their defaults, variants."""
    return "\n".join(line for name in method_names() for line in _brief(name))


def _parameters(method: Method, names: list[str]) -> Iterator[str]:
    for name in names:
        field = type(method.params).model_fields[name]
        bounds = ", ".join(f"{kind} {getattr(bound, kind)}" for bound in field.metadata for kind in _kinds(bound))
        bounds += " | ".join(map(str, get_args(field.annotation))) if get_origin(field.annotation) is Literal else ""
        default = "required" if field.is_required() else f"default {getattr(method.params, name)!r}"
        yield f"  {name}: {default}{f' ({bounds})' if bounds else ''}. {field.description}"


def _kinds(bound: object) -> list[str]:
    return [kind for kind in ("gt", "ge", "lt", "le") if getattr(bound, kind, None) is not None]


def method_page(name: str) -> str:
    """The page of a method or variant: docstring, needs and parameters. Raises UserError for an unknown name."""
    method = load_method(name)
    own = _own(method)
    shared = [key for key in type(method.params).model_fields if key in SHARED and key not in own]
    lines = [name, "=" * len(name), "", method.doc.strip(), ""]
    lines += [f"Needs: {_needs(method.needs)}.", "", "Parameters:", *_parameters(method, own)]
    if shared:
        lines += ["", "Parameters that all methods of pairs share:", *_parameters(method, shared)]
    if method.variants:
        lines += ["", "Variants (this formula with other parameters; usable as a method's name):"]
        lines += [f"  {key}: {_settings(settings)}" for key, settings in method.variants.items()]
    return "\n".join([*lines, "", f"File: {method.file.name}"])


def _settings(settings: object) -> str:
    return ", ".join(f"{key} = {value}" for key, value in dict(settings).items())
