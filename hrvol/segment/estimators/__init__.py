"""Estimators of scikit-learn and cuML behind one interface."""
