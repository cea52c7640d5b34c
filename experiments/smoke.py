"""Does the whole arc work: corpus, tokens, training, resume, evaluation, samples, crossover, report?

Two tiny models on the 8x8 digits, an autoregressive and a masked one, one seed each.

  dlm run experiments/smoke.py          under a minute on 2 CPU cores

Expected: two finished runs and a report. The losses mean nothing at this size.
"""

from dlm import config


def get_config(scale="laptop"):
    c = config.base()
    c.corpus.name = "digits"
    c.corpus.validation_fraction = 0.1
    c.data.unique_tokens = 32 * 64
    c.model.layers = 1
    c.model.width = 32
    c.model.heads = 2
    c.train.duration = "8 epochs"
    c.optimizer.warmup = "4 steps"
    c.optimizer.ema_decay = 0.9
    c.evaluation.every = "2 epochs"
    c.evaluation.samples = 2
    return c


def sweep(scale="laptop"):
    for name in ("ar", "masked"):
        yield {"objective.name": name}
