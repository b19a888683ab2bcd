"""Names of the damages of the content-bias test, for records and tables."""

CLEAN, SHUFFLED, FROZEN = "clean", "shuffled", "frozen"
KEPT, BROKEN = "kept", "broken"


def of_strength(way: str, strength: float) -> str:
    """Return the name of a damage: time `kept` or `broken`, by warps of a strength."""
    return f"{way}_{strength:g}"
