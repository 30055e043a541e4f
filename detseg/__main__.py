"""`python -m detseg` is the `detseg` command."""

import sys

from detseg.cli import main

sys.exit(main())
