"""Tree ensembles of LightGBM and XGBoost through onnxmltools. Each entry of TREES makes (bytes, inputs)."""

import lightgbm
import numpy as np
import onnxmltools
import xgboost
from onnxmltools.convert.common.data_types import FloatTensorType

FEATURES, ROWS = 8, 5


def data():
    rng = np.random.default_rng(7)
    x = rng.normal(0, 1, (600, FEATURES)).astype(np.float32)
    y = x[:, 0] * x[:, 1] + np.abs(x[:, 2]) + rng.normal(0, 0.1, 600)
    return x, y.astype(np.float32)


def converted(convert, model, **options):
    x, _ = data()
    types = [("features", FloatTensorType([None, FEATURES]))]
    content = convert(model, initial_types=types, target_opset=15, **options).SerializeToString()
    return content, {"features": x[:ROWS]}


def lightgbm_regressor():
    x, y = data()
    model = lightgbm.LGBMRegressor(n_estimators=20, num_leaves=8, verbose=-1).fit(x, y)
    return converted(onnxmltools.convert_lightgbm, model)


def lightgbm_ranker():
    x, y = data()
    grades = np.digitize(y, [0.0, 0.5, 1.0, 2.0])
    model = lightgbm.LGBMRanker(n_estimators=20, num_leaves=8, verbose=-1).fit(x, grades, group=[20] * 30)
    return converted(onnxmltools.convert_lightgbm, model.booster_)


def lightgbm_classifier():
    x, y = data()
    model = lightgbm.LGBMClassifier(n_estimators=20, num_leaves=8, verbose=-1).fit(x, (y > 1).astype(int))
    return converted(onnxmltools.convert_lightgbm, model, zipmap=False)


def xgboost_regressor():
    x, y = data()
    return converted(onnxmltools.convert_xgboost, xgboost.XGBRegressor(n_estimators=20, max_depth=4).fit(x, y))


def xgboost_classifier():
    x, y = data()
    return converted(onnxmltools.convert_xgboost, xgboost.XGBClassifier(n_estimators=20, max_depth=4).fit(x, (y > 1).astype(int)))


TREES = {
    "lightgbm-regressor": lightgbm_regressor,
    "lightgbm-ranker": lightgbm_ranker,
    "lightgbm-classifier": lightgbm_classifier,
    "xgboost-regressor": xgboost_regressor,
    "xgboost-classifier": xgboost_classifier,
}
