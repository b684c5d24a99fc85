"""Decides: plans, searches, compares finalists, writes what an engine loads. The only package to import Optuna."""
