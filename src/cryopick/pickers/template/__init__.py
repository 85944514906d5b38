"""`template`: correlation with projections or class averages."""

from cryopick.pickers.template.picker import TemplatePicker

__all__ = ["TemplatePicker"]
