"""Do dropout of attention or masked inputs, which AR can have too, explain diffusion's advantage?

Figure 8 of arXiv 2507.15857: AR with 145M parameters for 50 epochs of 100M tokens, with more
attention dropout, and with "token masking", beside the best diffusion of paper_contours.py. The
paper's code masks keys of a share of the queries, its text speaks of tokens: both are here, at levels
of our choice, as no text has them. The code's option that turns diffusion's masks into suffixes,
without a result in the paper, is here too.

  dlm run experiments/paper_ablations.py
  dlm figures runs/paper_ablations --points curve --out figures     figure_7_8-ar, -noise, -masked

Cost of training, evaluation not counted; times are estimates:

  paper    15 runs, 2.27e20 FLOPs, 160 H100-hours (40% of 989 TFLOP/s)
  gpu      15 runs, 1.78e18 FLOPs, 2 H100-hours (25%)
  laptop   30 runs, 2.27e13 FLOPs, 6.3 minutes (2 cores at 3e10 FLOP/s)

Expected: at scale paper none of them takes AR (3.71 nats per token) to diffusion (3.55). On a laptop
(two seeds) AR reaches 1.616, 1.606 with attention dropout, 1.573 with masked keys and 1.581 with a
quarter of its inputs masked; diffusion 1.512 after 300 epochs, passing AR after about 80. With half of
the inputs masked, or half or more of attention dropped, AR is at its best when its 30 epochs end.
"""

from dlm.config import paper

UNIQUE = {"paper": 100e6, "gpu": 10e6, "laptop": 6400, "smoke": 1024}
AR = {"paper": ("140m", 50), "gpu": ("14m", 50), "laptop": (128, 30), "smoke": (32, 4)}
MASKED = {"paper": ("425m", 500), "gpu": ("35m", 500), "laptop": (128, 300), "smoke": (32, 4)}
SEEDS = {"paper": (1234,), "gpu": (0,), "laptop": (0, 1), "smoke": (0,)}
LEVELS = {"smoke": (0.5,)} | dict.fromkeys(("paper", "gpu", "laptop"), (0.25, 0.5, 0.75))


def get_config(scale="laptop"):
    return paper.base_config(paper.SCALES[scale], UNIQUE[scale])


def variants(scale):
    ar, noise = (paper.run(name, *AR[scale]) for name in ("ar", "noise"))
    yield ar
    yield paper.run("masked", *MASKED[scale])
    for level in LEVELS[scale]:
        yield ar | {"model.dropout.attention": level}
        yield noise | {"objective.noise": 0.0, "objective.attention_noise": level}
        yield noise | {"objective.noise": level}
    yield paper.run("masked", *AR[scale])
    for level in LEVELS[scale]:
        yield paper.run("masked", *AR[scale]) | {"objective.suffix": level}


def sweep(scale="laptop"):
    for seed in SEEDS[scale]:
        for run in variants(scale):
            yield run | {"train.seed": seed}
