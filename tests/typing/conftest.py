"""pytest collects every file for doctests; mistakes.py is for the type checker and cannot run."""

collect_ignore = ["mistakes.py"]
