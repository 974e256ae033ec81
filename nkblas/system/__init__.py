<<<<<<< HEAD
"""What the machine and its operating system provide: CPU, environment, files, locks, tools."""
=======
"""The machine and the environment: CPU, settings, files, locks, log, toolchain."""
>>>>>>> 45f523672aaaa7f9524602764837079393f03085
