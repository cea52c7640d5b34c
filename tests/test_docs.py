"""README and docs quote docs/results, which docs/make_results.py writes from run folders."""

from __future__ import annotations

import json
import re
from pathlib import Path
from typing import Any

import pytest

from dlm.format import between, count, number, percent, scientific, with_error
from places import ROOT


def panel(experiment: str, corpus: str) -> dict[str, Any]:
    path = ROOT / "docs" / "results" / f"{experiment}.json"
    return json.loads(path.read_text("utf-8"))["panels"][corpus]


def crossing(experiment: str, corpus: str, reference: str = "ar at equal settings") -> Any:
    (found,) = [x for x in panel(experiment, corpus)["crossings"] if x["reference"] == reference]
    return found


def difference(experiment: str, corpus: str, sign: int = 1) -> str:
    """The final difference of masked diffusion to the best AR, or of AR to it."""
    (final,) = panel(experiment, corpus)["finals"]
    return with_error(sign * final["comparison"]["difference"], final["comparison"]["stderr"])


def sentences(file: str) -> str:
    return " ".join((ROOT / file).read_text("utf-8").split())


def test_readme_quotes_the_quickstart_as_it_was_run() -> None:
    digits, prose = (crossing("quickstart", corpus) for corpus in ("digits", "stdlib"))
    text = sentences("README.md")
    around = between(digits["low"], digits["high"])
    assert f"after {number(digits['epochs'], 3)} epochs (90% interval {around} FLOPs)" in text
    assert f"after {number(prose['epochs'], 3)} epochs, in {percent(prose['share'])} of" in text
    assert f"at least {difference('quickstart', 'digits', -1)} nats per token" in text
    assert f"at least {difference('quickstart', 'stdlib')}, as" in text
    for corpus, winner, by in (("digits", "first", "orders 16"), ("stdlib", "second", "tangent 8")):
        (final,) = panel("quickstart", corpus)["finals"]
        assert (final["comparison"]["proven"], final["challenger_by"]) == (winner, by)
        assert crossing("quickstart", corpus, "ar")["status"] == "does not cross"
    families = panel("quickstart", "digits")["families"]
    seeds = [len(families[name]["losses"]) for name in ("ar", "masked")]
    assert "({} seeds of AR, {} of diffusion)".format(*seeds) in text
    assert abs(crossing("quickstart", "digits", "ar")["gap"]) < 0.005  # the NELBO ties
    ensembles = panel("quickstart", "digits")["ensembles"]
    three, diffusion = (ensembles[f"{name}, ensemble of 3"] for name in ("ar", "masked"))
    assert f"reaches {with_error(three['loss'], three['stderr'])} on the digits" in text
    assert f"with {scientific(three['flops'])} FLOPs" in text
    assert f"an ensemble of 3 ({scientific(diffusion['flops'])})" in text


def test_readme_quotes_the_longer_prose_run_as_it_was_run() -> None:
    equal, best = (crossing("real_text", "stdlib", name) for name in ("ar at equal settings", "ar"))
    text = sentences("README.md")
    around = between(equal["low"], equal["high"])
    assert f"after {number(equal['epochs'], 3)} epochs (90% interval {around} FLOPs)" in text
    assert f"ending {with_error(-equal['gap'], equal['gap_stderr'])} nats per character" in text
    assert f"stays at least {difference('real_text', 'stdlib')} below diffusion" in text
    (final,) = panel("real_text", "stdlib")["finals"]
    assert (final["comparison"]["proven"], final["challenger_by"]) == ("second", "tangent 8")
    assert best["status"] == "does not cross"
    trend = best["trend"]["compute"]
    assert f"at {scientific(trend)} FLOPs, seven times the compute" in text
    assert round(trend / best["end"]) == 7


def test_the_page_of_laws_quotes_the_frontiers_as_they_were_run() -> None:
    text = sentences("docs/laws.md")
    budgets = (1600, 3200, 6400)
    found = [crossing("paper_pareto", f"digits {unique}", "ar") for unique in budgets]
    assert {each["status"] for each in found} == {"crosses"}
    first, second, third = (scientific(each["compute"]) for each in found)
    assert f"at {first}, {second} and {third} FLOPs" in text
    path = ROOT / "docs" / "results" / "paper_pareto.json"
    kept, _ = json.loads(path.read_text("utf-8"))["powers"]
    around = between(kept["exponent_low"], kept["exponent_high"])
    assert f"C_crit ~ U^{kept['exponent']:.2f}, 90% interval {around}, over the" in text
    assert f"over the {percent(kept['share'])} of resamples" in text


def test_the_page_of_families_quotes_the_continuum_as_it_was_run() -> None:
    families = panel("continuum", "digits")["families"]
    text = sentences("docs/families.md")
    assert f"AR turns after {number(families['ar']['best_epoch'])} epochs" in text
    later = {name: f["best_epoch"] for name, f in families.items() if name != "ar"}
    assert min(later.values()) > 3 * families["ar"]["best_epoch"]


@pytest.mark.parametrize("path", sorted((ROOT / "docs" / "results").glob("*.json")), ids=str)
def test_results_say_which_code_and_command_made_them(path: Path) -> None:
    found = json.loads(path.read_text("utf-8"))
    assert re.fullmatch(r"[0-9a-f]{7,40}", found["commit"])
    assert (ROOT / found["command"].split()[-1]).is_file()
    assert all(p["families"].keys() >= {"ar", "masked"} for p in found["panels"].values())


def test_every_link_of_the_documents_leads_somewhere() -> None:
    for page in (ROOT / "README.md", ROOT / "BUILD_NOTES.md", *(ROOT / "docs").glob("*.md")):
        for link in re.findall(r"\]\(([^)#:]+)\)", page.read_text("utf-8")):
            assert (page.parent / link).exists(), f"{page.name}: {link}"


def test_the_page_of_plans_quotes_its_first_command() -> None:
    from dlm.api import planner
    from dlm.report import plan_page

    p = planner.plan(1e8, hours=168, device="h100")
    text = sentences("docs/plan.md")
    for f, words in zip(p.advice.families, ("masked diffusion", "AR"), strict=True):
        size, epochs = count(f.params), number(f.epochs, 3)
        assert re.search(
            rf"{words}, {size} parameters and {epochs} epochs, [a-z ]*{f.loss:.3f}", text
        )
    (turn,) = p.advice.turns
    at, more = scientific(turn.critical.compute), count(turn.unique_tokens)
    times = number(p.advice.flops / turn.critical.compute, 2)
    assert f"budget is {times} times above C_crit at 100M, {at} FLOPs" in text
    assert f"On more than {more} unique tokens AR is ahead" in text
    assert more in plan_page.sentences(p)[1]
