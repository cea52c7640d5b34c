"""Which column of a sheet means what: known names, and names that a user gives."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence

from dlm.errors import DlmError, nearest

NEEDED = ("params", "tokens", "loss")
# Names as they are compared: lower case, letters and digits only. Two columns of one row of this
# table cannot both be meant.
NAMES: dict[str, tuple[str, ...]] = {
    "params": (
        *("params", "nparams", "numparams", "parameters", "nparameters", "numparameters"),
        *("parametercount", "paramcount", "totalparams", "totalparameters", "modelsize"),
        *("modelparams", "modelparameters", "paramsactiveprecise"),
    ),
    "tokens": (
        *("tokens", "ntokens", "numtokens", "totaltokens", "trainingtokens", "traintokens"),
        *("tokensseen", "trainedtokens", "tokencount", "datasettokens"),
    ),
    "loss": (
        *("loss", "valloss", "validationloss", "evalloss", "testloss", "validloss", "devloss"),
        *("finalloss", "lossval", "losseval", "lossvalidation", "finalvalloss"),
        *("finalvalidationloss", "bestvalloss", "bestvalidationloss", "heldoutloss"),
    ),
    "unique_tokens": (
        *("uniquetokens", "unique", "nuniquetokens", "nunique", "numuniquetokens"),
        *("uniquetrainingtokens", "uniquetraintokens", "tokensunique"),
    ),
    "epochs": ("epochs", "nepochs", "numepochs"),
    "family": ("family", "objective", "objectivename"),
    "flops": (
        *("flops", "flop", "trainingflops", "trainingflop", "trainflops", "totalflops"),
        *("totalflop", "compute", "trainingcompute"),
    ),
    "budget": ("budget", "flopbudget", "flopsbudget", "isoflopbudget", "computebudget"),
    "loops": (
        *("loops", "nloops", "numloops", "modelloops", "loopcount", "recurrences", "nrecurrences"),
        *("numrecurrences", "recurrencecount"),
    ),
    "looped_params": ("loopedparams", "loopedparameters", "recurrentparams", "nrec"),
    "run": ("run", "runid"),
    "name": ("name", "runname"),
    "source": ("source",),
    "status": ("status", "state", "runstatus", "runstate"),
}
# Names that often mean something else: taken if no name above is there.
WEAK: dict[str, tuple[str, ...]] = {
    "params": ("n",),
    "tokens": ("d",),
    "loss": ("l",),
    "unique_tokens": ("u",),
    "flops": ("c",),
    "run": ("id",),
}
# Titles of what may be a family; `dlm.laws.rows` decides by the words in the column.
MAYBE_FAMILY = ("model", "modelfamily", "modeltype", "method", "architecture", "arch")
PERPLEXITY = ("perplexity", "ppl")
SHORT = {"N": "params", "D": "tokens", "U": "unique_tokens"}  # in capitals they mean this alone


def parse(words: Sequence[str]) -> dict[str, str]:
    """Meanings and titles of `--columns params=n_params loss=val`; also joined by commas.

    Raises:
      DlmError: not of that form, an unknown meaning, or a meaning given twice.
    """
    chosen: dict[str, str] = {}
    for word in words:
        parts = word.split(",")
        for part in parts if all("=" in p for p in parts) else [word]:
            meaning, equals, title = part.partition("=")
            meaning = meaning.strip()
            if not equals:
                raise DlmError(f"--columns {part}: must be MEANING=COLUMN, as in params=n_params")
            check_meaning(part, meaning)
            if meaning in chosen:
                raise DlmError(f"--columns: {meaning} is given twice")
            chosen[meaning] = title.strip()
    return chosen


def check_meaning(part: str, meaning: str) -> None:
    """Refuses a meaning that no column has; `part` is what the user gave.

    Raises:
      DlmError: names the meanings there are.
    """
    if meaning not in NAMES:
        raise DlmError(
            f"--columns {part}: {meaning or 'nothing'} is not one of {', '.join(NAMES)}"
            f"{nearest(meaning, NAMES)}"
        )


def match(name: str, titles: Sequence[str], chosen: Mapping[str, str]) -> dict[str, int]:
    """The place of each meaning among the titles; `chosen` first, "" for no column at all.

    Raises:
      DlmError: two columns of one meaning, a needed one that is missing, or a title that
        is not there.
    """
    places: dict[str, int] = {}
    for meaning, title in chosen.items():
        if title:
            at = find(name, titles, meaning, title)
            if others := [m for m, place in places.items() if place == at]:
                raise DlmError(f"{name}: --columns gives {title} to {others[0]} and {meaning}")
            places[meaning] = at
    for weak in (False, True):
        free = [i for i in range(len(titles)) if i not in places.values()]
        for meaning in NAMES:
            known = meaning in places or meaning in chosen
            if known or (meaning == "epochs" and "unique_tokens" in places):
                continue
            at = [i for i in free if _means(titles[i], meaning, weak)]
            if len(at) > 1:
                raise two(name, meaning, [titles[i] for i in at])
            if at:
                places[meaning] = at[0]
    for needed in NEEDED:
        if needed not in places:
            logarithm = needed == "loss" and any(p in plain(t) for t in titles for p in PERPLEXITY)
            raise DlmError(
                f"{name}: no column {needed}; has {listed(titles)}"
                + ("; loss is the natural logarithm of perplexity" if logarithm else "")
                + f"; name it with --columns {needed}={quoted(_hint(needed, titles))}"
            )
    return places


def two(name: str, meaning: str, titles: Sequence[str]) -> DlmError:
    """The error of two columns of one meaning."""
    if len(set(titles)) < len(titles):
        return DlmError(f"{name}: two columns are called {titles[0]!r}; rename one of them")
    both = " and ".join(repr(t) for t in titles)
    return DlmError(
        f"{name}: columns {both} both mean {meaning}; choose one, as in --columns "
        f"{meaning}={quoted(titles[0])}"
    )


def listed(titles: Sequence[str]) -> str:
    """The titles in one line, long ones cut."""
    short = [" ".join(t.split()) for t in titles[:40]]
    more = f", and {len(titles) - 40} more" if len(titles) > 40 else ""
    return ", ".join(t if len(t) <= 40 else f"{t[:37]}..." for t in short) + more


def plain(title: str) -> str:
    """A title without case, spaces, underscores, or the ".1" of a title that was there twice."""
    return re.sub(r"[\W_]+", "", re.sub(r"\.\d+$", "", title.strip().lower()))


def _means(title: str, meaning: str, weak: bool) -> bool:
    if title.strip() in SHORT:
        return SHORT[title.strip()] == meaning and not weak
    names = WEAK.get(meaning, ()) if weak else NAMES[meaning]
    return plain(title) in names


def find(name: str, titles: Sequence[str], meaning: str, title: str) -> int:
    """The place of the title that a user gives for a meaning; its case may differ."""
    at = [i for i, known in enumerate(titles) if known == title]
    at = at or [i for i, known in enumerate(titles) if plain(known) == plain(title)]
    if len(at) == 1:
        return at[0]
    problem = "names several columns" if at else f"no such column{nearest(title, titles)}"
    raise DlmError(f"{name}: --columns {meaning}={title}: {problem}; has {listed(titles)}")


def quoted(title: str) -> str:
    return title if re.fullmatch(r"[\w./:-]+", title) else f"'{title}'"


def _hint(meaning: str, titles: Sequence[str]) -> str:
    """The title that looks most like a meaning, or COLUMN."""
    stem = meaning.rstrip("s")
    return next((t for t in titles if stem in plain(t)), "COLUMN")
