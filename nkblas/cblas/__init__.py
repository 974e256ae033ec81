"""The CBLAS and Fortran interface in C, which is a part of the engine's library."""
