"""How the likelihood of trained weights is scored: which number, and its options. Loads no JAX."""

from __future__ import annotations

import re
from dataclasses import dataclass
from typing import Any

from dlm.config.family import PATHS
from dlm.config.fields import MOST
from dlm.errors import DlmError, nearest

BOUNDS = ("nelbo", "orders", "tangent", "path")
MOST_ORDERS = 1024
# The config's short form: "orders:16 on 128 windows", "path:confidence:4".
SHORT = re.compile(r"([a-z]+)((?::[a-z0-9-]+)*)(?: on (\d+) windows)?")
RIGHT = 'such as "orders:16 on 128 windows", "tangent:16" or "path:confidence:4"'


@dataclass(frozen=True)
class Method:
    """Which number to score, see `dlm.evaluation.likelihood`, and how.

    Raises:
      DlmError: names the option, its value, and what would be right.
    """

    bound: str = "nelbo"
    orders: int = 16  # of bounds orders and tangent
    path: str = "confidence"  # of bound path
    tokens_per_call: int = 1  # of all but the NELBO: a call of the sampler reveals so many
    entropy_budget: float = 0.1  # nats, of path "entropy"
    # nats per token: Monte Carlo samples of the NELBO are added until their error is below; 0: until
    # it is below a quarter of the error over documents
    mc_stderr: float = 0.0
    windows: int = 0  # of the validation split, spread evenly over it; 0: all

    def __post_init__(self) -> None:
        for name, value, words in (("bound", self.bound, BOUNDS), ("path", self.path, PATHS)):
            if value not in words:
                near = nearest(str(value), words)
                raise DlmError(f"{name}={value!r}: must be one of {', '.join(words)}{near}")
        least = 4 if self.bound == "tangent" else 2
        for name, value, low, high in (
            ("orders", self.orders, least, MOST_ORDERS),
            ("tokens_per_call", self.tokens_per_call, 1, MOST),
            ("windows", self.windows, 0, 10**15),
        ):
            if not (
                isinstance(value, int) and not isinstance(value, bool) and low <= value <= high
            ):
                raise DlmError(f"{name}={value!r}: must be a whole number from {low} to {high:,}")
        for name, value in (("entropy_budget", self.entropy_budget), ("mc_stderr", self.mc_stderr)):
            if not (isinstance(value, int | float) and 0 <= value < float("inf")):
                raise DlmError(f"{name}={value!r}: must be 0 or above, in nats")

    @property
    def name(self) -> str:
        """What was scored, in words: "orders 16", "path confidence, 4 tokens a call"."""
        if self.bound == "nelbo":
            return self.bound
        what = f"path {self.path}" if self.bound == "path" else f"{self.bound} {self.orders}"
        if what == "path entropy":
            what += f" {self.entropy_budget:g} nats"
        return (
            what if self.tokens_per_call == 1 else f"{what}, {self.tokens_per_call} tokens a call"
        )

    def calls(self, part: int) -> int:
        """Calls of the model for one window whose parts of `part` tokens are revealed side by side."""
        calls = -(-part // self.tokens_per_call)
        return {"nelbo": 1, "path": calls}.get(self.bound, calls * self.orders)


def parse(text: str, **options: Any) -> Method:
    """The method of a short form such as "orders:16 on 128 windows".

    Raises:
      DlmError: the text is of another form, or a value is out of range.
    """
    match = SHORT.fullmatch(text.strip())
    if match is None or match[1] not in BOUNDS[1:] or match[3] == "0":
        raise DlmError(f"must be {RIGHT}")
    words = [word for word in match[2].split(":") if word]
    values: dict[str, Any] = {"bound": match[1], "windows": int(match[3] or 0)}
    if match[1] == "path" and words and not words[0].isdigit():
        values["path"] = words.pop(0)
    if words:
        count = "tokens_per_call" if match[1] == "path" else "orders"
        values[count] = int(words[0]) if words[0].isdigit() else words[0]
    if len(words) > 1:
        raise DlmError(f"must be {RIGHT}")
    return Method(**values, **options)
