"""`python -m transformers_tart`."""

import sys

from transformers_tart.cli import main


sys.exit(main())
