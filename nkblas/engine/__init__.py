"""The engine in C, and the programs that make its tables, its extension module and its stub."""
