"""The Python API: arguments are normalised here, and run on the engine or else on NumPy."""
