"""At a fixed compute, how many epochs of fewer tokens are as good as one epoch of fresh ones?

Figures 3 and 4 of arXiv 2507.15857: one model size for each family and compute, C = 6ND, its D tokens
being 1, 2, 4, 10 or 20 epochs of D, D/2, ... D/20 unique ones; at the lowest compute also 50 and
100 epochs, the curves of Figure 4. The budgets contain each other.

  dlm run experiments/paper_repetition.py
  dlm figures runs/paper_repetition --points last --out figures          Figure 3
  dlm figures runs/paper_repetition --points curve --out figures/curves  Figure 4

Cost of training, evaluation not counted; times are estimates:

  paper    34 runs, 1.70e21 FLOPs, 1,190 H100-hours (40% of 989 TFLOP/s)
  gpu      34 runs, 7.62e18 FLOPs, 8.6 H100-hours (25%)
  laptop   24 runs, 4.68e13 FLOPs, 13 minutes (2 cores at 3e10 FLOP/s)

Expected: at scale paper 4 epochs cost AR 0.02 nats per token on average over the computes, 20 epochs
0.11, and diffusion nothing (0.00 for both); at 1e19 FLOPs AR ends at 3.29, 3.37 and 4.07 after 1, 20
and 100 epochs, diffusion between 3.80 and 3.88 after any. On a laptop (one seed, lower compute) AR
ends at 1.85, 2.14 and 4.67 after 1, 20 and 100 epochs of ever fewer tokens, diffusion, which is far
from its best at this compute, between 2.84 and 2.89 (bounds) after any.
"""

from dlm.config import paper

PAIRS = {  # compute: size of AR, of diffusion, epochs
    "paper": {
        1e19: ("217m", "117m", (1, 2, 4, 10, 20, 50, 100)),
        3e19: ("425m", "217m", (1, 2, 4, 10, 20)),
        1e20: ("724m", "425m", (1, 2, 4, 10, 20)),
    },
    "gpu": {
        5e16: ("20m", "14m", (1, 2, 4, 10, 20, 50, 100)),
        1.5e17: ("35m", "20m", (1, 2, 4, 10, 20)),
        5e17: ("57m", "35m", (1, 2, 4, 10, 20)),
    },
    "laptop": {
        1e12: (128, 96, (1, 2, 4, 10, 20, 50, 100)),
        3e12: (192, 160, (1, 2, 4, 10, 20)),
    },
    "smoke": {8e8: (32, 32, (1, 2, 3))},
}


def get_config(scale="laptop"):
    most = max(run["data.unique_tokens"] for run in sweep(scale))
    return paper.base_config(paper.FRESH[scale], most)


def sweep(scale="laptop"):
    base = paper.base_config(paper.FRESH[scale])
    for compute, (ar, masked, counts) in PAIRS[scale].items():
        for objective, size in (("ar", ar), ("masked", masked)):
            for epochs in counts:
                yield paper.spend(base, objective, size, compute, epochs)
