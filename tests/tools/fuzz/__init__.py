"""Fuzzers: random calls of the public API beside NumPy, and damaged files for the store's readers.

``python -m fuzz`` (in this folder, or ``make fuzz``) runs them in batches, each in a process of its
own; ``tests/reliability/test_fuzz.py`` runs them for a few seconds. A case is known by its suite,
the seed and its number, and is the same wherever it runs.
"""
