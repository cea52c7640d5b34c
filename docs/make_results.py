"""Writes docs/results/EXPERIMENT.json: the numbers that README and BUILD_NOTES quote, from run folders.

    python docs/make_results.py --commit 8fd7cdc runs/quickstart runs/real_text

COMMIT is the code that trained the runs. The numbers are those of the report (`dlm.report.summary`),
without the runs' own rows, and C_crit by the laws if the folder has the critical.json of
`dlm critical FOLDER --out FOLDER`. tests/test_docs.py compares README's sentences with these files.
"""

from __future__ import annotations

import argparse
import json
from pathlib import Path
from typing import Any

from dlm import runs
from dlm.report import summary

KEPT = ("objective", "kind", "best_setting", "losses", "loss", "stderr", "best_epoch")

ENSEMBLES = ("kind", "seeds", "loss", "stderr", "flops")


def results(folder: Path, commit: str) -> dict[str, Any]:
    """The numbers of an experiment's folder, by panel."""
    found = runs.load(folder)
    numbers = summary.numbers(found, *runs.panels(found))
    panels = {}
    corpora = [panel["corpus"] for panel in numbers["panels"]]
    for panel in numbers["panels"]:
        families = {f["objective"]: {name: f[name] for name in KEPT} for f in panel["families"]}
        corpus, unique = panel["corpus"], panel["unique_tokens"]
        panels[corpus if corpora.count(corpus) == 1 else f"{corpus} {unique}"] = {
            "unique_tokens": unique,
            "families": families,
            "crossings": panel["crossovers"]["flops"],
            "finals": panel["finals"],
            "ensembles": {e["objective"]: {n: e[n] for n in ENSEMBLES} for e in panel["ensembles"]},
        }
    return {
        "experiment": folder.name,
        "commit": commit,
        "command": f"dlm run experiments/{folder.name}.py",
        "devices": numbers["devices"],
        "panels": panels,
    } | _laws(folder / "critical.json")


def _laws(path: Path) -> dict[str, Any]:
    """C_crit by the fitted laws, if `dlm critical FOLDER --out FOLDER` was run."""
    if not path.exists():
        return {}
    return {"powers": json.loads(path.read_text("utf-8"))["powers"]}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("folders", nargs="+", type=Path, help="of experiments, with their runs")
    parser.add_argument("--commit", required=True, help="of the code that trained the runs")
    arguments = parser.parse_args()
    for folder in arguments.folders:
        path = Path(__file__).parent / "results" / f"{folder.name}.json"
        text = json.dumps(results(folder, arguments.commit), indent=1, ensure_ascii=False)
        path.write_text(text + "\n")
        print(path)


if __name__ == "__main__":
    main()
