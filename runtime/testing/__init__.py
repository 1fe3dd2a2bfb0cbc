"""What tests, benchmarks and users of the package share: fakes of ports, and time that is virtual.

Fakes pass the contract tests of what they stand for. Nothing that serves imports from here.
"""
