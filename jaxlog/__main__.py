"""`python -m jaxlog` is the command `jaxlog`."""

from __future__ import annotations

import sys

from jaxlog.command_line import main

sys.exit(main())
