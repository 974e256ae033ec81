"""A multi-layer perceptron of scikit-learn, trained on images of ten classes."""

import warnings

import numpy as np
from sklearn.exceptions import ConvergenceWarning
from sklearn.neural_network import MLPClassifier

SAMPLES, PIXELS, CLASSES = 6000, 256, 10
EPOCHS = 8

rng = np.random.default_rng(3)
labels = rng.integers(0, CLASSES, SAMPLES)
prototypes = rng.random((CLASSES, 3, PIXELS))
styles = rng.integers(0, 3, SAMPLES)
images = prototypes[labels, styles] + 0.8 * rng.standard_normal((SAMPLES, PIXELS))
train, test = slice(0, 5000), slice(5000, SAMPLES)

model = MLPClassifier((256, 128), batch_size=128, max_iter=EPOCHS, alpha=1e-3, random_state=0)
with warnings.catch_warnings():
    warnings.simplefilter("ignore", ConvergenceWarning)  # training is stopped early on purpose
    model.fit(images[train], labels[train])

probabilities = model.predict_proba(images[test])
test_loss = -np.log(probabilities[np.arange(len(probabilities)), labels[test]]).mean()
print(f"training loss {model.loss_curve_[0]:.4f}, after {EPOCHS} epochs {model.loss_:.5f}")
print(f"test loss {test_loss:.4f}, accuracy {model.score(images[test], labels[test]):.3f}")
