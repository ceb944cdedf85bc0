"""Methods for people: a list of all, and a page for one, made from its file."""

from collections.abc import Iterator

from marginbench.methods.base import Needs
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


def _needs(needs: Needs) -> str:
    return ", ".join(words for name, words in NEED_WORDS.items() if getattr(needs, name)) or "nothing but the policy"


def method_list() -> str:
    """One line for every method: its name and the first line of its docstring."""
    methods = [load_method(name) for name in method_names()]
    width = max(len(method.name) for method in methods)
    return "\n".join(f"{method.name:<{width}}  {method.doc.strip().splitlines()[0]}" for method in methods)


def _parameters(method: Method) -> Iterator[str]:
    for name, field in type(method.params).model_fields.items():
        bounds = ", ".join(str(bound) for bound in field.metadata)
        default = "required" if field.is_required() else f"default {field.default!r}"
        yield f"  {name}: {default}{f' ({bounds})' if bounds else ''}. {field.description}"


def method_page(name: str) -> str:
    """The page of one method: docstring, needs and parameters. Raises UserError for an unknown name."""
    method = load_method(name)
    lines = [method.name, "=" * len(method.name), "", method.doc.strip(), ""]
    lines += [f"Needs: {_needs(method.needs)}.", "", "Parameters:", *_parameters(method)]
    return "\n".join([*lines, "", f"File: {method.file.name}"])
