<<<<<<< HEAD
"""The command line ``nkblas``."""
=======
"""The command line: a module for the parser, and one for each group of commands."""
>>>>>>> 45f523672aaaa7f9524602764837079393f03085
