"""How figures look and how they are saved: colour-blind safe, the same bytes for the same data."""

from pathlib import Path

import matplotlib

matplotlib.use("Agg")

from matplotlib.figure import Figure

from marginbench.errors import UserError
from marginbench.files import atomic_path
from marginbench.study import START

# Okabe & Ito (2008), without yellow (too pale on white) and black (kept for the SFT start).
COLOURS = ("#0072B2", "#D55E00", "#009E73", "#CC79A7", "#56B4E9", "#E69F00")
MARKERS = ("o", "s", "^", "D", "v", "P", "X", "<", ">")
START_COLOUR = "#000000"
GREY = "#666666"

RC = {
    "font.family": "DejaVu Sans",
    "font.size": 9,
    "axes.titlesize": 9.5,
    "axes.labelsize": 9,
    "axes.spines.top": False,
    "axes.spines.right": False,
    "axes.grid": True,
    "grid.color": "#e5e5e5",
    "grid.linewidth": 0.6,
    "axes.axisbelow": True,
    "legend.frameon": False,
    "legend.fontsize": 8.5,
    "figure.dpi": 100,
    "savefig.dpi": 200,
    "pdf.fonttype": 42,
    "svg.fonttype": "path",
    "svg.hashsalt": "marginbench",
}

_METADATA = {
    "pdf": {"CreationDate": None, "ModDate": None, "Creator": "marginbench", "Producer": None},
    "png": {"Software": None},
    "svg": {"Date": None, "Creator": "marginbench"},
}


def look(methods: list[str]) -> dict[str, tuple[str, str]]:
    """Colour and marker of each method, by its place in the study; the SFT start is black and a star."""
    trained = [method for method in methods if method != START]
    styles = {
        method: (COLOURS[i % len(COLOURS)], MARKERS[(i + i // len(COLOURS)) % len(MARKERS)])
        for i, method in enumerate(trained)
    }
    return {START: (START_COLOUR, "*"), **styles}


def save(figure: Figure, paths: list[str | Path]) -> None:
    """Save a figure under each path, its format from the suffix (.png, .pdf or .svg), without dates."""
    for path in map(Path, paths):
        kind = path.suffix.lstrip(".")
        if kind not in _METADATA:
            raise UserError(f"{path}: figures are written as .png, .pdf or .svg")
        with matplotlib.rc_context(RC), atomic_path(path) as temporary:
            figure.savefig(temporary, format=kind, metadata=_METADATA[kind])
