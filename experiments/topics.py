"""Does masked diffusion overtake autoregression where order carries no information?

A synthetic source: 16 topics over 128 symbols, each document an exchangeable draw from its own
mixture. Every order of a document is as likely as any other, so training in all orders is pure
augmentation: the clearest case of the phenomenon, and not real data.

  dlm run experiments/topics.py         a few minutes on 2 CPU cores

Expected: AR's best of three weight decays comes within ten epochs and thirty do not better it;
diffusion passes it after about thirty. Three seeds of each family.
"""

from dlm import config


def get_config(scale="laptop"):
    c = config.base()
    c.corpus.name = "topics"
    c.data.unique_tokens = 256 * 64
    c.optimizer.ema_decay = 0.99
    c.optimizer.weight_decay = 0.1
    c.evaluation.mc_samples = 2
    c.evaluation.samples = 1
    if scale == "smoke":
        c.model.layers, c.model.width, c.model.heads = 1, 32, 2
        c.train.duration = "2 steps"
    return c


def sweep(scale="laptop"):
    for seed in (0, 1, 2) if scale != "smoke" else (0,):
        for decay, schedule in ((0.1, "cosine"), (1.0, "cosine"), (8.0, "constant")):
            yield {
                "objective.name": "ar",
                "train.duration": "10 epochs" if scale != "smoke" else "2 steps",
                "optimizer.weight_decay": decay,
                "optimizer.schedule": schedule,
                "train.seed": seed,
            }
        yield {
            "objective.name": "masked",
            "objective.estimator": "count",
            "train.duration": "40 epochs" if scale != "smoke" else "2 steps",
            "train.seed": seed,
        }
