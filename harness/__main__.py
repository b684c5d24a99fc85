"""`python -m harness doctor | probe`: what is on this machine, and what it can do at most."""

from harness.origin import stop_at_strangers

stop_at_strangers()

from harness.cli import main  # noqa: E402  (nothing of ours may be imported before the check above)

raise SystemExit(main())
