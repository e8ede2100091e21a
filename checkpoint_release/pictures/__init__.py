"""Pictures of figures: SVG that has the same bytes for the same figures on any machine.

picture   a Vega-Lite chart drawn as SVG, and what it needs to be read without seeing it
theme     colours, light and dark, that the colour-blind can tell apart
proof     errors by output and format, with the limit
sizes     bytes by format
latency   bytes against milliseconds, where these were measured
"""
