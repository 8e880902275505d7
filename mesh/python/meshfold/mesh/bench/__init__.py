"""Benchmarks: every figure is a ratio to a plain-Python reference measured just before and after it in the same run."""

from meshfold.mesh.bench.growth import GROWTH_FIGURES
from meshfold.mesh.bench.local import LOCAL_CASES
from meshfold.mesh.bench.operators import OPERATOR_CASES
from meshfold.mesh.bench.peers import with_peers
from meshfold.mesh.bench.reference import Case, Figure, Result, reference, run_cases, run_figures
from meshfold.mesh.bench.seal import SEAL_CASES
from meshfold.mesh.bench.wire import WIRE_CASES

__all__ = (
    "GROWTH_FIGURES",
    "LOCAL_CASES",
    "OPERATOR_CASES",
    "SEAL_CASES",
    "WIRE_CASES",
    "Case",
    "Figure",
    "Result",
    "reference",
    "run_cases",
    "run_figures",
    "with_peers",
)
