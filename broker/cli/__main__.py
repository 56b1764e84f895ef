"""The `certmesh` command."""

from broker.cli.tree import root


def main() -> None:
    """Run the command line and leave with its exit status."""
    root.main()


if __name__ == "__main__":
    main()
