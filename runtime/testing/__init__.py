"""What tests, benchmarks and users of the package share: fakes, virtual time, a world of both.

Fakes pass the contract tests of what they stand for. Nothing that serves imports from here.
"""
