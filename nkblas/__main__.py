"""``python -m nkblas``."""

import sys

from nkblas.cli.command_line import main

sys.exit(main())
