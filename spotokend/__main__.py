"""``python -m spotokend``: the command line, for when its script isn't on the path."""

import sys

from .cli import main

sys.exit(main())
