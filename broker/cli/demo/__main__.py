"""`python -m broker.cli.demo`: the demo without the command tree around it."""

import sys

from broker.cli.demo import main

if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
