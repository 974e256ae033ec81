<<<<<<< HEAD
"""Compiled kernels on disk, and the maintenance of the cache folder."""
=======
"""Kernels on disk: the store, and the maintenance of the cache folder."""
>>>>>>> 45f523672aaaa7f9524602764837079393f03085
