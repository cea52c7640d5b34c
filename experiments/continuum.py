"""What lies between autoregression and diffusion, on the same 6,400 tokens and at one setting?

100 handwritten digits (8x8 pixels, 64 tokens each): one small model of each family, each at the same
size, learning rate, weight decay and epochs; nothing is tuned for any of them. Which overfit, which
keep learning, and what is each one's number: an exact likelihood, or an upper bound on it?

  dlm run experiments/continuum.py      about a quarter of an hour on 2 CPU cores

Expected: AR turns after about 8 epochs (1.76 nats per token), AR with noise after 27, in several
orders with their positions after 40 (1.58). Most bounds still fall after 160 epochs: jumps to
uniform tokens to 1.50, any order to 1.53, masked diffusion to 1.58; blocks of 8 turn at 91 (1.52).
One seed; the report draws all of them against epochs on one page.
"""

from dlm import config

COUNT = {"objective.estimator": "count"}
FAMILIES = (
    {"objective.name": "ar"},
    {"objective.name": "noise", "objective.noise": 0.25},
    {"objective.name": "orders", "objective.orders": 8},
    {"objective.name": "orders", "objective.orders": 8, "objective.targets": True},
    {"objective.name": "any_order", "objective.orders": 0, "objective.order_kind": "uniform"},
    {"objective.name": "block", "objective.block": 8, **COUNT},
    {"objective.name": "masked", **COUNT},
    {"objective.name": "masked", "objective.suffix": 0.5, **COUNT},
    {"objective.name": "dual", **COUNT},
    {"objective.name": "dual", "objective.scored_as": "ar", **COUNT},
    {"objective.name": "flow", "objective.path": "uniform", "model.time_conditioning": "adaln"},
    {"objective.name": "d3pm", "model.time_conditioning": "adaln"},
    {
        "objective.name": "d3pm",
        "objective.transition": "mixed",
        "model.time_conditioning": "adaln",
    },
    {
        "objective.name": "d3pm",
        "objective.parameterization": "score",
        "model.time_conditioning": "adaln",
    },
    {"objective.name": "gaussian", "model.time_conditioning": "adaln"},
)


def get_config(scale="laptop"):
    c = config.base()
    c.corpus.name = "digits"
    c.corpus.validation_fraction = 0.3
    c.data.unique_tokens = 100 * 64
    c.model.width = 96
    c.model.init_std = 96**-0.5
    c.optimizer.lr = 4e-3
    c.optimizer.min_lr_ratio = 0.05
    c.optimizer.weight_decay = 2.5
    c.optimizer.ema_decay = 0.999
    c.train.duration = "160 epochs"
    c.evaluation.every = "4 epochs"
    c.evaluation.interval_growth = 1.5
    c.evaluation.mc_samples = 4
    if scale == "smoke":
        c.model.layers, c.model.width, c.model.heads = 1, 32, 2
        c.train.duration = "2 steps"
    return c


def sweep(scale="laptop"):
    yield from FAMILIES
