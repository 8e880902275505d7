"""Benchmarks: every figure is a ratio to a plain-Python reference measured just before and after it in the same run."""

from meshfold.mesh.bench.local import LOCAL_CASES
from meshfold.mesh.bench.operators import OPERATOR_CASES
from meshfold.mesh.bench.reference import Case, Result, reference, run_cases
from meshfold.mesh.bench.seal import SEAL_CASES
from meshfold.mesh.bench.wire import WIRE_CASES

__all__ = (
    "LOCAL_CASES",
    "OPERATOR_CASES",
    "SEAL_CASES",
    "WIRE_CASES",
    "Case",
    "Result",
    "reference",
    "run_cases",
)
