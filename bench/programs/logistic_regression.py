"""Multinomial logistic regression with scikit-learn on images of ten classes."""

import numpy as np
from sklearn.linear_model import LogisticRegression
from sklearn.model_selection import train_test_split
from sklearn.preprocessing import StandardScaler

SAMPLES, PIXELS, CLASSES = 8000, 256, 10
STRENGTHS = (1e-4, 1e-3, 1e-2)

rng = np.random.default_rng(2)
labels = rng.integers(0, CLASSES, SAMPLES)
# each class has three prototypes, as digits have several ways of being written
prototypes = rng.random((CLASSES, 3, PIXELS))
styles = rng.integers(0, 3, SAMPLES)
images = prototypes[labels, styles] + 1.5 * rng.standard_normal((SAMPLES, PIXELS))

x_train, x_test, y_train, y_test = train_test_split(images, labels, random_state=0)
scaler = StandardScaler().fit(x_train)
x_train, x_test = scaler.transform(x_train), scaler.transform(x_test)

for strength in STRENGTHS:
    model = LogisticRegression(C=strength, max_iter=60).fit(x_train, y_train)
    probabilities = model.predict_proba(x_test)
    loss = -np.log(probabilities[np.arange(len(y_test)), y_test]).mean()
    accuracy = model.score(x_test, y_test)
    norm = np.linalg.norm(model.coef_)
    print(f"C {strength:g}: loss {loss:.4f}, accuracy {accuracy:.3f}, weights {norm:.4f}")
