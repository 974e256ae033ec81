"""Fuzzers: random calls of the public API, compared with NumPy, and damaged files in the store.

``make fuzz``, or ``python -m fuzz`` in the parent folder, runs batches of cases, each batch in a
process of its own; ``tests/reliability/test_fuzz.py`` runs both suites for a few seconds. Suite,
seed and number identify a case: it is the same in every run.
"""
