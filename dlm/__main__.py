"""`python -m dlm`: the command `dlm` of this Python, also from a checkout that is not installed."""

import sys

from dlm.cli.main import main

sys.exit(main())
