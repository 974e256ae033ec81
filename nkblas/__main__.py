"""``python -m nkblas``."""

import sys

from .cli import main

sys.exit(main())
