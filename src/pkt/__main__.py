"""`python -m pkt` is `pkt`."""

import sys

from pkt.cli import main

sys.exit(main())
