"""The configuration: how files become one checked `Config`, and what each job may read of it.

`config/config.yaml` names a scale; `config/scales/<scale>.yaml` holds every number that depends on
it; `config/experiments.yaml` is the matrix of variants and tables; `config/datasets/*.yaml` the
data sets. A job reads nothing but the settings that `JobSettings` makes for it; their digest is the
job's parameter in the workflow, so a changed value re-runs exactly the jobs that read it.
"""

from geomem.config.cluster import REQUESTED, Cluster, Resources, launcher
from geomem.config.jobs import JobSettings
from geomem.config.load import configured_scale, load_cluster, load_config
from geomem.config.study import Config

__all__ = [
    "REQUESTED",
    "Cluster",
    "Config",
    "JobSettings",
    "Resources",
    "configured_scale",
    "launcher",
    "load_cluster",
    "load_config",
]
