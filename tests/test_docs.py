"""README quotes the numbers of docs/results, which docs/make_results.py writes from run folders."""

from __future__ import annotations

import json
import re
from pathlib import Path
from typing import Any

import pytest

from dlm.format import between, number, percent, with_error

ROOT = Path(__file__).parents[1]


def panel(experiment: str, corpus: str) -> dict[str, Any]:
    path = ROOT / "docs" / "results" / f"{experiment}.json"
    return json.loads(path.read_text("utf-8"))["panels"][corpus]


def crossing(experiment: str, corpus: str, reference: str = "ar at equal settings") -> Any:
    (found,) = [x for x in panel(experiment, corpus)["crossings"] if x["reference"] == reference]
    return found


def difference(experiment: str, corpus: str) -> str:
    """The final difference of masked diffusion to the best AR."""
    (final,) = panel(experiment, corpus)["finals"]
    return with_error(final["comparison"]["difference"], final["comparison"]["stderr"])


def sentences(file: str) -> str:
    return " ".join((ROOT / file).read_text("utf-8").split())


def test_readme_quotes_the_quickstart_as_it_was_run() -> None:
    digits, prose = (crossing("quickstart", corpus) for corpus in ("digits", "stdlib"))
    text = sentences("README.md")
    around = between(digits["low"], digits["high"])
    assert f"after {number(digits['epochs'], 3)} epochs (90% interval {around} FLOPs)" in text
    assert f"after {number(prose['epochs'], 3)} epochs, in {percent(prose['share'])} of" in text
    assert f"by {difference('quickstart', 'digits')} nats per token on the digits" in text
    assert f"by {difference('quickstart', 'stdlib')} on the prose" in text
    for corpus in ("digits", "stdlib"):
        assert crossing("quickstart", corpus, "ar")["status"] == "does not cross"


@pytest.mark.parametrize("path", sorted((ROOT / "docs" / "results").glob("*.json")), ids=str)
def test_results_say_which_code_and_command_made_them(path: Path) -> None:
    found = json.loads(path.read_text("utf-8"))
    assert re.fullmatch(r"[0-9a-f]{7,40}", found["commit"])
    assert (ROOT / found["command"].split()[-1]).is_file()
    assert all(p["families"].keys() >= {"ar", "masked"} for p in found["panels"].values())
