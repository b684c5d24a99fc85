"""The verbs of `python -m harness`, a module each: HELP, add_arguments(parser) and run(args)."""
