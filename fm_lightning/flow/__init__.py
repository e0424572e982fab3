"""Flow matching and its sampling in pure PyTorch: paths, couplings, grids, gains, solvers, controls."""

from fm_lightning.flow.closed_form import EmpiricalVelocity, GaussianVelocity
from fm_lightning.flow.couplings import Coupling, Independent, OptimalTransport
from fm_lightning.flow.diffusion import Diffusion
from fm_lightning.flow.gains import KTS, SSC, Brake, Constant, Gain, Product
from fm_lightning.flow.integrate import integrate, integrate_many
from fm_lightning.flow.likelihood import Likelihood, log_likelihood
from fm_lightning.flow.paths import LinearPath
from fm_lightning.flow.schedule import Schedule
from fm_lightning.flow.solvers import Solver
from fm_lightning.flow.times import Discrete, LogitNormal, Stratified, TimeSampling, Uniform
from fm_lightning.flow.trained import TrainedVelocity
from fm_lightning.flow.true_clock import true_clock
from fm_lightning.flow.velocity import DeclaredVelocity, GuidableVelocity, GuidedVelocity, Velocity, evaluating
from fm_lightning.guidance import Guidance

__all__ = [
    "KTS",
    "SSC",
    "Brake",
    "Constant",
    "Coupling",
    "DeclaredVelocity",
    "Diffusion",
    "Discrete",
    "EmpiricalVelocity",
    "Gain",
    "GaussianVelocity",
    "GuidableVelocity",
    "Guidance",
    "GuidedVelocity",
    "Independent",
    "Likelihood",
    "LinearPath",
    "LogitNormal",
    "OptimalTransport",
    "Product",
    "Schedule",
    "Solver",
    "Stratified",
    "TimeSampling",
    "TrainedVelocity",
    "Uniform",
    "Velocity",
    "evaluating",
    "integrate",
    "integrate_many",
    "log_likelihood",
    "true_clock",
]
