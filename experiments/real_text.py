"""At which compute does masked diffusion overtake autoregression on scarce English prose?

The prose panel of quickstart.py, trained for longer: 10,240 characters of Python's standard library,
masked diffusion for 250 epochs, AR at three settings past its best, three seeds of everything.

  dlm run experiments/real_text.py      about seven minutes on 2 CPU cores

Expected: at equal settings diffusion passes AR after about 209 epochs and ends 0.05 nats per character
below it. AR's best setting (weight decay 8, constant rate) reaches 2.18, which diffusion, at 2.48, does
not pass here; its trend would at about seven times the compute.
"""

import quickstart


def get_config(scale="laptop"):
    return quickstart.get_config(scale)


def sweep(scale="laptop"):
    return quickstart.sweep(scale, panels=(quickstart.PROSE,), epochs={"stdlib": (24, 24, 60, 250)})
