"""Draws a person image from an attribute record: people as anti-aliased vector graphics."""

from jaxtbpr.render.picture import contact_sheet, render, render_png

__all__ = ["contact_sheet", "render", "render_png"]
