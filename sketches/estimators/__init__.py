"""What the registers of several sketches say about the chunks behind them, with honest bounds."""

from sketches.estimators.estimate import Estimate
from sketches.estimators.union import union_estimate

__all__ = ["Estimate", "union_estimate"]
