"""How large a model, and how many fresh tokens, should each family have for a given compute?

The single-epoch runs of arXiv 2507.15857, to which step one of its law is fitted: sizes at four
computes C = 6ND, every token seen once. The paper does not list its sizes; these are ours, six for
each compute, around the best of both families as its Figure 3 has them.

  dlm run experiments/paper_isoflop.py
  dlm fit runs/paper_isoflop --law chinchilla-tied --points last

Cost of training, evaluation not counted; times are estimates:

  paper    48 runs, 2.07e21 FLOPs, 1,460 H100-hours (40% of 989 TFLOP/s)
  gpu      36 runs, 7.56e18 FLOPs, 8.5 H100-hours (25%)
  laptop   32 runs, 3.72e13 FLOPs, 10 minutes (2 cores at 3e10 FLOP/s)

Expected: at scale paper AR is best at about twice the parameters of diffusion for the same compute
(217M against 117M at 1e19 FLOPs, 724M against 425M at 1e20), and below it at every size: on fresh
tokens diffusion does not overtake. On a laptop, on prose of Python's standard library, AR is below it
at every size too (1.70 against 2.71, a bound, at 3e12 FLOPs); the smallest size is the best at each
compute, so this grid lies above N_opt.
"""

from dlm.config import paper

SIZES = {  # compute: sizes of both families
    "paper": {
        6e18: ("44m", "74m", "106m", "163m", "217m", "306m"),
        1e19: ("74m", "117m", "163m", "217m", "306m", "425m"),
        3e19: ("117m", "217m", "306m", "425m", "587m", "816m"),
        1e20: ("217m", "306m", "425m", "587m", "724m", "1018m"),
    },
    "gpu": {
        3e16: ("7m", "14m", "20m", "35m"),
        5e16: ("7m", "14m", "20m", "35m"),
        1.5e17: ("14m", "20m", "35m", "44m", "57m"),
        5e17: ("20m", "35m", "44m", "57m", "74m"),
    },
    "laptop": {
        1e11: (32, 64, 96, 128),
        3e11: (64, 96, 128, 160),
        1e12: (96, 128, 160, 192),
        3e12: (160, 192, 224, 256),
    },
    "smoke": dict.fromkeys((3e8, 6e8, 1.2e9), (32, 64)),
}


def get_config(scale="laptop"):
    most = max(run["data.unique_tokens"] for run in sweep(scale))
    return paper.base_config(paper.FRESH[scale], most)


def sweep(scale="laptop"):
    base = paper.base_config(paper.FRESH[scale])
    for compute, sizes in SIZES[scale].items():
        for objective in ("ar", "masked"):
            for size in sizes:
                yield paper.spend(base, objective, size, compute, epochs=1)
