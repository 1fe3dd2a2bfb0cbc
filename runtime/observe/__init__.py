"""What is measured, in the forms that tools read.

What belongs here: turning measurements that others have made into the text of a standard, such as
``Server-Timing``, Prometheus' format or OpenTelemetry's spans, and adding them up for it. What may not:
taking measurements, deciding by what was measured, HTTP, Ray.
"""
