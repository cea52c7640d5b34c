"""What does a frontier over epochs cost when short decays branch off one long run?

100 digits, AR and masked diffusion, budgets of 20 to 160 epochs: once as separate cosine runs, once
with schedule wsd, where `dlm run` trains what the runs share only once (dlm/training/shared_prefix.py).

  dlm run experiments/frontier.py       about six minutes on 2 CPU cores

Expected: the wsd runs end within 0.03 nats of the cosine runs of the same length, for about two thirds
of the steps.
"""

from dlm import config

FAMILIES = (
    {"objective.name": "ar"},
    {"objective.name": "masked", "objective.estimator": "count"},
)
EPOCHS = (20, 40, 80, 160)


def get_config(scale="laptop"):
    c = config.base()
    c.corpus.name = "digits"
    c.corpus.validation_fraction = 0.3
    c.data.unique_tokens = 100 * 64
    c.model.init_std = 128**-0.5
    c.optimizer.lr = 4e-3
    c.optimizer.weight_decay = 2.5
    c.optimizer.min_lr_ratio = 0.05
    c.optimizer.decay = "20 percent"
    c.evaluation.every = "5 epochs"
    if scale == "smoke":
        c.model.layers, c.model.width, c.model.heads = 1, 32, 2
    return c


def sweep(scale="laptop"):
    for schedule in ("cosine", "wsd"):
        for family in FAMILIES:
            for epochs in EPOCHS:
                yield {
                    "optimizer.schedule": schedule,
                    **family,
                    "train.duration": f"{epochs} epochs" if scale != "smoke" else f"{epochs} steps",
                }
