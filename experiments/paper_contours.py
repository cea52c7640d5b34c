"""Which model size and how many epochs are best for each family on one budget of unique tokens?

Figure 2 of arXiv 2507.15857: 69 AR and 71 masked-diffusion models on 100M tokens of C4, sizes by
epochs as read off the figure, each a run of its own with its own schedule, none stopped early.
Smaller scales keep the map and shrink the budget: 10M tokens, or 100 handwritten digits.

  dlm run experiments/paper_contours.py
  dlm figures runs/paper_contours --points last --out figures

Cost of training, evaluation not counted; times are estimates:

  paper   140 runs, 2.95e21 FLOPs, 2,070 H100-hours (40% of 989 TFLOP/s)
  gpu      40 runs, 9.76e18 FLOPs, 11 H100-hours (25%)
  laptop   24 runs, 3.23e13 FLOPs, 9 minutes (2 cores at 3e10 FLOP/s)

Expected: at scale paper AR is best with 145M parameters after 50 epochs (3.71 nats per token; 4.3e18
FLOPs by 6ND) and worse after more at any size; diffusion with 417M after 500 (3.55; 1.2e20), where
615M has risen and 276M begins to. On a laptop AR's best lies at few epochs, the fewer the larger the
model, and diffusion's at many.
"""

from dlm.config import paper

UNIQUE = {"paper": 100e6, "gpu": 10e6, "laptop": 6400, "smoke": 2048}
AR = {
    "paper": {
        "2283m": (10, 30),  # its marker may also be 2298m's
        "1143m": (10, 30, 50),
        "632m": (10, 30, 50, 60, 100),
        "552m": (10, 30, 50, 60),
        "425m": (10, 20, 30, 50, 60, 100, 200),
        "278m": (10, 30, 50, 60, 100, 200),
        "217m": (10, 30, 50, 60, 100, 200),
        "140m": (10, 30, 40, 50, 60, 100, 200, 500),
        "74m": (1, 10, 30, 50, 60, 100, 200),
        "44m": (1, 10, 30, 50, 60, 100, 200, 500),
        "14m": (1, 10, 30, 50, 60, 100, 500),
        "7m": (1, 10, 30, 50, 60, 100),
    },
    "gpu": dict.fromkeys(("57m", "35m", "14m", "7m"), (10, 30, 50, 100, 200)),
    "laptop": {128: (5, 10, 30, 100), 64: (10, 30, 100, 300), 32: (10, 30, 100, 300)},
    "smoke": {32: (2, 4), 64: (2, 4)},
}
MASKED = {
    "paper": {
        "2283m": (50, 100),
        "1143m": (10, 50, 100, 150),
        "724m": (50, 100),
        "632m": (10, 20, 50, 100, 200, 500),
        "552m": (10, 20, 50, 100, 150, 200),
        "425m": (10, 20, 50, 100, 200, 300, 500),
        "278m": (10, 20, 50, 100, 200, 350, 500),
        "217m": (10, 50, 100, 200, 250, 500),
        "140m": (10, 50, 100, 200, 500),
        "74m": (1, 10, 50, 100, 200, 500, 800),
        "44m": (1, 10, 50, 150, 500, 800),
        "14m": (1, 10, 50, 100, 200, 500, 800),
        "7m": (1, 10, 50, 100, 200, 500),
    },
    "gpu": dict.fromkeys(("57m", "35m", "14m", "7m"), (10, 50, 100, 200, 500)),
    "laptop": dict.fromkeys((128, 64, 32), (30, 100, 300, 900)),
    "smoke": {32: (2, 4), 64: (2, 4)},
}


def get_config(scale="laptop"):
    return paper.base_config(paper.SCALES[scale], UNIQUE[scale])


def sweep(scale="laptop"):
    for objective, grid in (("ar", AR[scale]), ("masked", MASKED[scale])):
        for size, counts in grid.items():
            for epochs in counts:
                yield paper.run(objective, size, epochs)
