"""`python -m fastdino`."""

import sys

from fastdino.cli import main

sys.exit(main())
