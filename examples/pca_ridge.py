"""A scikit-learn pipeline: principal components and ridge regression, with cross-validation.

Run it with ``python examples/pca_ridge.py``, or unchanged on nkblas with ``nkblas run --report
examples/pca_ridge.py``.
"""

import numpy as np
from sklearn.datasets import make_low_rank_matrix
from sklearn.decomposition import PCA
from sklearn.linear_model import Ridge
from sklearn.model_selection import GridSearchCV
from sklearn.pipeline import make_pipeline

SAMPLES, FEATURES, RANK = 1500, 200, 30


def main() -> None:
    random = np.random.default_rng(0)
    x = make_low_rank_matrix(SAMPLES, FEATURES, effective_rank=RANK, random_state=0)
    y = x @ random.normal(size=(FEATURES, 5)) + 0.01 * random.normal(size=(SAMPLES, 5))
    pipeline = make_pipeline(PCA(svd_solver="covariance_eigh"), Ridge(solver="cholesky"))
    grid = {"pca__n_components": [10, 40, 160], "ridge__alpha": [1e-4, 1e-2, 1.0]}
    search = GridSearchCV(pipeline, grid).fit(x, y)
    print("components", search.best_params_["pca__n_components"])
    print("alpha", search.best_params_["ridge__alpha"])
    print("score", search.best_score_)
    print("prediction", *search.predict(x[:1])[0])


if __name__ == "__main__":
    main()
