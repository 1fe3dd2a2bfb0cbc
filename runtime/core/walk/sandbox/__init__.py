"""A sandbox for templates in which a rendering ends: Jinja2's, with every operation counted.

Jinja2's sandbox keeps a template from what it may not touch; it lets it loop, multiply and pad as much as
it likes, and a prompt is rendered on the loop that serves everybody. Here each iteration, call, filter and
operation is a step, and each character that one reads or makes is counted, before it is made where its
arguments tell. A template in which nothing can repeat or grow is compiled without any of that.
"""
