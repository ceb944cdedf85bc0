"""Files that are generated from the code, so that they can't go stale: schema, ARCHITECTURE.md, results/README.md."""

import ast
import json
from pathlib import Path

from marginbench.files import write_text
from marginbench.reporting.readme import refresh
from marginbench.study import Study

PACKAGE = "workflow/marginbench"

ROOMS = (
    "data",
    "models",
    "methods",
    "selection",
    "training",
    "generation",
    "margins",
    "judging",
    "benchmarks",
    "capability",
    "online",
    "statistics",
    "reporting",
    "dag",
)
"""Rooms from upstream to downstream: a module imports only from rooms above its own."""

BASE = ("discovery", "errors", "files", "identity", "records", "study", "job", "spec")
"""Modules that every room may import."""


def generated_files(root: Path) -> dict[str, str]:
    """Path relative to the root -> text, for every generated file."""
    schema = json.dumps(Study.model_json_schema(), indent=2, sort_keys=True) + "\n"
    readme = root / "results" / "README.md"
    return {
        "workflow/schemas/study.schema.json": schema,
        "ARCHITECTURE.md": architecture(root),
        "results/README.md": refresh(readme.read_text(encoding="utf-8")),
    }


def write_generated(root: Path) -> list[str]:
    """Write every generated file; returns their names."""
    files = generated_files(root)
    for name, text in files.items():
        write_text(root / name, text)
    return list(files)


def stale_files(root: Path) -> list[str]:
    """Names of generated files that no longer match the code."""
    return [
        name
        for name, text in generated_files(root).items()
        if not (root / name).is_file() or (root / name).read_text(encoding="utf-8") != text
    ]


def first_line(path: Path) -> str:
    """First line of a module's docstring."""
    return (ast.get_docstring(ast.parse(path.read_text(encoding="utf-8"))) or "").split("\n")[0]


def room_imports(path: Path) -> set[str]:
    """Rooms and top-level modules of this package that a file imports."""
    found: set[str] = set()
    for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
        names = [node.module] if isinstance(node, ast.ImportFrom) and node.module else []
        if isinstance(node, ast.Import):
            names = [alias.name for alias in node.names]
        for name in names:
            parts = name.split(".")
            if parts[0] == "marginbench" and len(parts) > 1:
                found.add(parts[1])
    return found


def architecture(root: Path) -> str:
    """The text of ARCHITECTURE.md: rooms, modules and rules, from docstrings and real imports."""
    package = root / PACKAGE
    lines = [
        "# Architecture",
        "",
        "Made by `make schemas` from docstrings and imports; a test fails when it is stale.",
        "",
        "A study (`config.yaml`, `studies/*.yaml`) is validated and turned into a plan, which answers what the rules",
        "in `workflow/rules` ask. Each rule runs one thin script of its name, which calls one room of the library.",
        "Data flows down the list of rooms; a module imports only from rooms above its own.",
        "",
        "## Rooms",
        "",
        "| room | what it does | imports from |",
        "|---|---|---|",
    ]
    for room in ROOMS:
        folder = package / room
        if not (folder / "__init__.py").is_file():
            continue
        used = {name for file in folder.rglob("*.py") for name in room_imports(file)} & set(ROOMS) - {room}
        ordered = ", ".join(name for name in ROOMS if name in used)
        lines.append(f"| `{room}/` | {first_line(folder / '__init__.py')} | {ordered} |")
    lines += ["", "## Modules", ""]
    for file in sorted(package.glob("*.py")):
        if not file.name.startswith("__"):
            lines.append(f"- `{file.name}`: {first_line(file)}")
    for room in ROOMS:
        for file in sorted((package / room).glob("*.py")):
            if file.name != "__init__.py":
                lines.append(f"- `{room}/{file.name}`: {first_line(file)}")
    lines += ["", "## Rules", ""]
    for file in sorted((root / "workflow" / "scripts").glob("*.py")):
        lines.append(f"- `{first_line(file)}`")
    return "\n".join(lines) + "\n"
