"""scikit-learn on the digits that it ships: hosted features, hosted labels, and workers that are sent proxies."""

import importlib
from collections.abc import Iterator
from typing import Any

import numpy as np
import pytest

from tests.consumers.conftest import VIEWS, Maker
from tests.consumers.libraries import assert_equal, library

sklearn = library("sklearn.ensemble")

TRANSFORMERS = {
    "StandardScaler": ("preprocessing", {}),
    "MinMaxScaler": ("preprocessing", {}),
    "Normalizer": ("preprocessing", {}),
    "QuantileTransformer": ("preprocessing", {"n_quantiles": 20}),
    "PCA": ("decomposition", {"n_components": 5, "random_state": 0}),
    "KMeans": ("cluster", {"n_clusters": 10, "n_init": 1, "random_state": 0}),
}
CLASSIFIERS = {
    "RandomForestClassifier": ("ensemble", {"n_estimators": 10, "n_jobs": 2, "random_state": 0}),
    "DecisionTreeClassifier": ("tree", {"random_state": 0}),
    "SVC": ("svm", {}),
    "KNeighborsClassifier": ("neighbors", {"n_jobs": 2}),
    "GaussianNB": ("naive_bayes", {}),
    "RidgeClassifier": ("linear_model", {}),
}


@pytest.fixture(scope="module")
def digits(sklearn: Any, hosted: Maker) -> list[tuple[Any, ...]]:
    """For a whole array and for views: features and labels, hosted; features and labels, plain."""
    data, target = importlib.import_module("sklearn.datasets").load_digits(return_X_y=True)
    arrays = hosted(data[:600]), hosted(target[:600]), data[:600], target[:600]
    return [tuple(map(view, arrays)) for view in VIEWS.values()]


def made(name: str, table: dict[str, Any]) -> Any:
    module, options = table[name]
    return getattr(importlib.import_module(f"sklearn.{module}"), name)(**options)


@pytest.mark.parametrize("name", TRANSFORMERS)
def test_transformers(digits: Any, name: str) -> None:
    for features, _, x, _ in digits:
        ours, theirs = made(name, TRANSFORMERS).fit(features), made(name, TRANSFORMERS).fit(x)
        assert_equal(ours.transform(features), theirs.transform(x), rtol=1e-9)
        assert_equal(ours.transform(features[:7]), theirs.transform(x[:7]), rtol=1e-9)


@pytest.mark.parametrize("name", CLASSIFIERS)
def test_classifiers(digits: Any, name: str) -> None:
    for features, labels, x, y in digits:
        ours = made(name, CLASSIFIERS).fit(features[50:], labels[50:])
        theirs = made(name, CLASSIFIERS).fit(x[50:], y[50:])
        assert_equal(ours.predict(features[:50]), theirs.predict(x[:50]))
        assert ours.score(features, labels) == theirs.score(x, y)


def test_around_the_estimators(digits: Any) -> None:
    selection, metrics = map(importlib.import_module, ("sklearn.model_selection", "sklearn.metrics"))
    for features, labels, x, y in digits:
        ours = selection.train_test_split(features, labels, random_state=0, stratify=labels)
        theirs = selection.train_test_split(x, y, random_state=0, stratify=y)
        assert_equal([np.asarray(part) for part in ours], theirs)
        assert_equal(metrics.confusion_matrix(labels, labels), metrics.confusion_matrix(y, y))
        assert_equal(metrics.pairwise_distances(features[:9]), metrics.pairwise_distances(x[:9]))


@pytest.fixture(scope="module")
def workers() -> Iterator[None]:
    """The processes that joblib keeps for later calls."""
    joblib = importlib.import_module("joblib")
    loky = importlib.import_module("joblib.externals.loky")
    joblib.Parallel(n_jobs=2)([joblib.delayed(abs)(-1), joblib.delayed(abs)(-2)])
    yield
    loky.get_reusable_executor().shutdown(wait=True)


@pytest.mark.census_ignore(r"loky|joblib_memmapping", reason="joblib keeps its workers; the module's fixture ends them")
def test_cross_validation_in_processes(digits: Any, workers: None) -> None:
    selection = importlib.import_module("sklearn.model_selection")
    model = made("DecisionTreeClassifier", CLASSIFIERS)
    for features, labels, x, y in digits:
        ours = selection.cross_val_score(model, features, labels, cv=2, n_jobs=2)
        assert_equal(ours, selection.cross_val_score(model, x, y, cv=2))
