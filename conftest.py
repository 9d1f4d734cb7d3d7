"""Doctests of modules whose extra is not installed are left out; everything else is collected."""

from importlib.util import find_spec

collect_ignore = [] if find_spec("ragas") else ["src/litee/score/retrieval_metrics.py"]
