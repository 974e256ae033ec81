"""What the machine and its operating system provide: CPU, environment, files, locks, tools."""
