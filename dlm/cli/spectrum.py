"""`dlm spectrum`: which spatial frequencies of images each family settles first."""

from __future__ import annotations

import argparse
from pathlib import Path

from dlm import inputs
from dlm.cli import options
from dlm.cli.options import Overrides
from dlm.cli.output import show
from dlm.errors import DlmError
from dlm.runs import addresses, names

SUMMARY = "which spatial frequencies of images are settled first, by family"
EXAMPLES = """examples:
  dlm spectrum AR_RUN MASKED_RUN GAUSSIAN_RUN --out figures/"""

LEVELS = (0.125, 0.25, 0.5, 0.75)  # shares of the pixels that are known


def add_arguments(parser: argparse.ArgumentParser) -> None:
    options.add_trust(parser)
    parser.add_argument("runs", nargs="+", metavar="run", help=f"on images: {options.RUN}")
    options.add_count(parser, 64, "validation images")
    parser.add_argument("--out", type=inputs.path, default=Path("."), help="a folder")


def execute(a: argparse.Namespace, overrides: Overrides) -> int:
    folders = [addresses.run(word, a.workdir) for word in a.runs]
    options.check_writable(a.out)
    from dlm import api
    from dlm.data import windows as data
    from dlm.evaluation import spectrum
    from dlm.laws.crossover import name_of
    from dlm.report import canvas, sample_figures
    from dlm.report.terminal import grid

    spectra, rows = {}, []
    for folder in folders:
        model = api.restore(folder, a.trust)
        c, store = model.config, model.store
        if store.tokenizer is not None:
            raise DlmError(
                f"{folder}: was trained on text ({store.manifest.name}); must be on images"
            )
        images = data.validation_windows(store, c.data.seq_len)[: a.count]
        name = name_of(c.objective.name)
        if name in spectra:  # another run of the family
            name = f"{name} {names.run_id(folder)}"
        spectra[name] = spectrum.explained(c, store.vocab_size, model.params, images, LEVELS)
        radius, shares = spectra[name]
        for level, row in zip(LEVELS, shares, strict=True):
            rows.append([name, f"{level:.1%}", *(f"{share:.3f}" for share in row)])
    head = ("family", "known", *(f"{r} cycles" for r in radius))
    png, *_ = canvas.save(sample_figures.spectrum(spectra, LEVELS), a.out / "spectrum")
    title = "Share of the variance of each spatial frequency that is explained"
    return show([title, grid(head, rows), f"written: {png}"])
