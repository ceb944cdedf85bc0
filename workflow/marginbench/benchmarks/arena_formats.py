"""Arena-Hard's files, read: judgments in the layouts of v0.1 and v2.0, battles, and answers. Plain or .gz.

A layout says nothing about the rule of scoring: v0.1's judgments are also published in v2.0's layout. Every mistake in
a file is a UserError that names file and line.
"""

import gzip
import json
import zlib
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import Any, NamedTuple

from marginbench.errors import UserError

BASELINES = {
    "arena-hard-v0.1": "gpt-4-0314",
    "hard_prompt": "o3-mini-2025-01-31",
    "creative_writing": "gemini-2.0-flash-001",
}
"""The official baseline of each category."""

V01_CATEGORY = "arena-hard-v0.1"
"""v0.1 has one category; its own layout doesn't name it."""

WINNERS = {"model_a": "A>B", "model_b": "B>A", "tie": "A=B", "tie (bothbad)": "A=B"}


class Game(NamedTuple):
    """One game of a model against the baseline, as the judge decided it."""

    model: str
    question_id: str
    category: str
    judge: str | None
    baseline: str | None
    """As the row names it; None in the layout of v0.1."""
    number: int
    """1: the baseline is A; 2: the model is A."""
    label: str | None
    """What the judge said; None where there is no verdict."""
    battle: bool = False
    """A row of a battles file: a strong verdict is there as three rows, a null game as none."""
    place: str = ""
    """File and line, for messages."""


def read_games(paths: Iterable[str | Path], baseline: str | None = None) -> list[Game]:
    """Games of judgment and battle files; a folder stands for its *.jsonl and *.jsonl.gz.

    `baseline` tells which side of a battle is the model's (default: v0.1's official one). Raises UserError for a file
    or a line that cannot be read, and for a model that is judged twice for one question by one judge.
    """
    games: list[Game] = []
    seen: dict[tuple[Any, ...], str] = {}
    for path in _files(paths):
        for place, row in read_rows(path):
            if "winner" in row:
                games.append(_battle(place, row, baseline or BASELINES[V01_CATEGORY]))
                continue
            found = _judgment(place, row)
            key = found[0].judge, found[0].model, found[0].question_id
            if key in seen:
                raise UserError(
                    f"{place}: model {key[1]} was already judged for question {key[2]} ({seen[key]}); keep one"
                )
            seen[key] = place
            games += found
    return games


def _judgment(place: str, row: dict[str, Any]) -> list[Game]:
    new = "uid" in row
    identifier = str(_key(place, row, "uid" if new else "question_id", (str, int)))
    model, games = _key(place, row, "model", str), _key(place, row, "games", list)
    category = _key(place, row, "category", str) if new else str(row.get("category", V01_CATEGORY))
    judge, baseline = (None if row.get(name) is None else str(row[name]) for name in ("judge", "baseline"))
    if len(games) != 2:
        raise UserError(f"{place}: `games` holds {len(games)} games instead of two, one for each order")
    return [
        Game(model, identifier, category, judge, baseline, i, _score(f"{place}, game {i}", game), place=place)
        for i, game in enumerate(games, start=1)
    ]


def _score(place: str, game: Any) -> str | None:
    if not isinstance(game, dict):
        raise UserError(f"{place}: is a {type(game).__name__}, not an object with a `score`")
    if "score" not in game:
        raise UserError(f"{place}: the key `score` is missing; a game without a verdict has the score null")
    if not isinstance(game["score"], str | None):
        raise UserError(f"{place}: `score` is {game['score']!r}, not a label such as A>B, or null")
    return game["score"]


def _battle(place: str, row: dict[str, Any], baseline: str) -> Game:
    identifier = str(_key(place, row, "question_id", (str, int)))
    sides = [_key(place, row, name, str) for name in ("model_a", "model_b")]
    label = WINNERS.get(str(row["winner"]))
    if label is None:
        raise UserError(f"{place}: `winner` is {row['winner']!r}; known: {', '.join(WINNERS)}")
    if sides.count(baseline) != 1:
        raise UserError(
            f"{place}: the baseline {baseline} is not one side of {sides[0]} and {sides[1]}; see --baseline"
        )
    number = 1 if sides[0] == baseline else 2
    return Game(sides[number % 2], identifier, V01_CATEGORY, None, baseline, number, label, battle=True, place=place)


def read_answers(folder: str | Path, models: Iterable[str]) -> dict[str, dict[str, dict[str, Any]]]:
    """model -> question -> {text, token_len, header_count, list_count, bold_count}, of the models asked for.

    Reads all *.jsonl and *.jsonl.gz of a folder, in the layout of v0.1 or v2.0. What a file doesn't record is None.
    Raises UserError for a model without answers and for a question that is answered twice.
    """
    wanted = set(models)
    answers: dict[str, dict[str, dict[str, Any]]] = {model: {} for model in wanted}
    if not Path(folder).is_dir():
        raise UserError(f"{folder}: is not a folder of answer files (one <model>.jsonl for each model)")
    for path in _files([folder]):
        for place, row in read_rows(path):
            new = "uid" in row
            model = _key(place, row, "model" if new else "model_id", str)
            if model not in wanted:
                continue
            identifier = str(_key(place, row, "uid" if new else "question_id", (str, int)))
            if identifier in answers[model]:
                raise UserError(f"{place}: {model} has answered question {identifier} before; keep one")
            answers[model][identifier] = answer_facts(place, row)
    for model in sorted(wanted):
        if not answers[model]:
            raise UserError(f"{folder}: no file holds answers of {model}; style control needs every model's answers")
    return answers


def answer_facts(place: str, row: dict[str, Any]) -> dict[str, Any]:
    """Text and recorded counts of one official answer row of either layout."""
    try:
        if "uid" in row:
            content, recorded = row["messages"][-1]["content"], row.get("metadata") or {}
            text = content["answer"] if isinstance(content, dict) else content
        else:
            turn, recorded = row["choices"][0]["turns"][0], row.get("conv_metadata") or {}
            text, recorded = turn["content"], {"token_len": turn.get("token_len"), **recorded}
    except (KeyError, IndexError, TypeError) as error:
        raise UserError(
            f"{place}: no answer where the official format has it ({type(error).__name__} {error})"
        ) from error
    if not isinstance(text, str):
        raise UserError(f"{place}: the answer is a {type(text).__name__}, not a text")
    return {"text": text, **{name: recorded.get(name) for name in ("token_len", *COUNTS)}}


COUNTS = ("header_count", "list_count", "bold_count")


def _files(paths: Iterable[str | Path]) -> Iterator[Path]:
    for path in map(Path, paths):
        if not path.is_dir():
            yield path
            continue
        inside = sorted(file for file in path.iterdir() if file.name.endswith((".jsonl", ".jsonl.gz")))
        if not inside:
            raise UserError(f"{path}: the folder holds no .jsonl or .jsonl.gz file")
        yield from inside


def read_rows(path: Path) -> Iterator[tuple[str, dict[str, Any]]]:
    """Objects of a JSONL file, each with the words that name its place."""
    try:
        raw = path.read_bytes()
        text = (gzip.decompress(raw) if path.name.endswith(".gz") else raw).decode("utf-8-sig")
    except (EOFError, gzip.BadGzipFile, zlib.error) as error:
        raise UserError(f"{path}: the gzip file is damaged or cut short ({error}); get it again") from error
    except OSError as error:
        raise UserError(f"{path}: can't be read ({error.strerror})") from error
    except UnicodeDecodeError as error:
        raise UserError(f"{path}: not UTF-8 (byte {error.start}); save it as UTF-8") from error
    if not text.strip():
        raise UserError(f"{path}: the file is empty; it needs one JSON object a line")
    for number, line in enumerate(text.split("\n"), start=1):
        if not line.strip():
            continue
        place = f"{path}, line {number}"
        try:
            row = json.loads(line)
        except (ValueError, RecursionError) as error:
            raise UserError(f"{place}: not valid JSON ({error}); the format is one JSON object a line") from error
        if not isinstance(row, dict):
            raise UserError(f"{place}: holds a {type(row).__name__}, not an object; one JSON object a line")
        yield place, row


def _key(place: str, row: dict[str, Any], name: str, kind: type | tuple[type, ...]) -> Any:
    if name not in row:
        raise UserError(f"{place}: the key `{name}` is missing; is this an Arena-Hard file?")
    if not isinstance(row[name], kind):
        raise UserError(f"{place}: `{name}` is {row[name]!r:.60}, a {type(row[name]).__name__}")
    return row[name]
