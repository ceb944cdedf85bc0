"""`python -m marginbench`: the same as the `marginbench` command."""

import sys

from marginbench.cli import main

sys.exit(main())
