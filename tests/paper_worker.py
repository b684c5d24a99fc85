"""`python -m tuner`, but it measures whole spaces however little they promise, and soon takes a worker for gone."""

import sys

import tuner.sharing
import tuner.study
from tuner.cli import main
from tuner.search import Stop

tuner.study.Stop = lambda seconds: Stop(seconds, patience=10**9)  # type: ignore[assignment,misc]
tuner.sharing.BEAT_S, tuner.sharing.GRACE_S = 0.5, 5.0

if __name__ == "__main__":
    sys.exit(main())
