"""The Markdown of what tests/accelerator.py measured, for BUILD_NOTES.md."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

COUNTED = (
    "MFU counts the FLOPs of the plain step: not what remat computes again, but all logits, in the "
    "masked-... rows too. Compiling is short if an earlier run left it in the compilation cache."
)
VERDICTS = {True: "holds", False: "BROKEN", None: "found"}  # None: nothing is promised


def table(head: Iterable[str], rows: Iterable[Iterable[str]]) -> list[str]:
    head = list(head)
    lines = ["| " + " | ".join(cells) + " |" for cells in [head, *rows]]
    return [lines[0], "|" + "---|" * len(head), *lines[1:], ""]


def line(row: dict[str, Any]) -> str:
    """One row of the speeds, for a terminal."""
    words = row.get("failed") or (
        f"{row['tokens_per_second']:,.0f} tokens/s, MFU {row['mfu']:.0%}, "
        f"compiled in {row['compile_seconds']:.0f} s"
    )
    return f"{row['size']} {row['family']}, {row['variant']}: {words}"


def markdown(results: dict[str, Any]) -> str:
    """All tables. Speeds are medians over calls with quartiles; `of plain` compares tokens/s with the
    plain row of the size and family."""
    about = results["device"]
    smi = "; ".join(about.get("nvidia-smi") or [])
    versions = ", ".join(f"{name} {version}" for name, version in about["versions"].items())
    lines = [
        f"### {about['count']} x {about['kind']} ({results['date'][:10]})",
        "",
        f"`{results['command']}`, {results.get('seconds', 'not finished')} s; {versions}"
        + (f"; {smi}" if smi else "")
        + ".",
        "",
    ]
    if results["rehearsal"]:
        lines += ["**A rehearsal on a CPU with tiny shapes: no speed here means anything.**", ""]
    rows = [[c["name"], VERDICTS[c["holds"]], c["found"]] for c in results["checks"]]
    lines += table(("check", "", "found"), rows)
    lines += _peaks(results["peaks"]) + _speeds(results) + _profiles(results["profiles"])
    return "\n".join(lines).rstrip() + "\n"


def _peaks(peaks: list[dict[str, Any]]) -> list[str]:
    if not peaks:
        return []
    if "failed" in peaks[0]:
        return [f"Matrix products: {peaks[0]['failed']}.", ""]
    sizes = list(peaks[0]["rates"])
    head = [
        "products, TFLOP/s",
        *(f"{size} cubed" for size in sizes),
        "measured_peak",
        "data sheet",
    ]
    rows = []
    for p in peaks:
        numbers = [*p["rates"].values(), p["measured_peak"], p["table"]]
        words = ["" if n is None else f"{n / 1e12:.3g}" for n in numbers]
        rows.append([f"{p['dtype']}, {p['precision']} precision", *words])
    return table(head, rows)


def _speeds(results: dict[str, Any]) -> list[str]:
    rows, failed = [], []
    plain = {
        (r["size"], r["family"]): r["tokens_per_second"]
        for r in results["speeds"]
        if r["variant"] == "plain" and "failed" not in r
    }
    peak = next((p.get("table") for p in results["peaks"] if p.get("dtype") == "bfloat16"), None)
    for r in results["speeds"]:
        name = f"{r['size']} {r['family']}"
        if "failed" in r:
            failed.append(f"* {name}, {r['variant']}: {r['failed']}")
            continue
        base = plain.get((r["size"], r["family"]))
        sheet = r["mfu"] * r["peak"] / (peak * results["device"]["count"]) if peak else None
        served = (r["evaluation_tokens_per_second"], r["sampling_tokens_per_second"])
        rows.append(
            [
                name,
                r["variant"],
                f"{r['tokens_per_second']:,.0f} ({r['low']:,.0f} to {r['high']:,.0f})",
                f"{r['tokens_per_second'] / base:.2f}" if base else "",
                f"{1e3 * r['tokens'] / r['tokens_per_second']:.1f}",
                f"{r['mfu']:.1%}",
                f"{sheet:.1%}" if sheet else "",
                f"{r['step_bytes'] / 2**30:.2f}",
                f"{r['compile_seconds']:.1f}",
                " / ".join(f"{rate:,.0f}" for rate in served if rate is not None),
            ]
        )
    head = (
        *("parameters, family", "variant", "tokens/s (quartiles)", "of plain", "ms a call"),
        *("MFU, measured peak", "MFU, data sheet", "step's GiB", "compiling, s"),
        "scored / sampled tokens/s",
    )
    lines = [*table(head, rows), COUNTED, ""] if rows else []
    return lines + (["Without a speed:", "", *failed, ""] if failed else [])


def _profiles(profiles: list[dict[str, Any]]) -> list[str]:
    measured = [p for p in profiles if "failed" not in p]
    lines = []
    if measured:
        kinds = list(measured[0]["classes"])
        head = ["share of kernels' time", *kinds, "no kernel runs", "ms a call (traced)"]
        rows = [
            [
                f"{p['size']} {p['family']}",
                *(f"{p['classes'][kind]['share']:.1%}" for kind in kinds),
                f"{p['idle']:.1%}",
                f"{p['ms']:.1f}",
            ]
            for p in measured
        ]
        lines += table(head, rows)
        for p in measured:
            longest = ", ".join(f"{k['name']} {k['ms']:.2f}" for k in p["kernels"][:6])
            lines += [f"* longest kernels, {p['size']} {p['family']}, ms a call: {longest}"]
        lines.append("")
    for p in profiles:
        if "failed" in p:
            lines += [f"* no profile of {p['size']} {p['family']}: {p['failed']}", ""]
    return lines
