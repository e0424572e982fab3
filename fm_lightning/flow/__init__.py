"""Flow matching and its sampling in pure PyTorch: paths, couplings, grids, gains, solvers, controls."""

from fm_lightning.flow.controls import matched_controls, rms_distance
from fm_lightning.flow.couplings import Coupling, Independent, OptimalTransport
from fm_lightning.flow.empirical import EmpiricalVelocity
from fm_lightning.flow.gains import KTS, SSC, Constant, Gain, Product
from fm_lightning.flow.integrate import integrate, integrate_many
from fm_lightning.flow.likelihood import Likelihood, log_likelihood
from fm_lightning.flow.paths import LinearPath
from fm_lightning.flow.schedule import Schedule
from fm_lightning.flow.times import Discrete, LogitNormal, Stratified, TimeSampling, Uniform

__all__ = [
    "KTS",
    "SSC",
    "Constant",
    "Coupling",
    "Discrete",
    "EmpiricalVelocity",
    "Gain",
    "Independent",
    "Likelihood",
    "LinearPath",
    "LogitNormal",
    "OptimalTransport",
    "Product",
    "Schedule",
    "Stratified",
    "TimeSampling",
    "Uniform",
    "integrate",
    "integrate_many",
    "log_likelihood",
    "matched_controls",
    "rms_distance",
]
