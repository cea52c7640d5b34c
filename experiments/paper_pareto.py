"""At which compute does masked diffusion overtake autoregression on 25, 50 and 100M unique tokens?

Figures 1 and 9 of arXiv 2507.15857: the lowest validation loss at or below each compute, over all
sizes and epochs, for three budgets that contain each other, and the pair of Table 3 on 500M tokens.
The largest grid is that of paper_contours.py: its run folders, copied beside these, are skipped. The
other grids are in no text; they are ours, chosen to make up about 100 runs of each family, as the
paper counts. Table 3 does not say how its AR was trained: here at the same size, for 10 epochs.

  dlm run experiments/paper_pareto.py
  dlm figures runs/paper_pareto --out figures
  dlm critical runs/paper_pareto --law data-constrained

Cost of training, evaluation not counted; times are estimates:

  paper   202 runs, 4.54e21 FLOPs, 3,190 H100-hours (40% of 989 TFLOP/s)
  gpu      82 runs, 1.55e19 FLOPs, 17 H100-hours (25%)
  laptop   60 runs, 5.49e13 FLOPs, 15 minutes (2 cores at 3e10 FLOP/s)

Expected: at scale paper AR stops at 3.97 nats per token on 50M tokens and 3.71 on 100M, diffusion
reaches 3.73 and 3.55; they cross at 3.6e18, 1.3e19 and 2.5e19 FLOPs (6ND) on 25, 50 and 100M. Its
law has C_crit ~ U^2.17; its own points, as drawn, U^2.39. On a laptop (one seed) the frontiers meet at
6.4e10, 1.5e11 and 1.1e12 FLOPs on 1,600, 3,200 and 6,400 tokens of digits.
"""

from pathlib import Path

from dlm.config import experiment, paper

CONTOURS = str(Path(__file__).with_name("paper_contours.py"))
LARGER = ("44m", "74m", "140m", "278m", "425m")
SMALLER = ("14m", "44m", "74m", "140m", "278m")
GRIDS = {  # unique tokens: sizes; beside the grid of paper_contours.py
    "paper": {50e6: LARGER, 25e6: SMALLER},
    "gpu": {5e6: ("57m", "35m", "14m", "7m"), 2.5e6: ("35m", "14m", "7m")},
    "laptop": {3200: (128, 64, 32), 1600: (128, 64, 32)},
    "smoke": {1024: (32, 64)},
}
EPOCHS = {
    "paper": {"ar": (10, 30, 100), "masked": (50, 200, 800)},
    "gpu": {"ar": (10, 30, 100), "masked": (50, 200, 800)},
    "laptop": {"ar": (10, 30, 100), "masked": (100, 300, 900)},
    "smoke": {"ar": (2, 4), "masked": (2, 4)},
}
PAIR = {"ar": 10, "masked": 130}  # epochs of 2283m on 500M tokens


def get_config(scale="laptop"):
    return experiment.load(CONTOURS, scale)[0]


def sweep(scale="laptop"):
    yield from experiment.load(CONTOURS, scale)[1]
    length = paper.SCALES[scale]["data.seq_len"]
    for unique, sizes in GRIDS[scale].items():
        for objective, counts in EPOCHS[scale].items():
            for size in sizes:
                for epochs in counts:
                    budget = {"data.unique_tokens": paper.windows(unique, length)}
                    yield paper.run(objective, size, epochs) | budget
    for objective, epochs in PAIR.items() if scale == "paper" else ():
        yield paper.run(objective, "2283m", epochs) | {
            "data.unique_tokens": paper.windows(500e6, length),
            "corpus.options.documents": paper.documents(500e6),
        }
