"""What lies between autoregression and diffusion, on the same 6,400 tokens and at one setting?

100 handwritten digits (8x8 pixels, 64 tokens each): one small model of each family, each at the same
size, learning rate, weight decay and epochs; nothing is tuned for any of them. Which overfit, which
keep learning, and what is each one's number: an exact likelihood, or an upper bound on it?

  dlm run experiments/continuum.py      about twenty minutes on 2 CPU cores

Expected: AR turns after about 8 epochs (1.73 nats per token), AR with noise after 27, in several
orders with their positions after 60 (1.53). Most bounds still fall after 160 epochs: jumps to
uniform tokens and masks to 1.53, any order to 1.53, masked diffusion to 1.59, by Muon to 1.50, in
twice the depth of the same weights to 1.53; blocks of 8 turn at 91 (1.49). A model trained as AR and
as masked diffusion, half and half, has a bound of 1.63 and, scored left to right, an exact 1.50.
Sixteen orders on 128 windows lower the bounds of masks by 0.02 to 0.04. One seed; the report draws
all of them against epochs on one page.
"""

from dlm import config

FINAL = {"evaluation.final": "orders:16 on 128 windows"}  # a tighter bound than the NELBO
COUNT = {"objective.estimator": "count"}
TIMED = {"model.time_conditioning": "adaln"}
FAMILIES = (
    {"objective.name": "ar"},
    {"objective.name": "noise", "objective.noise": 0.25},
    {"objective.name": "orders", "objective.orders": 8},
    {"objective.name": "orders", "objective.orders": 8, "objective.targets": True},
    {
        "objective.name": "any_order",
        "objective.orders": 0,
        "objective.order_kind": "uniform",
        **FINAL,
    },
    {"objective.name": "block", "objective.block": 8, **COUNT, **FINAL},
    {"objective.name": "masked", **COUNT, **FINAL},
    {"objective.name": "masked", "objective.suffix": 0.5, **COUNT, **FINAL},
    {"objective.name": "dual", **COUNT, **FINAL},
    {"objective.name": "dual", "objective.scored_as": "ar", **COUNT},
    {"objective.name": "flow", "objective.path": "uniform", **TIMED},
    {"objective.name": "d3pm", **TIMED},
    {"objective.name": "d3pm", "objective.transition": "mixed", **TIMED},
    {"objective.name": "d3pm", "objective.parameterization": "score", **TIMED},
    {"objective.name": "gaussian", **TIMED},
)
# Muon takes 4 times the rate of AdamW or more; the decay of a step, lr x weight_decay, is the same.
MUON = {"optimizer.name": "muon", "optimizer.lr": 1.6e-2, "optimizer.weight_decay": 0.625}
LOOPED = {"model.loops": 2}
RIVALS = tuple(
    {**family, **change}
    for change in (MUON, LOOPED)
    for family in ({"objective.name": "ar"}, {"objective.name": "masked", **COUNT, **FINAL})
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
    for setting in (*FAMILIES, *RIVALS):
        final = {} if scale != "smoke" else {"evaluation.final": ""}
        yield {**setting, **final}
