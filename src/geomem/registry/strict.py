"""What all settings share."""

from typing import Annotated, Any

from pydantic import BaseModel, ConfigDict, Field

from geomem.canonical import digest

Positive = Annotated[int, Field(gt=0)]
Share = Annotated[float, Field(ge=0, le=1)]


class Strict(BaseModel):
    """Unknown keys are errors; values cannot change.

    Fields with `exclude=True` change nothing about a result: they are left out of records, and no
    job is made again when they change.
    """

    model_config = ConfigDict(extra="forbid", frozen=True, allow_inf_nan=False)

    def recorded(self) -> dict[str, Any]:
        """Return plain JSON values, as records keep them."""
        return self.model_dump(mode="json")

    @property
    def digest(self) -> str:
        """The short digest by which these settings are told from others."""
        return digest(self.recorded())
