"""A table from scikit-learn: 30 measurements of 569 tumours, benign or malignant (Street et al. 1993)."""

from __future__ import annotations

from cpmlho.study.registry import dataset

TEST = 114  # a fifth of the examples


@dataset(label="Breast cancer")
def breast_cancer(folder):
    """Return 455 + 114 examples of 30 features, standardised with the training examples; the folder is not used."""
    import numpy as np
    from sklearn.datasets import load_breast_cancer

    from cpmlho.study.arrays import Arrays

    features, labels = load_breast_cancer(return_X_y=True)
    order = np.random.default_rng(0).permutation(len(labels))
    test, train = order[:TEST], order[TEST:]
    features = (features - features[train].mean(0)) / features[train].std(0)
    return Arrays(features[train].astype(np.float32), labels[train], features[test].astype(np.float32), labels[test])
