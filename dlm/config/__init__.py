"""Describes experiments: settings and their ranges, objectives, sweeps, run ids, the plan of a run."""

from dlm.config.families import objective
from dlm.config.family import FAMILIES, Family, Objective, load_custom
from dlm.config.resolve import LADDER, SAME_RUN, base, from_json, resolve, run_id, to_json, trunk_id
from dlm.config.schema import (
    Config,
    Corpus,
    Data,
    Dropout,
    Evaluation,
    Mesh,
    Model,
    Optimizer,
    Tokenizer,
    Train,
)
