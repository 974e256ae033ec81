"""What happens when a program multiplies: plans for the engine, kernels, threads."""
