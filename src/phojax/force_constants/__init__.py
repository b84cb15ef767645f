"""Force constants: their container, and where they come from."""

from phojax.force_constants.container import ForceConstants, force_constants

__all__ = ["ForceConstants", "force_constants"]
