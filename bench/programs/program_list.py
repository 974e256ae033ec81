"""The programs of this folder. This module is data."""

PROGRAMS: dict[str, tuple[str, ...]] = {
    "covariance_pca": (),
    "ridge": (),
    "logistic_regression": ("sklearn",),
    "mlp": ("sklearn",),
    "gaussian_process": (),
    "kmeans": (),
    "nmf": (),
    "encoder_block": (),
    "decoder_tokens": (),
    "image_filters": (),
    "kalman_filter": (),
    "kinematics": (),
    "finite_elements": (),
    "quantum_circuit": (),
    "markov_chain": (),
    "pagerank": (),
}
"""For each program, the optional packages that it imports besides NumPy."""
