"""The configuration: pydantic models, how files become one `Config`, and what each job may read.

`config/config.yaml` names a scale; `config/scales/<scale>.yaml` holds every number that depends on
it; `config/experiments.yaml` is the matrix of variants and tables; `config/datasets/*.yaml` the
data sets. A job reads nothing but the settings that `Config.*_settings` returns for it; their
digest is the job's parameter in the workflow, so a changed value re-runs exactly the jobs that
read it.
"""

from geomem.config.cluster import REQUESTED, Cluster, Resources, launcher
from geomem.config.data import Dataset
from geomem.config.evaluation import Table
from geomem.config.load import configured_scale, load_cluster, load_config
from geomem.config.matrix import Config

__all__ = [
    "REQUESTED",
    "Cluster",
    "Config",
    "Dataset",
    "Resources",
    "Table",
    "configured_scale",
    "launcher",
    "load_cluster",
    "load_config",
]
