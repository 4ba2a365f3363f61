"""What every part of flows.yaml is checked by: no unknown key, no number that is none."""

from __future__ import annotations

from pydantic import BaseModel, ConfigDict


class StrictModel(BaseModel):
    """Refuses keys that it does not know, and infinity and NaN, so that no slip goes unseen."""

    model_config = ConfigDict(extra="forbid", frozen=True, allow_inf_nan=False)
