"""The program ``zeg``: ``python -m zeg`` and the console script."""

from __future__ import annotations

import sys

from zeg import _zeg


def main() -> None:
    """Runs the program with the arguments of the process, and ends with its exit code."""
    sys.stdout.flush()
    code = _zeg.main([sys.executable, "-m", "zeg"], sys.argv[1:])
    sys.exit(code)


if __name__ == "__main__":
    main()
