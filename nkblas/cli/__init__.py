"""The command line: a module for the parser, and one for each group of commands."""
