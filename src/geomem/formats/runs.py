"""How a run is named in the tracking store."""


def run_tag(scale: str, variant: str, seed: int, checkpoint_sha256: str) -> str:
    """Return the tag under which MLflow has a training run and its evaluations."""
    return f"{scale}/{variant}/seed{seed}/{checkpoint_sha256[:12]}"
