"""The shapes that are measured, by suite."""

Shape = tuple[int, int, int]
"""m, n, k: C[m, n] = A[m, k] @ B[k, n]."""

SQUARE = (8, 16, 32, 64, 96, 128, 192, 256, 384, 512, 768, 1024, 1536, 2048)

SUITES: dict[str, tuple[Shape, ...]] = {
    "square": tuple((size, size, size) for size in SQUARE),
    # Layers of neural networks, from the evaluation in "Library Liberation" (arXiv 2511.13764).
    "paper": (
        (1024, 1024, 512),
        (1024, 2560, 1024),
        (1024, 352, 512),
        (1024, 512, 256),
        (128, 1024, 1024),
        (128, 1024, 4096),
        (128, 3072, 768),
        (128, 4096, 1024),
        (128, 768, 2304),
        (128, 768, 3072),
        (128, 768, 768),
        (256, 1024, 1024),
        (256, 1024, 4096),
        (256, 3072, 768),
        (256, 4096, 1024),
        (256, 768, 3072),
        (256, 768, 768),
    ),
}
