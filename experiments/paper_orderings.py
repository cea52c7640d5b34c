"""Does AR that is trained on many orders of its data over-fit later, as diffusion does?

Figure 7 of arXiv 2507.15857: AR on N fixed orders of each sequence, scored left to right, for 100
epochs of 100M tokens, beside AR and masked diffusion of the same size and epochs (278M parameters).
The paper's text permutes at random, its algorithm sorts positions after a normal draw of deviation
i for the i-th order: both are here (uniform, jitter). As in the paper nothing tells the model which
token is asked for next; orders with target positions are in experiments/continuum.py.

  dlm run experiments/paper_orderings.py
  dlm figures runs/paper_orderings --points curve --out figures     figure_7_8-orders

Cost of training, evaluation not counted; times are estimates:

  paper    10 runs, 1.90e20 FLOPs, 130 H100-hours (40% of 989 TFLOP/s)
  gpu      10 runs, 2.29e18 FLOPs, 2.6 H100-hours (25%)
  laptop   20 runs, 3.06e13 FLOPs, 8.5 minutes (2 cores at 3e10 FLOP/s)

Expected: at scale paper more orders postpone over-fitting and lower AR's best loss, with N = 16 close
to diffusion. On a laptop (two seeds) AR is best at 1.628 after 9 epochs, with 4 uniform orders at
1.510 after 83, below diffusion's 1.60 (a bound) after 100; with 8 or 16 it still improves then.
"""

from dlm.config import paper

UNIQUE = {"paper": 100e6, "gpu": 10e6, "laptop": 6400, "smoke": 1024}
SIZE = {"paper": "278m", "gpu": "35m", "laptop": 128, "smoke": 32}
EPOCHS = {"paper": 100, "gpu": 100, "laptop": 100, "smoke": 4}
ORDERS = {"paper": (2, 4, 8, 16), "gpu": (2, 4, 8, 16), "laptop": (2, 4, 8, 16), "smoke": (2,)}
SEEDS = {"paper": (1234,), "gpu": (0,), "laptop": (0, 1), "smoke": (0,)}


def get_config(scale="laptop"):
    return paper.base_config(paper.SCALES[scale], UNIQUE[scale])


def sweep(scale="laptop"):
    for seed in SEEDS[scale]:
        for objective in ("ar", "masked", "orders"):
            same = paper.run(objective, SIZE[scale], EPOCHS[scale]) | {"train.seed": seed}
            if objective != "orders":
                yield same
                continue
            for kind in ("jitter", "uniform"):
                for orders in ORDERS[scale]:
                    yield same | {"objective.orders": orders, "objective.order_kind": kind}
