"""The `tf-bert` command, for launchers that start scripts only: `python scripts/run_tf_bert.py COMMAND ...`."""

import sys

from tf_bert.cli import main

if __name__ == "__main__":
    sys.exit(main())
