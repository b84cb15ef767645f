"""Learning from the table of a screen: correlation, and a surrogate for diffusion."""

from phojax.learn.correlation import Coefficient, control, pearson, spearman
from phojax.learn.correlation_table import correlations
from phojax.learn.settings import MIN_DETECTED, LearnSettings
from phojax.learn.store import load_model, save_model
from phojax.learn.surrogate import Surrogate, predicted, trained, why_untrained
from phojax.learn.table import LearningTable, descriptor_columns, learning_table
from phojax.learn.target import Target, log_target
from phojax.learn.validation import Validation, cross_validated, grouped_folds

__all__ = [
    "MIN_DETECTED",
    "Coefficient",
    "LearnSettings",
    "LearningTable",
    "Surrogate",
    "Target",
    "Validation",
    "control",
    "correlations",
    "cross_validated",
    "descriptor_columns",
    "grouped_folds",
    "learning_table",
    "load_model",
    "log_target",
    "pearson",
    "predicted",
    "save_model",
    "spearman",
    "trained",
    "why_untrained",
]
