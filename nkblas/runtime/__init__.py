"""Plans for the engine's table, loaded and compiled kernels, threads."""
