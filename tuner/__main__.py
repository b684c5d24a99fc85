"""`python -m tuner`: tune, or one of the verbs that explain and reuse what was tuned."""

from harness.origin import stop_at_strangers

stop_at_strangers()

from tuner.cli import main  # noqa: E402  (nothing of ours may be imported before the check above)

raise SystemExit(main())
