"""The machine and the environment: CPU, settings, files, locks, log, toolchain."""
