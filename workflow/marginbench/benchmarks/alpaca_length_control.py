"""AlpacaEval 2's length-controlled win rate by alpaca_eval's own function, from files at hand and nothing written.

Two habits of the package are mended from outside: it looks difficulties up by row position (rows are joined by
instruction and put into the reference's order here, unless position is asked for), and it downloads its constants and
writes weights into site-packages. Its predictions are checked against alpaca_metrics.py at the C that it chose.
Sources: alpaca_eval 0.6.6, Dubois et al. 2024 (arXiv 2404.04475).
"""

import contextlib
import gzip
import hashlib
import io
import logging
import tempfile
import warnings
import zlib
from collections.abc import Iterator
from pathlib import Path
from typing import Any, Literal

import numpy as np
import pandas as pd

from marginbench.benchmarks.alpaca_metrics import Gamed, bootstrap_length_control, equal_length_predictions, to_unit
from marginbench.errors import UserError
from marginbench.identity import stream

Join = Literal["instruction", "position"]

LC_BASELINE = "gpt4_1106_preview"
"""The baseline that AlpacaEval 2's length-control constants were fitted against."""

INSTRUCTION_HASHES = Path(__file__).resolve().parent / "alpaca_eval_instructions.txt"
"""First 16 hex digits of the SHA-256 of each of the 805 instructions, in the order of the reference outputs."""

OFFICIAL_GAMED = "97aeec3f1c7de6dee6fd31fe66f1702623f4614c3efe1c6fc5f4927cd5fd674d"
"""SHA-256 of the hub's df_gamed.csv (tatsu-lab/alpaca_eval at 2edc6fad8be6b14ea7230aabfd08188da6b8b814)."""

SKLEARN = (1, 9)
"""The release that C was chosen with: another chooses another C, because cross-validation is nearly flat."""

TOLERANCE = 1e-6


def length_controlled(
    frame: pd.DataFrame,
    gamed: str | Path | None,
    difficulty: str | Path | None,
    join: Join = "instruction",
    bootstrap: int = 0,
    seed: int = 0,
) -> dict[str, Any]:
    """`length_controlled_winrate` (percent) with the chosen C, or null and the reason.

    `frame` holds annotations with a float `preference`. `lc_c` is null for the baseline against itself, where nothing
    is fitted. `bootstrap` draws prompts that often and refits. The package's own lc_standard_error is not a sampling
    error and is not reported. Raises UserError when the package and our own formulas disagree by more than 1e-6.
    """
    places = _places(frame)
    itself = _is_the_baseline(frame)
    reason = _why_not(frame, places, itself, gamed)
    if reason is not None:
        return {"length_controlled_winrate": None, "lc_c": None, "lc_reason": reason}
    frame = frame.reset_index(drop=True) if join == "position" else frame.set_index(pd.Index(places)).sort_index()
    result: dict[str, Any] = {"lc_reason": None, "lc_join": join, "n_missing": len(instruction_hashes()) - len(frame)}
    if itself:
        frame["generator_2"] = frame["generator_1"]
        value, _, _ = _call_package(frame, None)
        return {"length_controlled_winrate": value, "lc_c": None, **result}
    constants, official = read_constants(Path(str(gamed)), difficulty)
    value, c, predictions = _call_package(frame, constants)
    by_index = constants.drop_duplicates("index").set_index("index")["instruction_difficulty"]
    rows = (
        _difference(frame).to_numpy(float),
        by_index[frame.index].to_numpy(float),
        to_unit(frame["preference"].to_numpy()),
        Gamed(*(constants[name].to_numpy(float) for name in ("std_delta_len", "instruction_difficulty", "preference"))),
    )
    gap = float(np.abs(equal_length_predictions(*rows, c) - predictions).max())
    if not gap <= TOLERANCE:
        raise UserError(f"length control: alpaca_eval and our own fit at C {c:g} differ by {gap:.2g}; trust neither")
    result = {"length_controlled_winrate": value, "lc_c": c, **result, "lc_gamed_official": official}
    if bootstrap:
        result |= bootstrap_length_control(*rows, c, bootstrap, stream("length_control_bootstrap", seed))
    return result


@contextlib.contextmanager
def quietly(ignored: type[Warning] = Warning) -> Iterator[None]:
    """alpaca_eval sets the root logger's level when it is imported and logs through it; both are undone here."""
    root = logging.getLogger()
    level, handlers, disabled = root.level, list(root.handlers), root.manager.disable
    logging.disable(logging.INFO)
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", ignored)
            yield
    finally:
        logging.disable(disabled)
        root.setLevel(level)
        root.handlers[:] = handlers


def instruction_hashes() -> list[str]:
    """The hashes of the 805 instructions, in the reference's order."""
    return INSTRUCTION_HASHES.read_text(encoding="utf-8").split()


def sklearn_version() -> str:
    """The version of scikit-learn that is installed."""
    import sklearn

    return str(sklearn.__version__)


def _places(frame: pd.DataFrame) -> list[int | None]:
    order = {digest: place for place, digest in enumerate(instruction_hashes())}
    # A lone surrogate is legal in JSON and must not stop the hashing.
    texts = (text.encode("utf-8", "surrogatepass") for text in frame["instruction"])
    return [order.get(hashlib.sha256(text).hexdigest()[:16]) for text in texts]


def _difference(frame: pd.DataFrame) -> pd.Series:
    return frame["output_1"].str.len() - frame["output_2"].str.len()


def _is_the_baseline(frame: pd.DataFrame) -> bool:
    return bool((frame["generator_1"] == frame["generator_2"]).all() or (frame["output_1"] == frame["output_2"]).all())


def _why_not(frame: pd.DataFrame, places: list[int | None], itself: bool, gamed: str | Path | None) -> str | None:
    baselines = sorted(set(frame["generator_1"]))
    foreign = places.count(None)
    if foreign:
        return f"{foreign} of {len(frame)} instructions are not among AlpacaEval 2's 805, for which it is defined"
    if len(set(places)) < len(places):
        return "an instruction occurs more than once"
    if baselines != [LC_BASELINE]:
        return f"its constants belong to the baseline {LC_BASELINE}, not {', '.join(baselines)}"
    if itself:
        return None
    if gamed is None:
        return "df_gamed.csv was not given"
    if _difference(frame).nunique() < 2:
        return "every answer is longer than the baseline's by the same number of characters"
    if tuple(int(part) for part in sklearn_version().split(".")[:2]) != SKLEARN:
        return f"C was chosen with scikit-learn >=1.9,<1.10, and {sklearn_version()} is installed; install 1.9"
    return None


def read_constants(gamed: Path, difficulty: str | Path | None) -> tuple[pd.DataFrame, bool]:
    """df_gamed.csv with `difficulty` put in where given, and whether its bytes are the official ones."""
    table, digest = _read_csv(gamed)
    needed = ["preference", "index", "std_delta_len", "instruction_difficulty"]
    missing = [name for name in (*needed, "not_gamed_baseline", "model") if name not in table.columns]
    if missing:
        raise UserError(f"{gamed}: column `{missing[0]}` is missing; is this df_gamed.csv of tatsu-lab/alpaca_eval?")
    if difficulty is not None:
        known, _ = _read_csv(Path(difficulty))
        if list(known.columns[1:]) != ["instruction_difficulty"]:
            raise UserError(f"{difficulty}: two columns are expected, an index and `instruction_difficulty`")
        if known.iloc[:, 0].duplicated().any():
            raise UserError(f"{difficulty}: an index occurs more than once; 805 are expected")
        table["instruction_difficulty"] = table["index"].map(known.set_index(known.columns[0]).iloc[:, 0])
    for name in needed:
        values = pd.to_numeric(table[name], errors="coerce")
        if not np.isfinite(values).all():
            where = difficulty if name == "instruction_difficulty" and difficulty is not None else gamed
            raise UserError(f"{where}: `{name}` is missing or no number for row {int((~np.isfinite(values)).argmax())}")
        table[name] = values
    places = list(range(len(instruction_hashes())))
    if sorted(table["index"]) != sorted(places * 2) or table["not_gamed_baseline"].dtype != bool:
        raise UserError(
            f"{gamed}: two rows for each index 0 to 804 and True/False in `not_gamed_baseline` are expected"
        )
    return table, digest == OFFICIAL_GAMED


def _read_csv(path: Path) -> tuple[pd.DataFrame, str]:
    try:
        raw = path.read_bytes()
        raw = gzip.decompress(raw) if raw.startswith(b"\x1f\x8b") else raw
        return pd.read_csv(io.BytesIO(raw)), hashlib.sha256(raw).hexdigest()
    except (EOFError, gzip.BadGzipFile, zlib.error) as error:
        raise UserError(f"{path}: the gzip file is damaged or cut short; get it again") from error
    except OSError as error:
        raise UserError(f"{path}: can't be read ({error.strerror or error})") from error
    except ValueError as error:
        raise UserError(f"{path}: not a CSV file ({' '.join(str(error).split())[:120]})") from error


def _call_package(frame: pd.DataFrame, constants: pd.DataFrame | None) -> tuple[float, float, np.ndarray]:
    """LC by the package, whose row index is its difficulty index; nothing is downloaded and nothing is saved."""
    import sklearn

    with quietly():
        from alpaca_eval.metrics import glm_winrate
    fit, download = glm_winrate.fit_LogisticRegressionCV, glm_winrate.hf_hub_download
    chosen: list[float] = []

    def fit_and_note(*args: Any, **kwargs: Any) -> Any:
        model = fit(*args, **kwargs)
        chosen.append(float(model.C_[0]))
        return model

    frame = frame.copy()
    with tempfile.TemporaryDirectory(prefix="marginbench-lc-") as folder, sklearn.config_context():
        file = Path(folder, "df_gamed.csv")
        if constants is not None:
            constants.to_csv(file, index=False)
        try:
            glm_winrate.hf_hub_download = lambda **_: str(file)
            glm_winrate.fit_LogisticRegressionCV = fit_and_note
            with quietly(FutureWarning):
                out = glm_winrate.get_length_controlled_winrate(
                    frame, save_weights_dir=None, is_add_glm_preference_inplace=True, is_warn_extreme_changes=False
                )
        finally:
            glm_winrate.hf_hub_download, glm_winrate.fit_LogisticRegressionCV = download, fit
    c = chosen[0] if chosen else float("nan")
    return float(out["length_controlled_winrate"]), c, frame["glm_preference"].to_numpy(float)
