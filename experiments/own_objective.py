"""Is reading backwards harder than reading forwards?

An objective of one's own, in one file. It is named from the config by this file's path, and needs
nothing in `dlm/`. Put it to the laws that every objective keeps (probabilities that sum to one,
gradients, samples), then train it beside AR:

  dlm check-objective experiments/own_objective.py
  dlm run experiments/own_objective.py      about a minute on 2 CPU cores

Expected: on 400 handwritten digits reading backwards ends 0.02 nats per token above reading forwards
(1.431 and 1.410, one seed).
"""

import jax.numpy as jnp

from dlm import config
from dlm.objectives import ar

FAMILY = config.Family(
    exact=True,
    extra_tokens=1,
    extra_positions=0,
    attention="causal",
    formula="-sum_j log p(x_j | x_>j)",
    source="this file",
)


def make(objective, vocab_size):
    """loss, nll and sample (see `dlm.objectives.Objective`), for tokens Int[B L].

    `init(objective, params) -> params`, beside `make`, may add parameters of the objective's own.
    What a loss of yours draws, it draws from `dlm.model.keys.row_keys(key, len(tokens))`: each row has
    its own.
    """
    forward_loss, forward_nll, forward_sample = ar.make(objective, vocab_size)

    def loss(apply, params, tokens, key, step=None):
        return forward_loss(apply, params, tokens[:, ::-1], key, step)

    def nll(apply, params, tokens, key, passes):
        return forward_nll(apply, params, tokens[:, ::-1], key, passes)

    def sample(model, params, key, prompt, length, *, infill=None, **options):
        """From the end; what is given stays, known to what stands before it."""
        wanted = jnp.pad(prompt, ((0, 0), (0, length - prompt.shape[1])), constant_values=-1)
        wanted = wanted if infill is None else infill
        empty = prompt[:, :0]
        drawn = forward_sample(model, params, key, empty, length, infill=wanted[:, ::-1], **options)
        return drawn[:, ::-1]

    return loss, nll, sample


def get_config(scale="laptop"):
    c = config.base()
    c.corpus.name = "digits"
    c.corpus.validation_fraction = 0.3
    c.data.unique_tokens = 400 * 64
    c.optimizer.weight_decay = 2.5
    c.train.duration = "10 epochs"
    if scale == "smoke":
        c.model.layers, c.model.width, c.model.heads = 1, 32, 2
        c.train.duration = "2 steps"
    return c


def sweep(scale="laptop"):
    yield {"objective.name": "ar"}
    yield {"objective.name": "backwards", "objective.file": __file__}
